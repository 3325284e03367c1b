// The kernel: persistent blocks of one warpgroup whose first thread copies and two that multiply.
#pragma once
#include "copies.cuh"
#include "product.cuh"

namespace pyfastcal::hopper {

template <class P>
__global__ void __launch_bounds__(kThreads, 1)
    study_kernel(const __grid_constant__ CUtensorMap rows, const __grid_constant__ CUtensorMap classes,
                 const Arguments args) {
  extern __shared__ unsigned char raw[];
  const Shared<P> shared(raw);
  uint32_t rank = 0;
  if constexpr (P::kCluster > 1) rank = rank_in_cluster();
  if (threadIdx.x == 0) shared.init();
  __syncthreads();
  if constexpr (P::kCluster > 1) sync_cluster();
  const Walk walk{(args.row_tiles + P::kCluster - 1) / P::kCluster, int(gridDim.x) / P::kCluster,
                  int(blockIdx.x) / P::kCluster, int(rank)};
  if (threadIdx.x < 128) {
    release_registers<40>();
    if (threadIdx.x == 0) copy_tiles<P>(&rows, &classes, shared, walk, args);
  } else {
    claim_registers<232>();
    RowState state;
    Multiplier<P> multiplier(state, shared, walk, args, int(threadIdx.x) - 128);
    if constexpr (P::kSets == 1)
      multiplier.run_one_set();
    else
      multiplier.run_two_sets();
  }
  // no block may end while another still arrives at its barriers
  if constexpr (P::kCluster > 1) {
    __syncwarp();
    sync_cluster();
  }
}

}  // namespace pyfastcal::hopper
