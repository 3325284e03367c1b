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

// By a warp: the sums of powers of kRows rows of stored logits, `width` (a multiple of 128) from one to the next; past
// the last class they are -infinity. A row's bits do not depend on kRows; with more of them more is under way.
template <int kRows>
__device__ __forceinline__ void sum_stored(const float* scores, int width, const RelativePower (&power)[kRows],
                                           double (&sum)[kRows]) {
  constexpr int kRun = 2;
  const float4* const from = reinterpret_cast<const float4*>(scores);
  const int vectors = width / 4;
#pragma unroll
  for (double& of_row : sum) of_row = 0;
#pragma unroll 1
  for (int v = int(threadIdx.x) % 32; v < vectors; v += 32 * kRun) {
    float4 x[kRows][kRun];
#pragma unroll
    for (int j = 0; j < kRows; ++j)
#pragma unroll
      for (int i = 0; i < kRun; ++i)
        x[j][i] = v + 32 * i < vectors ? from[j * vectors + v + 32 * i]
                                       : make_float4(-kInfinity, -kInfinity, -kInfinity, -kInfinity);
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      float run = 0;
#pragma unroll
      for (const float4& y : x[j]) run += (power[j](y.x) + power[j](y.y)) + (power[j](y.z) + power[j](y.w));
      sum[j] += run;
    }
  }
#pragma unroll
  for (double& of_row : sum) of_row = Lanes<32>::reduce(of_row, Plus());
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
  const int n_weights = weights ? weights->count : 1, n_sums = n_weights <= kFewWeights ? n_weights : 0;
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
    double sum[1];
    if constexpr (kGroups) {
      sum_stored<1>(scores + int64_t(row) * col_tiles * kCols, col_tiles * kCols, {RelativePower(of_row, factor)}, sum);
    } else {
      const StreamedRow<float, Lanes<32>, true> logits(scores + int64_t(row) * col_tiles * kCols, uint32_t(classes));
      sum[0] = logits.sum(RelativePower(of_row, factor));
    }
    if (lane == 0) confidence[row] = kGroups ? confidence_or_nan(sum[0]) : confidence_of(sum[0]);
  }
  if (lane == 0) prediction[row] = index;
}

}  // namespace pyfastcal::cuda::similarity_confidence
