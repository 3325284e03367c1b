// The factors of rows that are read in place (operand.cuh), measured by the three warps of the copying warpgroup that
// do not copy: from global memory, a tile's rows ahead, so that L2 has them when the copy engine comes. The same bits
// as InspectedRows, which takes them from what gemm.cuh copies.
#pragma once
#include "../operand.cuh"
#include "block.cuh"

namespace pyfastcal::cuda::warpgroups {

// Of one tile's rows; `ready` and `free` change hands by turns.
struct Lengths {
  static constexpr int kMeasuringThreads = kCopyingThreads - 32, kMeasuringWarps = kMeasuringThreads / 32;
  // whole warps take part to the last row
  static constexpr int kPaddedRows =
      (kTileRows + kMeasuringThreads / 8 - 1) / (kMeasuringThreads / 8) * (kMeasuringThreads / 8);

  float factor[kTileRows];
  prim::Barrier ready, free;

  // By one thread.
  __device__ void init() {
    prim::init(&ready, kMeasuringWarps);
    prim::init(&free, kMultiplyingWarps);
  }

  // By the measuring warps, for the tile whose rows begin at `first`; parity: 1, then by turns.
  template <class T>
  __device__ __forceinline__ void measure(const Operand<T>& m, int depth, int64_t first, bool normalize,
                                          uint32_t parity) {
    prim::wait(&free, parity);
#pragma unroll 1
    for (int r = (int(threadIdx.x) - 32) / 8; r < kPaddedRows; r += kMeasuringThreads / 8) {
      const float of_row = InspectedRows<T>::measure(m, depth, min(first + r, m.rows - 1), normalize);
      if (Piece::number() == 0 && r < kTileRows) factor[r] = of_row;
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) prim::arrive(&ready);
  }

  // By a multiplying warp, once for each tile of rows: those of its thread's rows; parity: 0, then by turns.
  __device__ __forceinline__ void take(float (&of_rows)[2], uint32_t parity) {
    prim::wait(&ready, parity);
#pragma unroll
    for (int half = 0; half < 2; ++half) of_rows[half] = factor[Place::row(0, half)];
    __syncwarp();
    if (threadIdx.x % 32 == 0) prim::arrive(&free);
  }
};

}  // namespace pyfastcal::cuda::warpgroups
