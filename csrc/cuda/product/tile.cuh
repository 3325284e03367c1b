// A tile of the product: of which operands, how these lie in shared memory, and which thread holds what of the result.
#pragma once
#include "../../common/host_device.h"
#include "../runtime/primitives.cuh"

namespace pyfastcal::cuda {

inline constexpr int kTileRows = 128, kTileCols = 256, kChunk = 64;
inline constexpr int kProductThreads = 256;           // 2 x 4 warps
inline constexpr int kWarpRows = 64, kWarpCols = 64;  // a warp's part of a tile
inline constexpr int kChunkRowBytes = 2 * kChunk;
inline constexpr int kRowSlotBytes = kTileRows * kChunkRowBytes, kColSlotBytes = kTileCols * kChunkRowBytes;

// Rows of 16-bit numbers that begin at multiples of 16 bytes, `stride` elements apart. Where fp32 was split (see
// operand.cuh), term t of a row lies t * term_stride elements further on.
template <class T>
struct Operand {
  const T* data;
  int64_t rows, stride, term_stride;
};

template <class T>
struct Product {
  Operand<T> a, b;
  int depth;  // columns; rows hold zeros from there to the next multiple of 8
  int pairs;  // of terms: 1 or kSplitPairs
  PYFASTCAL_HOST_DEVICE int chunks() const { return pairs * ((depth + kChunk - 1) / kChunk); }
};

// With terms high (0), middle (1), low (2) the pairs are high-low, low-high, middle-middle, high-middle, middle-high,
// high-high: the small products first, while the sum is small too. The others are below fp32's last bit.
inline constexpr int kSplitPairs = 6;
__device__ __forceinline__ int term_of_a(int pair, int pairs) { return 0x118 >> 2 * (kSplitPairs - pairs + pair) & 3; }
__device__ __forceinline__ int term_of_b(int pair, int pairs) { return 0x052 >> 2 * (kSplitPairs - pairs + pair) & 3; }

// Where a tile begins, and in which product.
template <class T>
struct Tile {
  const Product<T>* product;
  int64_t row, col;
};

// How shared memory is used: slots of the ring, and slots for chunks of a (as many as the ring's, or as a tile has).
struct Slots {
  int ring, rows;
  PYFASTCAL_HOST_DEVICE size_t bytes() const { return size_t(rows) * kRowSlotBytes + size_t(ring) * kColSlotBytes; }
};

// On the host: the slots for tiles of `chunks` chunks in `limit` bytes. `share_rows`: consecutive tiles mostly have the
// same rows. ring < 2: the device has too little shared memory.
inline Slots choose_slots(int chunks, bool share_rows, size_t limit) {
  for (int ring = 4; share_rows && ring >= 3; --ring)
    if (const Slots slots{ring, chunks}; chunks > ring && slots.bytes() <= limit) return slots;
  const int ring = int(min(limit / (kRowSlotBytes + kColSlotBytes), size_t(4)));
  return {ring, ring};
}

// The accumulators of a thread: [m][n][2 * half + e] is the element at row(m, half), column(n, e) of the tile.
using Accumulators = float[4][8][4];
struct Place {
  __device__ static int warp_row() { return int(threadIdx.x) / 128 * kWarpRows; }
  __device__ static int warp_col() { return int(threadIdx.x) / 32 % 4 * kWarpCols; }
  __device__ static int row(int m, int half) { return warp_row() + m * 16 + half * 8 + int(threadIdx.x) % 32 / 4; }
  __device__ static int col(int n, int e) { return warp_col() + n * 8 + int(threadIdx.x) % 4 * 2 + e; }
};

// f(row, column, value) for every element that this thread holds; row and column of the tile. Tails are the caller's.
template <class F>
__device__ __forceinline__ void for_each(const Accumulators& acc, const F& f) {
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) f(Place::row(m, half), Place::col(n, e), acc[m][n][2 * half + e]);
}

// The piece of 16 bytes that a thread looks after in a chunk's rows row() + 32 i.
struct Piece {
  __device__ static int row() { return int(threadIdx.x) / 8; }
  __device__ static int number() { return int(threadIdx.x) % 8; }
  __device__ static int offset() { return row() * kChunkRowBytes + (number() ^ row() % 8) * 16; }  // in a slot, i = 0
};

}  // namespace pyfastcal::cuda
