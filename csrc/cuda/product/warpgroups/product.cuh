// The matrix product on Hopper's own instructions: rows of a times rows of b, both along their columns, by wgmma from
// what the copy engine brings to shared memory (block.cuh). The product is asynchronous: with two sets of accumulators
// a warpgroup looks at tile i in one while tile i + 1 is multiplied into the other.
//
// A warpgroup can have a chunk's four wgmma waiting at the tensor cores, not many more (an H200 takes four or five of
// each of two). So the epilogue is cut into kParts parts, one behind the wgmma of each resident chunk.
//
// Every element is one chain of wgmma over the columns, sixteen at a time, in an order that follows from the depth
// alone: its bits depend neither on the tile nor on the place in it.
#pragma once
#include <utility>

#include "block.cuh"

namespace pyfastcal::cuda::warpgroups {

inline constexpr int kStepsOfChunk = kChunk / 16, kParts = kResident;

// By one thread: copies the chunks of all tiles, in the order in which they are multiplied. Facts come with the last
// resident chunk: when its slot is free every warp is at this tile's products, and done with the facts of the tile
// before the last, which they overwrite.
template <class Tiles>
__device__ __forceinline__ void copy_tiles(const Tiles& tiles, const Shared& shared, const Chunks& chunks) {
  static_assert(kRing < kResident);
  Barriers& barriers = shared.barriers();
  Turn turn;
  uint32_t rows_parity = 1;
  const auto copy = [&](const prim::TensorMap* map, int row, int chunk, int more_bytes) {
    prim::wait(&barriers.free[turn.slot], turn.parity ^ 1);
    prim::arrive_expecting(&barriers.landed[turn.slot], kBoxBytes + more_bytes);
    prim::copy_box(shared.slot(turn.slot), map, row, chunk * kChunk, &barriers.landed[turn.slot]);
  };
#pragma unroll 1
  for (int i = 0; i < tiles.size(); ++i) {
    const Tile tile = tiles[i];
    const bool begins = tiles.begins_rows(i);
#pragma unroll 1
    for (int k = 0; k < kResident; ++k) {
      if (begins) {
        prim::wait(&barriers.rows_free[k], rows_parity);
        prim::arrive_expecting(&barriers.rows_landed[k], kBoxBytes);
        prim::copy_box(shared.rows(k), tile.rows, tile.row, k * kChunk, &barriers.rows_landed[k]);
      }
      using Fact = typename Tiles::Fact;
      constexpr int kFactBytes = kCols * int(sizeof(Fact));
      copy(tile.cols, tile.col, k, k + 1 == kResident ? kFactBytes : 0);
      if (k + 1 == kResident)
        prim::copy_bytes(shared.facts<Fact>(i), tile.facts, kFactBytes, &barriers.landed[turn.slot]);
      turn.next();
    }
#pragma unroll 1
    for (int j = kResident; j < chunks.count; ++j) {
      copy(tile.rows, tile.row, j, 0);
      turn.next();
      copy(tile.cols, tile.col, j, 0);
      turn.next();
    }
    rows_parity ^= begins;
  }
}

// A warp of the two warpgroups that multiply. Epilogue: begin(i), then part<p>(acc) for every p of [0, kParts), for
// every tile i of [0, tiles.size()), in order; the next tile's first products are under way.
template <class T, class Tiles, class Epilogue>
class Multiplier {
 public:
  using Accumulators = Place::Accumulators;

  __device__ __forceinline__ Multiplier(const Tiles& tiles, const Shared& shared, const Chunks& chunks,
                                        Epilogue& epilogue)
      : tiles_(tiles),
        shared_(shared),
        barriers_(shared.barriers()),
        chunks_(chunks),
        epilogue_(epilogue),
        group_(__shfl_sync(~0u, int(threadIdx.x) / 128 - 1, 0)) {}

  __device__ __forceinline__ void run() {
    const int n = tiles_.size();
    if (n == 0) return;
    Accumulators even = {}, odd = {};
    int i = 0;
    if (n % 2) multiply_tile<false>(odd, even, i++, false);
#pragma unroll 1
    for (; i < n; i += 2) {
      multiply_tile<true>(even, odd, i, i > 0);
      multiply_tile<true>(odd, even, i + 1, n > 0);
    }
    epilogue_.begin(n - 1);
    each_part(odd, std::make_integer_sequence<int, kParts>());
  }

