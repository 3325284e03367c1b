// From rows of any type to the operands of a product, and the factors that turn products into similarities:
//
//   similarity(i, c) = product(i, c) * row_factor[i] * column[c].factor
//
// Two matrices of the same 16-bit type are multiplied as they are; a (the many rows: images) is read in place where the
// copies of gemm.cuh can, b (the classes) is packed. All else goes through fp32, and fp32 is split exactly into three
// bf16 terms (8 + 8 + 8 bits), of which the products that matter in fp32 are taken pair by pair.
//
// Range. fp16 products cannot leave fp32's range. Rows of fp32 are scaled by a power of two, which is exact, to a
// length near 1. Rows of a in bf16 keep their length, up to 2^128 sqrt(D), so those of b are scaled to 2^-16: no sum
// overflows, and rows of a too short for that keep their precision down to 1e-24, far below where a length counts as
// zero (1e-12). The power is taken back by the factors, which are double until they are rounded; a row with NaN or
// infinity in it gets the factor NaN.
#pragma once
#include "../rows/row_confidence.cuh"
#include "../runtime/launch.cuh"
#include "distance.cuh"
#include "tile.cuh"

namespace pyfastcal::cuda {

inline bool is_16_bit(Dtype dtype) { return dtype == Dtype::kHalf || dtype == Dtype::kBFloat16; }
// Whether the product of two matrices is one of fp32 terms.
inline bool must_split(const Matrix& a, const Matrix& b) { return a.dtype != b.dtype || !is_16_bit(a.dtype); }
inline bool readable_in_place(const Matrix& m) {
  return is_16_bit(m.dtype) && m.cols % 8 == 0 && rows_are_aligned(static_cast<const __half*>(m.data), m.stride);
}
inline int64_t packed_width(const Matrix& m) { return (m.cols + 7) / 8 * 8; }
// Elements of a packed copy.
inline int64_t packed_size(const Matrix& m, bool split) { return m.rows * packed_width(m) * (split ? 3 : 1); }

// The operand that prepare_rows makes of m: in `copy`, or in place where that is null.
template <class T>
Operand<T> operand_of(const Matrix& m, bool split, uint16_t* copy) {
  if (!copy) return {static_cast<const T*>(m.data), m.rows, m.stride, 0};
  const int64_t width = packed_width(m);
  return {reinterpret_cast<const T*>(copy), m.rows, split ? 3 * width : width, width};
}

// What turns a column of products into one of logits: product * factor + addend. Past the last class the addend is
// -infinity.
struct Column {
  float factor, addend;
};

enum class Scaling { kNone, kToOne, kToSmall };  // the length that rows are scaled to: their own, 1, 2^-16

struct Preparation {
  Matrix rows;
  bool normalize;
  uint16_t* copy;  // null: the rows are read in place
  int terms;       // 1: of the rows' own type; 3: bf16
  Scaling scaling;
  // one of these at most:
  float* row_factor;
  Column* columns;    // padded_columns of them
  const float* bias;  // addends, or null
  int64_t padded_columns;
};

namespace operand {

inline constexpr int kThreads = 256;
// Factors of rows are this much larger, of columns smaller, than they would be: products with bf16 rows are small.
// Those of split rows are near 1, and a row's factor may be as large as a float can be.
inline constexpr double kBalance = 0x1p16;

template <class T>
__device__ __forceinline__ void load_eight(float (&x)[8], const T* row, int64_t first, int64_t cols, bool aligned) {
  constexpr int kVectors = 8 / Vector<T>::kSize;
  if (aligned && first + 8 <= cols) {
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      Vector<T> v;
      memcpy(&v, __builtin_assume_aligned(row + first + j * Vector<T>::kSize, 16), 16);
      float part[Vector<T>::kSize];
      to_floats(v, part);
#pragma unroll
      for (int e = 0; e < Vector<T>::kSize; ++e) x[j * Vector<T>::kSize + e] = part[e];
    }
  } else {
#pragma unroll
    for (int e = 0; e < 8; ++e) x[e] = first + e < cols ? to_float(row[first + e]) : 0.0f;
  }
}

template <class T>
__device__ __forceinline__ uint32_t rounded_bits(float x) {
  T rounded;
  if constexpr (std::is_same_v<T, __half>)
    rounded = __float2half_rn(x);
  else
    rounded = __float2bfloat16_rn(x);
  uint16_t bits;
  memcpy(&bits, &rounded, 2);
  return bits;
}

// Writes eight numbers as T and leaves in x what rounding took away.
template <class T>
__device__ __forceinline__ void store_eight(uint16_t* to, float (&x)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    words[w] = rounded_bits<T>(x[2 * w]) | rounded_bits<T>(x[2 * w + 1]) << 16;
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      x[2 * w] -= __uint_as_float(words[w] << 16);
      x[2 * w + 1] -= __uint_as_float(words[w] & 0xffff0000u);
    }
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

// The length of a row, by a warp: in fp32 where that cannot overflow or vanish, else in double.
template <class T>
__device__ __forceinline__ double length_of(const Matrix& m, int64_t row, bool aligned) {
  const T* const data = static_cast<const T*>(m.data) + row * m.stride;
  float sum = 0;
  for (int64_t first = threadIdx.x % 32 * 8; first < m.cols; first += 512) {
    float x[2][8];
    load_eight(x[0], data, first, m.cols, aligned);
    load_eight(x[1], data, first + 256, m.cols, aligned);
#pragma unroll
    for (int e = 0; e < 16; ++e) sum = __fmaf_rn(x[e / 8][e % 8], x[e / 8][e % 8], sum);
  }
  sum = Lanes<32>::reduce(sum, [](float a, float b) { return a + b; });
  return sum > 1e-30f && sum < 1e30f ? sqrt(double(sum)) : row_norm(m, row);
}

// A warp per row.
template <class T>
__global__ void __launch_bounds__(kThreads) prepare_rows(Preparation p, bool aligned) {
  const Matrix& m = p.rows;
  const int64_t row = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const bool first_lane = threadIdx.x % 32 == 0;
  if (row >= m.rows) {
    if (p.columns && row < p.padded_columns && first_lane) p.columns[row] = {0, -kInfinity};
    return;
  }
  int power = 0;  // of 2, that the row is multiplied by
  if (p.columns || p.row_factor) {
    const double length = p.columns ? row_norm(m, row) : length_of<T>(m, row, aligned);
    const bool finite = length < double(kInfinity);
    if (p.scaling != Scaling::kNone && finite && length > 0)
      power = min(max((p.scaling == Scaling::kToSmall ? -16 : 0) - ilogb(length), -126), 126);
    double factor = ldexp(p.normalize ? inverse_norm(length) : 1.0, -power);
    if (!finite) factor = double(kNaN);
    const double balance = p.scaling == Scaling::kToOne ? 1 : kBalance;
    if (first_lane && p.columns) p.columns[row] = {float(factor / balance), p.bias ? p.bias[row] : 0.0f};
    if (first_lane && p.row_factor) p.row_factor[row] = float(factor * balance);
  }
  if (!p.copy) return;
  const T* const data = static_cast<const T*>(m.data) + row * m.stride;
  const int64_t width = (m.cols + 7) / 8 * 8;
  const float scale = __uint_as_float(uint32_t(power + 127) << 23);
  for (int64_t first = threadIdx.x % 32 * 8; first < width; first += 256) {
    float x[8];
    load_eight(x, data, first, m.cols, aligned);
#pragma unroll
    for (float& value : x) value *= scale;
    uint16_t* const to = p.copy + row * p.terms * width + first;
    if (p.terms == 1) {
      if constexpr (!std::is_same_v<T, float>) store_eight<T>(to, x);
    } else {
#pragma unroll
      for (int term = 0; term < 3; ++term) store_eight<__nv_bfloat16>(to + term * width, x);
    }
  }
}

inline cudaError_t prepare(const Preparation& p, cudaStream_t stream) {
  const int64_t rows = p.columns ? max(p.rows.rows, p.padded_columns) : p.rows.rows;
  const unsigned blocks = unsigned((rows + kThreads / 32 - 1) / (kThreads / 32));
  return with_type(p.rows.data, p.rows.dtype, [&]<class T>(const T* data) {
    return PYFASTCAL_LAUNCH(prepare_rows<T>, blocks, kThreads, 0, stream, p, rows_are_aligned(data, p.rows.stride));
  });
}

}  // namespace operand

