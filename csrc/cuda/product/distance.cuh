// Norms and distances in double, sixteen lanes to a row: the arithmetic of csrc/cpu/rows.h in the same order, so that
// both halves give the same bits wherever the processor has a fused multiply-add.
#pragma once
#include "../rows/rows.cuh"

namespace pyfastcal::cuda {

inline constexpr int kRowLanes = 16;
using RowLanes = Lanes<kRowLanes>;

// x[i]: column first + 16 i of a row; 0 past its end.
template <int N>
__device__ __forceinline__ void read_columns(const Matrix& m, int64_t row, int64_t first, float (&x)[N]) {
  const auto read = [&](auto* data) {
    data += row * m.stride;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int64_t column = first + i * kRowLanes;
      x[i] = column < m.cols ? to_float(data[column]) : 0.0f;
    }
  };
  switch (m.dtype) {
    case Dtype::kFloat: return read(static_cast<const float*>(m.data));
    case Dtype::kHalf: return read(static_cast<const __half*>(m.data));
    case Dtype::kBFloat16: return read(static_cast<const __nv_bfloat16*>(m.data));
    case Dtype::kDouble: return;  // no matrix is
  }
}

__device__ __forceinline__ double sum_of_lanes(double x) {
  return RowLanes::reduce(x, [](double a, double b) { return a + b; });
}

__device__ inline double row_norm(const Matrix& m, int64_t row) {
  double sum = 0;
  for (int64_t first = RowLanes::rank(); first < m.cols; first += 8 * kRowLanes) {
    float x[8];
    read_columns(m, row, first, x);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = __fma_rn(double(x[i]), double(x[i]), sum);
  }
  return sqrt(sum_of_lanes(sum));
}

// What a row is multiplied by to have length 1; one shorter than 1e-12 is divided by that, as in
// torch.nn.functional.normalize: a zero row stays zero.
__device__ inline double inverse_norm(double norm) { return 1.0 / (norm > 1e-12 ? norm : norm >= 0 ? 1e-12 : norm); }

// The squared distance of two rows, each scaled: exactly 0 for equal ones, because the products are rounded alike.
__device__ inline double square_distance(const Matrix& a, int64_t row_a, double scale_a, const Matrix& b, int64_t row_b,
                                         double scale_b) {
  double sum = 0;
  for (int64_t first = RowLanes::rank(); first < a.cols; first += 4 * kRowLanes) {
    float x[4], y[4];
    read_columns(a, row_a, first, x);
    read_columns(b, row_b, first, y);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const double difference = __dmul_rn(y[i], scale_b) - __dmul_rn(x[i], scale_a);
      sum = __fma_rn(difference, difference, sum);
    }
  }
  return sum_of_lanes(sum);
}

}  // namespace pyfastcal::cuda