 private:
  // Tile i into `now`, and the epilogue of the tile before, which is in `last`.
  template <bool kEpilogue>
  __device__ __forceinline__ void multiply_tile(Accumulators& now, Accumulators& last, int i, bool any) {
    const bool begins = tiles_.begins_rows(i), ends = tiles_.ends_rows(i);
    prim::pin(now);
    multiply_resident<kEpilogue>(now, last, i, begins, ends, any, std::make_integer_sequence<int, kResident>());
    __syncwarp();  // all lanes have read the facts of the tile before, ere one lets their successors in
    int behind = before(turn_.slot), slots = 1;  // what the last group of products reads
#pragma unroll 1
    for (int j = kResident; j < chunks_.count; ++j) {
      const int slot = behind, n = slots;
      behind = turn_.slot;
      slots = 2;
      const uint64_t a = of_group(wait_for_slot()), b = describe(wait_for_slot());
      multiply(now, a, b, true);
      prim::wait_products<1>();
      release(slot, n);
    }
    prim::wait_products<0>();
    prim::pin(now);
    release(behind, slots);
    if (ends) release_rows(kResident - 1);
    rows_parity_ ^= begins;
  }
  template <bool kEpilogue, int... kChunks>
  __device__ __forceinline__ void multiply_resident(Accumulators& now, Accumulators& last, int i, bool begins,
                                                    bool ends, bool any, std::integer_sequence<int, kChunks...>) {
    (multiply_chunk<kEpilogue, kChunks>(now, last, i, begins, ends, any), ...);
  }

  template <bool kEpilogue, int k>
  __device__ __forceinline__ void multiply_chunk(Accumulators& now, Accumulators& last, int i, bool begins, bool ends,
                                                 bool any) {
    if (begins) prim::wait(&barriers_.rows_landed[k], rows_parity_);
    const int slot = before(turn_.slot);
    const uint64_t a = of_group(shared_.rows(k)), b = describe(wait_for_slot());
    multiply(now, a, b, k > 0);
    if constexpr (kEpilogue)
      if (any) {
        if (k == 0) epilogue_.begin(i - 1);
        epilogue_.template part<k>(last);
      }
    if constexpr (k > 0) {
      prim::wait_products<1>();
      release(slot, 1);
      if (ends) release_rows(k - 1);
    }
  }
  template <int... kPart>
  __device__ __forceinline__ void each_part(Accumulators& acc, std::integer_sequence<int, kPart...>) {
    (epilogue_.template part<kPart>(acc), ...);
  }

  // The products of a chunk, as a group.
  __device__ __forceinline__ void multiply(Accumulators& now, uint64_t a, uint64_t b, bool add) {
    prim::begin_products();
#pragma unroll
    for (int q = 0; q < kStepsOfChunk; ++q) prim::multiply<T>(now, a + 2 * q, b + 2 * q, add || q > 0);
    prim::end_products();
  }

  __device__ __forceinline__ uint64_t of_group(const unsigned char* chunk) const {
    return describe(chunk + group_ * (64 * kChunkRowBytes));
  }
  __device__ __forceinline__ const unsigned char* wait_for_slot() {
    prim::wait(&barriers_.landed[turn_.slot], turn_.parity);
    const unsigned char* const slot = shared_.slot(turn_.slot);
    turn_.next();
    return slot;
  }

  // This warp has read `slots` slots from this one on, or the resident chunk k of a tile's rows, for the last time.
  __device__ __forceinline__ void release(int slot, int slots) const {
    if (threadIdx.x % 32) return;
    prim::arrive(&barriers_.free[slot]);
    if (slots > 1) prim::arrive(&barriers_.free[slot + 1 == kRing ? 0 : slot + 1]);
  }
  __device__ __forceinline__ void release_rows(int k) const {
    if (threadIdx.x % 32 == 0) prim::arrive(&barriers_.rows_free[k]);
  }
  __device__ static int before(int slot) { return slot == 0 ? kRing - 1 : slot - 1; }

  const Tiles& tiles_;
  const Shared& shared_;
  Barriers& barriers_;
  const Chunks& chunks_;
  Epilogue& epilogue_;
  const int group_;  // 0 or 1: which 64 rows
  Turn turn_;
  uint32_t rows_parity_ = 0;
};

// The whole block, behind the barrier that its barriers are published by: a thread copies, the other warps of its
// warpgroup do what there is `beside`, and those that multiply end with `finish`, of the epilogue that make() gave.
template <class T, class Tiles, class Beside, class Make, class Finish>
__device__ __forceinline__ void share_out(const Tiles& tiles, const Shared& shared, int depth, const Beside& beside,
                                          const Make& make, const Finish& finish) {
  const Chunks chunks(depth);
  if (threadIdx.x < kCopyingThreads) {
    prim::release_registers<40>();
    if (threadIdx.x == 0) copy_tiles(tiles, shared, chunks);
    if (threadIdx.x >= 32) beside();
  } else {
    prim::claim_registers<232>();  // all that the others leave of the 168 that a thread has at first
    auto epilogue = make();
    Multiplier<T, Tiles, decltype(epilogue)>(tiles, shared, chunks, epilogue).run();
    finish(epilogue);
  }
}
template <class T, class Tiles, class Make, class Finish>
__device__ __forceinline__ void share_out(const Tiles& tiles, const Shared& shared, int depth, const Make& make,
                                          const Finish& finish) {
  share_out<T>(tiles, shared, depth, [] {}, make, finish);
}

}  // namespace pyfastcal::cuda::warpgroups
