// knn, first: what is to be known of every row before the product (its norm, how far its copy is off, whether scores
// can judge it) and, where the product cannot read the rows in place, their 16-bit copies.
#pragma once
#include "../distance.cuh"
#include "search.cuh"
#include "select.cuh"

namespace pyfastcal::cuda::knn {

inline constexpr int kPrepareThreads = 256, kPrepareRows = kPrepareThreads / kRowLanes;

// Rows of `width` 16-bit numbers, the last of them 0, for the product to read; data null: it reads the rows in place.
struct Copies {
  uint16_t* data;
  int64_t width;
};

struct RowFacts {
  double norm, scale, power;  // the row is multiplied by power in its copy, by scale for distances
  float residual;
  __device__ bool finite() const { return norm < double(kInfinity); }
};

// Sixteen lanes take one row's facts and, where copies are made, write the row's (if it is `wanted`).
__device__ inline RowFacts prepare_row(const Matrix& m, int64_t row, bool normalize, const Copies& copies,
                                       bool wanted) {
  RowFacts facts{row_norm(m, row), 1, 1, 0};
  if (normalize) facts.scale = inverse_norm(facts.norm);
  if (!copies.data) return facts;
  const bool usable = facts.finite() && facts.norm > 0;
  if (normalize && usable) facts.power = ldexp(1.0, 13 - ilogb(facts.norm));  // below 2^14: fp16 goes to 2^16
  uint16_t* const copy = copies.data + row * copies.width;
  double square = 0;
  for (int64_t first = RowLanes::rank(); first < copies.width; first += 4 * kRowLanes) {
    float x[4];
    read_columns(m, row, first, x);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float value = usable ? float(x[i] * facts.power) : 0;
      const __half half = __float2half_rn(value);
      const __nv_bfloat16 bfloat16 = __float2bfloat16_rn(value);
      const double error = double(value) - double(normalize ? to_float(half) : to_float(bfloat16));
      square = __fma_rn(error, error, square);
      if (wanted && first + i * kRowLanes < copies.width)
        copy[first + i * kRowLanes] = normalize ? __half_as_ushort(half) : __bfloat16_as_ushort(bfloat16);
    }
  }
  square = sum_of_lanes(square);
  if (usable) facts.residual = float(sqrt(square) / (facts.norm * facts.power) * (1 + 0x1p-20));
  return facts;
}

// Whether fp32 products with a row of this norm keep their precision, and the row is a unit vector with normalize.
__device__ inline bool in_range(double norm, const Copies& copies, bool normalize) {
  if (!normalize) return norm == 0 || (norm > 1e-15 && norm < 1e15);
  return norm > 1e-12 && (copies.data || norm < 1e15);
}

__global__ void __launch_bounds__(kPrepareThreads) prepare_queries(const __grid_constant__ Search s, Copies copies) {
  const int64_t row = int64_t(blockIdx.x) * kPrepareRows + threadIdx.x / kRowLanes;
  const bool wanted = row < s.queries.rows;  // the whole warp takes part, whoever has a row
  const RowFacts facts = prepare_row(s.queries, wanted ? row : 0, s.normalize, copies, wanted);
  if (!wanted || RowLanes::rank() != 0) return;
  const bool judged = in_range(facts.norm, copies, s.normalize);
  s.query_facts[row] = {facts.scale, float(facts.norm * facts.power), facts.residual,
                        !facts.finite() ? State::kNotFinite
                        : judged        ? State::kJudged
                                        : State::kOutOfRange};
}

// Blocks go over the bank in strides, so that few of them touch the totals.
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_bank(const __grid_constant__ Search s, Copies copies, int64_t padded_rows) {
  const int64_t n = s.bank.rows;
  float largest = 0, residual = 0;
  int last = 0, first = 0;
  for (int64_t row0 = int64_t(blockIdx.x) * kPrepareRows; row0 < padded_rows;
       row0 += int64_t(gridDim.x) * kPrepareRows) {
    const int64_t row = row0 + threadIdx.x / kRowLanes;
    const bool wanted = row < n;
    const RowFacts facts = prepare_row(s.bank, wanted ? row : 0, s.normalize, copies, wanted);
    float fact = kNaN;
    if (wanted && !facts.finite()) {
      last = max(last, int(row) + 1);
      first = max(first, int(n - row));
    } else if (wanted && in_range(facts.norm, copies, s.normalize)) {
      fact = s.normalize ? float(facts.scale / facts.power) : float(facts.norm * facts.norm / 2);
      largest = max(largest, float(facts.norm * facts.scale));
      residual = max(residual, facts.residual);
    } else if (wanted && RowLanes::rank() == 0) {
      s.out_of_range[atomicAdd(&s.totals->out_of_range, 1)] = int(row);
    }
    if (row >= padded_rows || RowLanes::rank() != 0) continue;
    s.fact[row] = fact;
    if (wanted) s.bank_scale[row] = facts.scale;
  }
  const uint32_t largest_bits = __reduce_max_sync(kWholeWarp, __float_as_uint(largest));
  const uint32_t residual_bits = __reduce_max_sync(kWholeWarp, __float_as_uint(residual));
  last = __reduce_max_sync(kWholeWarp, last);
  first = __reduce_max_sync(kWholeWarp, first);
  if (threadIdx.x % 32) return;
  atomicMax(&s.totals->largest, largest_bits);
  atomicMax(&s.totals->residual, residual_bits);
  atomicMax(&s.totals->not_finite_last, last);
  atomicMax(&s.totals->not_finite_first, first);
}

}  // namespace pyfastcal::cuda::knn
