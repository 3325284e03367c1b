// The distinct class weights of similarity_confidence: base classes all share 1, so that there may be few.
#pragma once
#include <climits>

#include "../../rows/rows.cuh"

namespace pyfastcal::cuda::similarity_confidence {

inline constexpr int kFewWeights = 4;

struct Weights {
  int count;  // more than kFewWeights: not all are here
  float value[kFewWeights];
};

// More class weights take a second sweep: one for each number of sums would be a kernel too, and hardly be faster.
inline constexpr int kMostSums = 2;

// How many sums a row has in one sweep; 0: it takes two.
__device__ inline int sums_of(const Weights* weights) {
  const int count = weights ? weights->count : 1;
  return count > kMostSums ? 0 : count;
}

inline constexpr int kWeightThreads = 256;

// The distinct class weights, by one block: each round finds the first that differs from those before.
__global__ void __launch_bounds__(kWeightThreads)
    find_weights(const float* class_weight, int classes, Weights* weights) {
  float value[kFewWeights];
  int count = 0;
#pragma unroll
  for (int round = 0; round <= kFewWeights; ++round) {
    int first = INT_MAX;
    for (int c = int(threadIdx.x); c < classes && first == INT_MAX; c += kWeightThreads) {
      bool found = false;
#pragma unroll
      for (int j = 0; j < round; ++j) found |= class_weight[c] == value[j];
      if (!found) first = c;
    }
    first = Block<kWeightThreads>::reduce(first, [](int a, int b) { return min(a, b); });
    if (first == INT_MAX) break;
    if (round < kFewWeights) value[round] = class_weight[first];
    count = round + 1;
  }
  if (threadIdx.x == 0) {
    weights->count = count;
#pragma unroll
    for (int j = 0; j < kFewWeights; ++j)
      if (j < count) weights->value[j] = value[j];
  }
}

}  // namespace pyfastcal::cuda::similarity_confidence
