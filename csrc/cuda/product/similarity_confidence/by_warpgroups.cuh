// similarity_confidence on the product by warpgroups: the kernel.
#pragma once
#include "group_epilogues.cuh"

namespace pyfastcal::cuda::similarity_confidence {

inline constexpr int kGroupSharedBytes =
    warpgroups::Shared::kBytes<warpgroups::Columns::Fact> + int(sizeof(warpgroups::Lengths));

// Does nothing where rows have another number of sums (the host knows only the most that there can be).
template <class T, bool kBias, int kSums>
__global__ void __launch_bounds__(warpgroups::kThreads, 1)
    predict_by_warpgroups(const __grid_constant__ GroupArguments<T> a) {
  if constexpr (prim::kOnHopper) {
    using namespace warpgroups;
    using Epilogue = std::conditional_t<kSums == 0, GroupSweeps<T, kBias>, GroupEpilogue<T, kBias, kSums ? kSums : 1>>;
    if (sums_of(a.of.weights) != kSums) return;
    PYFASTCAL_SHARED(unsigned char, base);
    const Shared shared(base);
    Lengths& lengths = *reinterpret_cast<Lengths*>(base + Shared::kBytes<Columns::Fact>);
    if (threadIdx.x == 0) {
      shared.init();
      lengths.init();
      prim::publish_barriers();
    }
    __syncthreads();
    const GroupTiles<T> tiles(a, kSums == 0);
    const auto measure = [&] {
      uint32_t parity = 1;
#pragma unroll 1
      for (int64_t row = tiles.first_row(0); row < a.of.product.a.rows; row += a.row_step.divisor() * kTileRows) {
        lengths.measure(a.of.product.a, a.of.product.depth, row, a.of.normalize, parity);
        parity ^= 1;
      }
    };
    share_out<T>(
        tiles, shared, a.of.product.depth, measure, [&] { return Epilogue(a, tiles, shared, lengths); },
        [](const auto&) {});
  } else {
    prim::trap();
  }
}

}  // namespace pyfastcal::cuda::similarity_confidence
