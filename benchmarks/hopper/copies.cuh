// The thread that copies: every tile's chunks, in the order in which they are multiplied.
#pragma once
#include "plan.cuh"

namespace pyfastcal::hopper {

// Of a cluster's blocks each copies its part of a chunk of classes to all: L2 delivers it once. A slot is free when the
// warps of all blocks have read it.
template <class P>
__device__ __forceinline__ void copy_tiles(const CUtensorMap* rows, const CUtensorMap* classes, const Shared<P>& shared,
                                           const Walk& walk, const Arguments& args) {
  const long long start = clock64();
  int slot = 0, group_number = 0;
  uint32_t parity = 0;
  for (int group = walk.first; group < walk.groups; group += walk.step, ++group_number) {
    const int row_tile = group * P::kCluster + walk.rank;
#pragma unroll 1
    for (int c = 0; c < P::kTiles; ++c)
#pragma unroll 1
      for (int k = 0; k < kChunks; ++k) {
        if (P::kResident && c == 0) {
          shared.rows_free(k).wait((group_number & 1) ^ 1, args.report, kRowsFree);
          shared.rows_landed(k).arrive_expecting(kRowChunkBytes);
          copy_box(shared.rows + k * kRowChunkBytes, rows, k * kChunk, row_tile * kTileRows, shared.rows_landed(k));
        }
        // the next rows, to L2: when their slots are free they must come soon
        if (P::kResident && c == 2 && group + walk.step < walk.groups)
          prefetch_box(rows, k * kChunk, (row_tile + walk.step * P::kCluster) * kTileRows);
        const Barrier free = shared.slot_free(slot);
        free.wait(parity ^ 1, args.report, kSlotFree);
        const Barrier landed = shared.slot_landed(slot);
        landed.arrive_expecting(P::kSlotBytes);
        uint32_t to = shared.ring + slot * P::kSlotBytes;
        if constexpr (!P::kResident) {
          copy_box(to, rows, k * kChunk, row_tile * kTileRows, landed);
          to += kRowChunkBytes;
        }
        if constexpr (P::kCluster == 1)
          copy_box(to, classes, k * kChunk, c * P::kWidth, landed);
        else
          copy_box(to + uint32_t(walk.rank) * (P::kClassChunkBytes / P::kCluster), classes, k * kChunk,
                   c * P::kWidth + walk.rank * (P::kWidth / P::kCluster), landed, uint16_t((1 << P::kCluster) - 1));
        if (++slot == P::kRing) {
          slot = 0;
          parity ^= 1;
        }
      }
  }
  if (blockIdx.x == 0) args.report[4] = int((clock64() - start) >> 4);
}

}  // namespace pyfastcal::hopper
