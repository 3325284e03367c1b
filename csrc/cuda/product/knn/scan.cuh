// knn, second: the filter. Scores come out of the product a tile at a time; those that reach their query's threshold
// are appended to its list in the workspace, and a list that fills up is pruned, by scores or, where they are too
// close, by exact distances.
#pragma once
#include "../../../common/topk.h"
#include "../distance.cuh"
#include "../gemm.cuh"
#include "search.cuh"
#include "select.cuh"

namespace pyfastcal::cuda::knn {

// A tile may add kTileCols to a list that was not to be pruned. The warp that prunes holds a list in registers.
inline constexpr int trigger_of(int kept) { return 2 * kept + 108; }
inline constexpr int capacity_of(int kept) { return trigger_of(kept) - 1 + kTileCols; }
inline constexpr int kHeldPerLane = 20, kMostCapacity = 32 * kHeldPerLane;
static_assert(capacity_of(kMostNeighbours + 1) <= kMostCapacity);

// What a block keeps in shared memory of its queries' lists, and the facts of a tile's bank rows.
struct Heads {
  float threshold[kTileRows];  // NaN: nothing passes
  int count[kTileRows];
  float fact[kTileCols];
  Candidate* lists;
  int query0, split;
  uint32_t lowest_key;
};

// The scores of one tile of queries against one part of the bank.
class Scan {
 public:
  __device__ Scan(const Search& s, Heads& heads) : s_(s), heads_(heads) {}

  __device__ void begin(int query0, int split) {
    const int row = int(threadIdx.x);
    if (row == 0) {
      heads_.lists = s_.lists + (split * s_.queries.rows + query0) * s_.capacity;
      heads_.query0 = query0;
      heads_.split = split;
    }
    if (row >= kTileRows) return;
    const bool judged = query0 + row < s_.queries.rows && s_.query_facts[query0 + row].state == State::kJudged;
    heads_.threshold[row] = judged ? -kInfinity : kNaN;
    heads_.count[row] = 0;
  }

  // A tile of scores: col0 is its first bank row.
  __device__ __forceinline__ void take(const Accumulators& acc, int col0) {
    const bool full = append_all(acc, col0);
    if (!__syncthreads_or(full)) return;
    bool crowded = false;
    for (int row = int(threadIdx.x) / 32; row < kTileRows; row += kProductThreads / 32)
      if (heads_.count[row] >= s_.trigger) crowded |= prune(row) > (s_.kept + s_.trigger) / 2;
    if (!__syncthreads_or(crowded)) return;
    for (int row = 0; row < kTileRows; ++row)
      if (heads_.count[row] > (s_.kept + s_.trigger) / 2) prune_exactly(row);
  }

  __device__ void write_counts() const {
    const int row = int(threadIdx.x);
    if (row < kTileRows && query(row) < s_.queries.rows)
      s_.counts[heads_.split * s_.queries.rows + query(row)] = heads_.count[row];
  }

 private:
  __device__ int64_t query(int row) const { return heads_.query0 + row; }
  __device__ Candidate* list(int row) const { return heads_.lists + row * s_.capacity; }

