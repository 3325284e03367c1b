// knn, second: the filter. Scores come out of the product a tile at a time; those that reach their query's threshold
// are appended to its list (lists.cuh).
#pragma once
#include "../gemm.cuh"
#include "lists.cuh"

namespace pyfastcal::cuda::knn {

// What a block of scan keeps in shared memory.
struct ScanShared {
  Heads heads;
  float fact[kTileCols];  // of a tile's bank rows
};

// The tiles of one block: rows of queries, and whole tiles of the bank, one after the other.
template <class T>
struct BankTiles {
  const Product<T>* product;
  int64_t row, first_col;
  int n;
  __device__ int size() const { return n; }
  __device__ Tile<T> operator[](int i) const { return {product, row, first_col + int64_t(i) * kTileCols}; }
};

// A tile of scores, of the bank rows from col0 on.
__device__ __forceinline__ void take(const Lists<BlockTeam>& lists, const Accumulators& acc, const float* fact,
                                     int col0, int trigger) {
  int longest = 0;
#pragma unroll
  for (int n = 0; n < int(std::extent_v<Accumulators, 1>); ++n)
    longest = max(longest, lists.append<Place>(acc, n, col0, [&](int n, int e) { return fact[Place::col(n, e)]; }));
  if (!__syncthreads_or(longest >= trigger)) return;
  bool crowded = false;
  for (int row = int(threadIdx.x) / 32; row < kTileRows; row += kProductThreads / 32)
    if (lists.full(row)) crowded |= lists.crowded(lists.prune(row));
  if (!__syncthreads_or(crowded)) return;
  for (int row = 0; row < kTileRows; ++row)
    if (lists.is_crowded(row)) lists.prune_exactly(row);
}

// Neighbouring blocks take different queries and the same part of the bank, which L2 then delivers to all.
template <class T>
__global__ void __launch_bounds__(kProductThreads, 1)
    scan(const __grid_constant__ Search s, const __grid_constant__ Product<T> product, Slots slots) {
  PYFASTCAL_SHARED(unsigned char, base);
  ScanShared& shared = *reinterpret_cast<ScanShared*>(base + slots.bytes());
  const Lists<BlockTeam> lists(s, shared.heads);
  const int row_tiles = int((s.queries.rows + kTileRows - 1) / kTileRows), split = int(blockIdx.x) / row_tiles;
  const int64_t col_tiles = (s.bank.rows + kTileCols - 1) / kTileCols;
  const int64_t begin = col_tiles * split / s.splits, end = col_tiles * (split + 1) / s.splits;
  const BankTiles<T> tiles{&product, int64_t(blockIdx.x) % row_tiles * kTileRows, begin * kTileCols, int(end - begin)};
  lists.begin(int(tiles.row), split);
  // the facts are padded to whole tiles; the next tile's are read while this one is multiplied
  float next_fact = s.fact[tiles.first_col + threadIdx.x];
  multiply_tiles<T>(tiles, slots, base, [&](int i, const Accumulators& acc) {
    shared.fact[threadIdx.x] = next_fact;
    __syncthreads();
    if (i + 1 < tiles.n) next_fact = s.fact[tiles[i + 1].col + threadIdx.x];
    take(lists, acc, shared.fact, int(tiles[i].col), s.trigger);
  });
  __syncthreads();
  if (threadIdx.x < kTileRows) lists.write_count(int(threadIdx.x));
}
static_assert(kProductThreads == kTileCols && kProductThreads >= kTileRows);

}  // namespace pyfastcal::cuda::knn
