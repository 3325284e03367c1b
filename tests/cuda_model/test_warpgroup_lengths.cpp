// The lengths of rows as a kernel by warpgroups measures them: the definition's, and to the bit those that gemm.cuh
// finds on the way.
#include "cuda/product/warpgroups/lengths.cuh"

#include "features.h"

using namespace pyfastcal::cuda;
using warpgroups::kCopyingThreads;
using warpgroups::Lengths;

namespace {

template <class T>
struct Arguments {
  Operand<T> m;
  int depth;
  bool normalize;
  float* factor;
};

// As a kernel by warpgroups has them: measured in warps 1 to 3, taken by the eight that multiply.
template <class T>
__global__ void measure_all(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(Lengths, lengths);
  if (threadIdx.x == 0) {
    lengths->init();
    prim::publish_barriers();
  }
  __syncthreads();
  uint32_t parity = threadIdx.x < kCopyingThreads;
  for (int first = int(blockIdx.x) * kTileRows; first < a.m.rows; first += int(gridDim.x) * kTileRows, parity ^= 1)
    if (threadIdx.x >= kCopyingThreads) {
      float of_rows[2];
      lengths->take(of_rows, parity);
      for (int half = 0; half < 2; ++half) {
        const int row = first + warpgroups::Place::row(0, half);
        if (threadIdx.x % 4 == 0 && row < a.m.rows) a.factor[row] = of_rows[half];
      }
    } else if (threadIdx.x >= 32) {
      lengths->measure(a.m, a.depth, first, a.normalize, parity);
    }
}

// As gemm.cuh has them, from chunks in shared memory.
template <class T>
__global__ void inspect_all(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, chunk);
  float* const factor = reinterpret_cast<float*>(chunk + warpgroups::kBoxBytes);
  for (int first = int(blockIdx.x) * kTileRows; first < a.m.rows; first += int(gridDim.x) * kTileRows) {
    InspectedRows<T> rows;
    rows.begin();
    for (int k = 8 * Piece::number(); k < (a.depth + kChunk - 1) / kChunk * kChunk; k += kChunk) {
      for (int part = 0; part < 4; ++part) {
        const int64_t row = first + Piece::row() + 32 * part;
        unsigned char* const piece = chunk + Piece::offset() + part * (32 * kChunkRowBytes);
        memset(piece, 0, 16);
        if (row < a.m.rows && k < a.depth) memcpy(piece, a.m.data + row * a.m.stride + k, 16);
        rows.see(chunk, part);
      }
    }
    rows.finish(a.m, a.depth, first, a.normalize, factor);
    __syncthreads();
    if (const int row = first + int(threadIdx.x); threadIdx.x < kTileRows && row < a.m.rows)
      a.factor[row] = factor[threadIdx.x];
    __syncthreads();
  }
}

template <class T>
void check_lengths(const Features<T>& m, int grid, bool normalize) {
  DeviceArray<float> measured(size_t(m.rows)), inspected(size_t(m.rows));
  Arguments<T> arguments{{m.data.data(), m.rows, m.stride, 0}, int(m.cols), normalize, measured.data()};
  CHECK(PYFASTCAL_LAUNCH(measure_all<T>, dim3(unsigned(grid)), warpgroups::kThreads, sizeof(Lengths), nullptr,
                         arguments) == cudaSuccess);
  arguments.factor = inspected.data();
  CHECK(PYFASTCAL_LAUNCH(inspect_all<T>, dim3(unsigned(grid)), kProductThreads,
                         warpgroups::kBoxBytes + kTileRows * sizeof(float), nullptr, arguments) == cudaSuccess);
  for (int64_t i = 0; i < m.rows; ++i) {
    const float x = measured[size_t(i)], y = inspected[size_t(i)];
    CHECK_EQUAL(cuda_model::to_bits(x), cuda_model::to_bits(y), x, " and ", y, " of row ", i);
    const double length = m.norm(i), exact = normalize ? 0x1p16 * unit(length) : 0x1p16;
    if (std::isfinite(length))
      CHECK_NEAR(x, exact, 2e-7 * exact, "row ", i, " of ", m.rows);
    else
      CHECK(std::isnan(x));
  }
  record(measured);
}

// 300 rows, some of which are zero, so short that they count as zero or nearly so, so long that their squares overflow,
// or not finite. Zeros fill them up to a multiple of eight columns.
template <class T>
Features<T> of_all_lengths(int64_t depth) {
  constexpr bool kHalf = std::is_same_v<T, __half>;
  Features<T> m(300, depth, 1, 0, (8 - depth % 8) % 8);
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t k = depth; k < m.stride; ++k) m.row(i)[k] = T(0.0f);
  m.scale(0, 0);
  m.scale(67, 0);
  m.scale(130, kHalf ? 1e-6 : 1e-37);
  m.scale(131, kHalf ? 1e-5 : 1e-15);
  m.scale(255, kHalf ? 1e-3 : 1e-11);
  m.scale(3, kHalf ? 1e4 : 1e15);
  m.scale(127, kHalf ? 1e4 : 5e37);
  m.scale(299, kHalf ? 1e4 : 1e20);
  m.row(64)[0] = T(::kNaN);
  m.row(200)[depth - 1] = T(::kInfinity);
  m.row(298)[depth / 2] = T(-::kInfinity);
  return m;
}

}  // namespace

TEST(warpgroups_measure_lengths_as_they_are_inspected) {
  for (const bool normalize : {true, false}) {
    check_lengths(of_all_lengths<__nv_bfloat16>(512), 1, normalize);
    check_lengths(of_all_lengths<__half>(449), 2, normalize);
  }
  check_lengths(of_all_lengths<__nv_bfloat16>(459), 3, true);
  check_lengths(of_all_lengths<__half>(520), 1, true);
}

TEST(warpgroups_measure_the_last_rows) {
  for (const int rows : {1, 11, 12, 13, 120, 127, 128, 129, 132, 140})
    check_lengths(Features<__nv_bfloat16>(rows, 456, 1), 1, true);
  check_lengths(Features<__half>(260, 456, 1, 8, 16), 4, true);  // a block has none
}
