// What similarity_confidence knows of a row from a part of its classes, and the merging of parts that several blocks
// made.
#pragma once
#include <cfloat>

#include "../tile_rows.cuh"
#include "weights.cuh"

namespace pyfastcal::cuda::similarity_confidence {

// What is known of a row, or of a part of its classes: the largest logit, the first class that has it, and for every
// weight the sum of powers relative to it.
struct Part {
  float top;
  int index;
  float sum[kFewWeights];
};

// The sum for the predicted class's weight, relative to the whole row's largest logit, `top`.
__device__ __forceinline__ float choose_sum(const Part& part, const Weights* weights, int n_sums, float weight,
                                            float gain, float top) {
  float chosen = part.sum[0];
  if (weights) {
    chosen = kNaN;
#pragma unroll
    for (int w = 0; w < kFewWeights; ++w)
      if (w < n_sums && weights->value[w] == weight) chosen = part.sum[w];
  }
  return chosen == 0 ? 0 : chosen * RelativePower(top, gain * weight)(part.top);
}

// Where parts begin with -FLT_MAX: nothing was added where all classes are masked.
template <class Sum>
__device__ __forceinline__ float confidence_or_nan(Sum sum) {
  return sum > 0 ? confidence_of(sum) : kNaN;
}

// By a warp: the sum of powers of a row's stored logits, to its first four lanes what a lane of GroupSweeps has of
// them, in the same order: of every tile one fp32 sum.
__device__ __forceinline__ double sum_stored(const float* scores, int col_tiles, const RelativePower& power) {
  constexpr int kCols = 128, kTogether = 32 / 4;
  const int lane = int(threadIdx.x) % 32;
  double sum = 0;
#pragma unroll 1
  for (int first = 0; first < col_tiles; first += kTogether) {
    const int tile = first + lane / 4;
    float of_tile = 0;
    if (tile < col_tiles) {
      const float2* const pairs = reinterpret_cast<const float2*>(scores + tile * kCols) + lane % 4;
#pragma unroll
      for (int n = 0; n < kCols / 8; ++n) {
        const float2 pair = pairs[4 * n];
        of_tile += power(pair.x);
        of_tile += power(pair.y);
      }
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) sum += double(__shfl_sync(~0u, of_tile, 4 * j + lane % 4));  // 0 past the last
  }
  return sum;
}

inline constexpr int kMergeThreads = 256;

// What a row's parts make of it, by a warp: lane w of its first four has part w of every tile, which begins at class w
// * part_cols of the tile. Of the product by warpgroups or of the other, as it puts a row together.
template <bool kGroups>
__global__ void __launch_bounds__(kMergeThreads)
    merge_parts(const Part* parts, const float* scores, const float* row_factor, float logit_scale, bool bias,
                Factors factors, const Weights* weights, int rows, int classes, int col_tiles, float* confidence,
                int64_t* prediction) {
  constexpr int kCols = kGroups ? 128 : kTileCols, kPartCols = kGroups ? 2 : kWarpCols;
  const int row = int(blockIdx.x) * (kMergeThreads / 32) + int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  if (row >= rows) return;
  const int n_weights = weights ? weights->count : 1,
            n_sums = n_weights <= (kGroups ? kMostSums : kFewWeights) ? n_weights : 0;
  const float sample_weight = factors.sample_weight ? factors.sample_weight[row] : 1.0f;
  const float gain = bias ? sample_weight : sample_weight * (logit_scale * row_factor[row]);
  Part mine{kGroups ? -FLT_MAX : -kInfinity, 0, {}};
  for (int t = 0; t < col_tiles; ++t) {
    if (lane >= 4 || t * kCols + lane * kPartCols >= classes) break;
    const Part part = parts[(int64_t(row) * col_tiles + t) * 4 + lane];
#pragma unroll
    for (int w = 0; w < kFewWeights; ++w)
      if (w < n_sums) {
        const float factor = gain * (weights ? weights->value[w] : 1.0f);
        mine.sum[w] = add_relative(mine.sum[w], mine.top, part.sum[w], part.top, factor);
      }
    if (part.top > mine.top) mine.index = part.index;
    mine.top = fmaxf(mine.top, part.top);
  }
  const float top = Lanes<4>::reduce(mine.top, Max());
  int index = Lanes<4>::reduce(mine.top == top ? mine.index : INT_MAX, Min());
  if (index == INT_MAX) index = 0;  // a row of NaN
  const float class_weight = factors.class_weight ? factors.class_weight[index] : 1.0f;
  if (n_sums > 0) {
    const float sum = Lanes<4>::reduce(choose_sum(mine, weights, n_sums, class_weight, gain, top), Plus());
    if (lane == 0) confidence[row] = kGroups ? confidence_or_nan(sum) : confidence_of(sum);
  } else {
    const float of_row = __shfl_sync(~0u, top, 0), factor = __shfl_sync(~0u, gain * class_weight, 0);
    const float* const stored = scores + int64_t(row) * col_tiles * kCols;
    const RelativePower power(of_row, factor);
    if constexpr (kGroups) {
      const double sum = Lanes<4>::reduce(sum_stored(stored, col_tiles, power), Plus());
      if (lane == 0) confidence[row] = confidence_or_nan(sum);
    } else {
      const StreamedRow<float, Lanes<32>, true> logits(stored, uint32_t(classes));
      const double sum = logits.sum(power);
      if (lane == 0) confidence[row] = confidence_of(sum);
    }
  }
  if (lane == 0) prediction[row] = index;
}

}  // namespace pyfastcal::cuda::similarity_confidence
