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

// What belongs to the columns, each block's loaded while the one before is looked at.
class Columns {
 public:
  // first: that of the tile
  __device__ __forceinline__ void begin(const Column* first) {
    pairs_ = reinterpret_cast<const float4*>(first + Place::col(0, 0));
    two_ = __ldg(pairs_);
  }
  // Factor and addend of columns (n, 0) and (n, 1), when those of block n - 1 are done with.
  __device__ __forceinline__ const float4& two() const { return two_; }
  __device__ __forceinline__ void next(int n) {
    if (n + 1 < Place::kColBlocks) two_ = __ldg(pairs_ + (n + 1) * 4);
  }

 private:
  const float4* pairs_;
  float4 two_;
};

}  // namespace pyfastcal::cuda::warpgroups
