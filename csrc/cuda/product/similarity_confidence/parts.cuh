// What similarity_confidence knows of a row from a part of its classes, and the merging of parts that several blocks
// made.
#pragma once
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

inline constexpr int kMergeThreads = 256;

// What a row's parts make of it, by a warp: lane w has those of warp w, as in the product.
__global__ void __launch_bounds__(kMergeThreads)
    merge_parts(const Part* parts, const float* scores, const float* row_factor, float logit_scale, bool bias,
                Factors factors, const Weights* weights, int rows, int classes, int col_tiles, float* confidence,
                int64_t* prediction) {
  const int row = int(blockIdx.x) * (kMergeThreads / 32) + int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  if (row >= rows) return;
  const int n_weights = weights ? weights->count : 1, n_sums = n_weights <= kFewWeights ? n_weights : 0;
  const float sample_weight = factors.sample_weight ? factors.sample_weight[row] : 1.0f;
  const float gain = bias ? sample_weight : sample_weight * (logit_scale * row_factor[row]);
  Part mine{-kInfinity, 0, {}};
  for (int t = 0; t < col_tiles; ++t) {
    if (lane >= 4 || t * kTileCols + lane * kWarpCols >= classes) break;
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
    if (lane == 0) confidence[row] = confidence_of(sum);
  } else {
    const float of_row = __shfl_sync(~0u, top, 0), factor = __shfl_sync(~0u, gain * class_weight, 0);
    const StreamedRow<float, Lanes<32>, true> logits(scores + int64_t(row) * col_tiles * kTileCols, uint32_t(classes));
    const double sum = logits.sum(RelativePower(of_row, factor));
    if (lane == 0) confidence[row] = confidence_of(sum);
  }
  if (lane == 0) prediction[row] = index;
}

}  // namespace pyfastcal::cuda::similarity_confidence
