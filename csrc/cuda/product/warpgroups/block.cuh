// The block of the product by warpgroups: its threads, its shared memory, and which thread holds what of the result.
//
// Warpgroup 0 copies; 1 and 2 multiply, each 64 rows of a tile of 128 rows and 128 columns. Shared memory holds chunks
// of 64 columns, 128 rows each, as gemm.cuh's are laid out (piece ^ row % 8): the first eight of a tile's rows stay
// while the tiles share their rows (128 KiB); those of its columns, and of its rows beyond the eighth, go through a
// ring. L2 then delivers 16 KiB for 512 cycles of the tensor cores where a row has 512 columns, up to twice as much
// where it has more.
#pragma once
#include "../../runtime/warpgroup.cuh"
#include "../tile.cuh"

namespace pyfastcal::cuda::warpgroups {

inline constexpr int kThreads = 384, kCopyingThreads = 128, kMultiplyingWarps = 8;
inline constexpr int kCols = 128;                             // of a tile
inline constexpr int kBoxBytes = kTileRows * kChunkRowBytes;  // a chunk of a tile's rows, or of its columns
inline constexpr int kResident = 8, kRing = 6;
inline constexpr int kLeastDepth = (kResident - 1) * kChunk + 1;  // where a tile has fewer chunks: gemm.cuh
static_assert(kCols == kTileRows);

// Of a row.
struct Chunks {
  int count;
  __device__ explicit Chunks(int depth) : count((depth + kChunk - 1) / kChunk) {}
};

struct Barriers {
  prim::Barrier landed[kRing], free[kRing], rows_landed[kResident], rows_free[kResident];
};

class Shared {
  static constexpr int kBoxes = (kResident + kRing) * kBoxBytes, kFacts = kBoxes + int(sizeof(Barriers));
  static_assert(kFacts % 16 == 0);

 public:
  // Before what else the kernel keeps. Facts: what the epilogue must know of a tile's columns; of two tiles by turns.
  template <class Fact>
  static constexpr int kBytes = kFacts + 2 * kCols * int(sizeof(Fact));

  __device__ explicit Shared(unsigned char* base) : base_(base) {}
  __device__ unsigned char* rows(int chunk) const { return base_ + chunk * kBoxBytes; }
  __device__ unsigned char* slot(int i) const { return base_ + (kResident + i) * kBoxBytes; }
  __device__ Barriers& barriers() const { return *reinterpret_cast<Barriers*>(base_ + kBoxes); }
  template <class Fact>
  __device__ Fact* facts(int tile) const {
    return reinterpret_cast<Fact*>(base_ + kFacts) + tile % 2 * kCols;
  }

  // By one thread.
  __device__ void init() const {
    for (int i = 0; i < kRing; ++i) {
      prim::init(&barriers().landed[i], 1);
      prim::init(&barriers().free[i], kMultiplyingWarps);
    }
    for (int k = 0; k < kResident; ++k) {
      prim::init(&barriers().rows_landed[k], 1);
      prim::init(&barriers().rows_free[k], kMultiplyingWarps);
    }
  }

 private:
  unsigned char* const base_;
};

// The slots of the ring, one after the other, by everyone in the same order.
struct Turn {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kRing) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// A tile: a box of rows of each operand, by their maps; the facts of its columns, 16-byte aligned.
struct Tile {
  const prim::TensorMap *rows, *cols;
  int row, col;
  const void* facts;
};

// Describes to wgmma the rows of a chunk that begin at a multiple of 1024 bytes (or, 2 q more, their columns from 16 q
// on): 1024 bytes from 8 rows to the next 8 (64 x 16), pieces permuted by the row's number (1 at bit 62).
__device__ __forceinline__ uint64_t describe_at(uint32_t address) {
  return uint64_t(address >> 4 & 0x3fff) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}
__device__ __forceinline__ uint64_t describe(const unsigned char* chunk) {
  return describe_at(prim::shared_address(chunk));
}

// The accumulators of a thread: [0][n][2 * half + e] is the element at row(0, half), column(n, e) of the tile.
struct Place {
  static constexpr int kRowBlocks = 1, kColBlocks = 16;
  using Accumulators = float[kRowBlocks][kColBlocks][4];
  __device__ static int warp_row() { return (int(threadIdx.x) - kCopyingThreads) / 32 * 16; }
  __device__ static int warp_col() { return 0; }
  __device__ static int row(int, int half) { return warp_row() + half * 8 + int(threadIdx.x) % 32 / 4; }
  __device__ static int col(int n, int e) { return n * 8 + int(threadIdx.x) % 4 * 2 + e; }
};

}  // namespace pyfastcal::cuda::warpgroups