// The rows of a: their factors and their copy, if wanted.
inline cudaError_t prepare_a(const Matrix& m, bool split, bool normalize, uint16_t* copy, float* row_factor,
                             cudaStream_t stream) {
  const Scaling scaling = split ? Scaling::kToOne : Scaling::kNone;
  return operand::prepare({m, normalize, copy, split ? 3 : 1, scaling, row_factor, nullptr, nullptr, 0}, stream);
}

// The same factors for rows of a that are read in place, from what the product copies of them anyway: begin() with a
// row tile, see() of all of its chunks, then finish(), by the whole block.
template <class T>
class InspectedRows {
 public:
  __device__ __forceinline__ void begin() {
#pragma unroll
    for (float& sum : sum_) sum = 0;
  }

  __device__ __forceinline__ void see(const unsigned char* chunk, int part) {
    Vector<T> v;
    memcpy(&v, __builtin_assume_aligned(chunk + Piece::offset() + part * (32 * kChunkRowBytes), 16), 16);
    float x[8];
    to_floats(v, x);
#pragma unroll
    for (const float value : x) sum_[part] = __fmaf_rn(value, value, sum_[part]);
  }

  // row_factor[r]: of row first + r of m
  __device__ __forceinline__ void finish(const Operand<T>& m, int depth, int64_t first, bool normalize,
                                         float* row_factor) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const float square = Lanes<8>::reduce(sum_[part], Plus());
      const int row = Piece::row() + 32 * part;
      // an overflow: again, with smaller numbers
      const float small_square = __any_sync(~0u, !(square < 1e30f)) ? sum_small_squares(m, depth, first + row) : 0;
      if (Piece::number() == part) row_factor[row] = factor(square, small_square, normalize);
    }
  }

  // The same from rows that lie in global memory: to the eight lanes that look after one. By whole warps.
  __device__ __forceinline__ static float measure(const Operand<T>& m, int depth, int64_t row, bool normalize) {
    const T* piece = m.data + row * m.stride + 8 * Piece::number();
    float sum = 0;
#pragma unroll 4
    for (int left = depth - 8 * Piece::number(); left > 0; left -= kChunk, piece += kChunk) {
      Vector<T> v;
      memcpy(&v, __builtin_assume_aligned(piece, 16), 16);
      float x[8];
      to_floats(v, x);
#pragma unroll
      for (const float value : x) sum = __fmaf_rn(value, value, sum);
    }
    const float square = Lanes<8>::reduce(sum, Plus());
    return factor(square, __any_sync(~0u, !(square < 1e30f)) ? sum_small_squares(m, depth, row) : 0, normalize);
  }

 private:
  static constexpr float kSmaller = 0x1p-80f;

  __device__ static float sum_small_squares(const Operand<T>& m, int depth, int64_t row) {
    float sum = 0;
    if (row < m.rows)
#pragma unroll 1
      for (int k = Piece::number(); k < depth; k += 8) {
        const float x = to_float(m.data[row * m.stride + k]) * kSmaller;
        sum = __fmaf_rn(x, x, sum);
      }
    return Lanes<8>::reduce(sum, Plus());
  }

  __device__ static float factor(float square, float small_square, bool normalize) {
    const bool in_range = square < 1e30f;
    if (!in_range && !(small_square < kInfinity)) return kNaN;
    const float balance = float(operand::kBalance);
    if (!normalize) return balance;
    if (square < 1e-24f) return balance * 1e12f;  // shorter than 1e-12, which counts as zero: see inverse_norm
    const float x = in_range ? square : small_square, y = rsqrtf(x);
    return __fmaf_rn(__fmaf_rn(-x * y, y, 1.0f), 0.5f * y, y) * (in_range ? balance : balance * kSmaller);
  }

  float sum_[4];
};

// The rows of b, always copied, and their columns of the product up to padded_columns.
inline cudaError_t prepare_b(const Matrix& m, bool split, bool normalize, uint16_t* copy, const float* bias,
                             Column* columns, int64_t padded_columns, cudaStream_t stream) {
  const Scaling scaling = split ? Scaling::kToOne : m.dtype == Dtype::kBFloat16 ? Scaling::kToSmall : Scaling::kNone;
  return operand::prepare({m, normalize, copy, split ? 3 : 1, scaling, nullptr, columns, bias, padded_columns}, stream);
}

}  // namespace pyfastcal::cuda