  // True where this thread saw a list reach the trigger.
  __device__ __forceinline__ bool append_all(const Accumulators& acc, int col0) {
    constexpr int kRowBlocks = std::extent_v<Accumulators, 0>, kColBlocks = std::extent_v<Accumulators, 1>;
    constexpr int kTogether = 4 / kRowBlocks;  // column blocks that make sixteen scores
    float threshold[kRowBlocks][2];
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) threshold[m][half] = heads_.threshold[Place::row(m, half)];
    int longest = 0;
#pragma unroll
    for (int n0 = 0; n0 < kColBlocks; n0 += kTogether) {
      float factor[kTogether][2], shift[kTogether][2];
#pragma unroll
      for (int i = 0; i < 2 * kTogether; ++i) {
        const float fact = heads_.fact[Place::col(n0 + i / 2, i % 2)];
        factor[i / 2][i % 2] = s_.normalize ? fact : 1;
        shift[i / 2][i % 2] = s_.normalize ? 0 : -fact;
      }
      bool any[2] = {};  // two, so that the comparisons are no chain of sixteen
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int n = i / 2 % kTogether, m = i / 2 / kTogether, half = i % 2;
        const auto score = [&](int e) { return __fmaf_rn(acc[m][n0 + n][2 * half + e], factor[n][e], shift[n][e]); };
        any[half] |= fmaxf(score(0), score(1)) >= threshold[m][half];
      }
      if (!(any[0] | any[1])) continue;
      // Rare: the scores are made again, by other operations of the same result (the factor is 1 or the shift 0), or
      // the compiler would keep them all in registers.
      Candidate* const lists = heads_.lists;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int n = i / 4 % kTogether, m = i / 4 / kTogether, half = i / 2 % 2, e = i % 2, row = Place::row(m, half);
        const float score = __fadd_rn(__fmul_rn(acc[m][n0 + n][2 * half + e], factor[n][e]), shift[n][e]);
        if (score >= threshold[m][half]) {
          const int at = atomicAdd(&heads_.count[row], 1);
          lists[row * s_.capacity + at] = {score, col0 + Place::col(n0 + n, e)};
          longest = max(longest, at + 1);
        }
      }
    }
    return longest >= s_.trigger;
  }

  // Cuts a list to what its scores cannot rule out and raises the threshold; by one warp. Gives what is left.
  __device__ int prune(int row) {
    const int lane = int(threadIdx.x) % 32, n = heads_.count[row];
    Candidate* const from = list(row);
    Candidate held[kHeldPerLane];
    uint32_t keys[kHeldPerLane];
#pragma unroll
    for (int i = 0; i < kHeldPerLane; ++i) {
      const bool exists = lane + 32 * i < n;
      held[i] = exists ? from[lane + 32 * i] : Candidate{};
      keys[i] = exists ? to_key(held[i].score) : 0;
    }
    const float kth = from_key(warp_kth_largest(keys, n, s_.kept));
    const float threshold = fmaxf(heads_.threshold[row], kth - slack(s_, s_.query_facts[query(row)]));
    int count = 0;
    __syncwarp();  // all that will be overwritten has been read
#pragma unroll
    for (int i = 0; i < kHeldPerLane; ++i) {
      const bool stays = keys[i] != 0 && held[i].score >= threshold;
      const uint32_t staying = __ballot_sync(kWholeWarp, stays);
      if (stays) from[count + __popc(staying & ((1u << lane) - 1))] = held[i];
      count += __popc(staying);
    }
    __syncwarp();
    if (lane == 0) {
      heads_.count[row] = count;
      heads_.threshold[row] = threshold;
    }
    return count;
  }

  // Cuts a list that scores cannot cut to the nearest by distance; by the block.
  __device__ void prune_exactly(int row) {
    constexpr int kEach = (kMostCapacity + kProductThreads - 1) / kProductThreads;
    const int n = heads_.count[row];
    const double scale = s_.query_facts[query(row)].scale;
    Candidate* const from = list(row);
    double* const squares = s_.squares + int64_t(blockIdx.x) * kMostCapacity;
    for (int i = int(threadIdx.x) / 32 * 2; i < n; i += kProductThreads / kRowLanes) {
      const int at = i + int(threadIdx.x) / kRowLanes % 2, b = from[min(at, n - 1)].index;
      const double square = square_distance(s_.queries, query(row), scale, s_.bank, b, s_.bank_scale[b]);
      if (at < n && RowLanes::rank() == 0) squares[at] = square;
    }
    if (threadIdx.x == 0) heads_.lowest_key = ~0u;
    __syncthreads();
    Candidate mine[kEach];
    int rank[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = int(threadIdx.x) + i * kProductThreads;
      rank[i] = s_.kept;
      if (at >= n) continue;
      mine[i] = from[at];
      rank[i] = 0;
      for (int j = 0; j < n; ++j) rank[i] += nearer({squares[j], from[j].index}, {squares[at], mine[i].index});
      if (rank[i] < s_.kept) atomicMin(&heads_.lowest_key, to_key(mine[i].score));
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (rank[i] < s_.kept) from[rank[i]] = mine[i];
    if (threadIdx.x == 0) {
      const float lowest = from_key(heads_.lowest_key) - slack(s_, s_.query_facts[query(row)]);
      heads_.threshold[row] = fmaxf(heads_.threshold[row], lowest);
      heads_.count[row] = s_.kept;
    }
    __syncthreads();
  }

  const Search& s_;
  Heads& heads_;
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

// Neighbouring blocks take different queries and the same part of the bank, which L2 then delivers to all.
template <class T>
__global__ void __launch_bounds__(kProductThreads, 1)
    scan(const __grid_constant__ Search s, const __grid_constant__ Product<T> product, Slots slots) {
  PYFASTCAL_SHARED(unsigned char, shared);
  Heads& heads = *reinterpret_cast<Heads*>(shared + slots.bytes());
  Scan scan(s, heads);
  const int row_tiles = int((s.queries.rows + kTileRows - 1) / kTileRows), split = int(blockIdx.x) / row_tiles;
  const int64_t col_tiles = (s.bank.rows + kTileCols - 1) / kTileCols;
  const int64_t begin = col_tiles * split / s.splits, end = col_tiles * (split + 1) / s.splits;
  const BankTiles<T> tiles{&product, int64_t(blockIdx.x) % row_tiles * kTileRows, begin * kTileCols, int(end - begin)};
  scan.begin(int(tiles.row), split);
  // the facts are padded to whole tiles; the next tile's are read while this one is multiplied
  float next_fact = s.fact[tiles.first_col + threadIdx.x];
  multiply_tiles<T>(tiles, slots, shared, [&](int i, const Accumulators& acc) {
    heads.fact[threadIdx.x] = next_fact;
    __syncthreads();
    if (i + 1 < tiles.n) next_fact = s.fact[tiles[i + 1].col + threadIdx.x];
    scan.take(acc, int(tiles[i].col));
  });
  __syncthreads();
  scan.write_counts();
}
static_assert(kProductThreads == kTileCols && kProductThreads >= kTileRows);

}  // namespace pyfastcal::cuda::knn
