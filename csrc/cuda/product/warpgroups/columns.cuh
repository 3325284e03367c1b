// For epilogues that take a tile column by column.
#pragma once
#include "../operand.cuh"
#include "product.cuh"

namespace pyfastcal::cuda::warpgroups {

// f(n, half) for what part p has of a thread's pairs of neighbours, (n, half, 0) and (n, half, 1): the parts from
// kBegin to kEnd share them out evenly, in order.
template <int p, int kBegin, int kEnd, class F>
__device__ __forceinline__ void each_pair(const F& f) {
  constexpr int kPairs = 2 * Place::kColBlocks, kCount = kEnd - kBegin;
  if constexpr (p >= kBegin && p < kEnd)
#pragma unroll
    for (int j = kPairs * (p - kBegin) / kCount; j < kPairs * (p - kBegin + 1) / kCount; ++j) f(j / 2, j % 2);
}

// What belongs to this thread's columns: the facts of tiles.
class Columns {
 public:
  using Fact = Column;
  __device__ __forceinline__ void begin(const Shared& shared, int tile) {
    pairs_ = reinterpret_cast<const float4*>(shared.facts<Fact>(tile) + Place::col(0, 0));
  }
  // Factor and addend of columns (n, 0) and (n, 1).
  __device__ __forceinline__ float4 two(int n) const { return pairs_[4 * n]; }

 private:
  const float4* pairs_ = nullptr;
};

}  // namespace pyfastcal::cuda::warpgroups
