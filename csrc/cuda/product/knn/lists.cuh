// The lists of candidates that knn's filter keeps of its queries: what reaches a query's threshold is appended, in the
// workspace; a list that fills up is cut by scores or, where they are too close, by exact distances.
#pragma once
#include "../../../common/topk.h"
#include "../distance.cuh"
#include "../tile.cuh"
#include "search.cuh"
#include "select.cuh"

namespace pyfastcal::cuda::knn {

// A tile may add kTileCols to a list that was not to be cut. The warp that cuts holds a list in registers.
inline constexpr int trigger_of(int kept) { return 2 * kept + 108; }
inline constexpr int capacity_of(int kept) { return trigger_of(kept) - 1 + kTileCols; }
inline constexpr int kHeldPerLane = 20, kMostCapacity = 32 * kHeldPerLane;
static_assert(capacity_of(kMostNeighbours + 1) <= kMostCapacity);

// Where a team cuts a list by distance, in the workspace.
struct Scratch {
  double square[kMostCapacity];
  Candidate kept[kMostNeighbours + 8];
};

// What a block keeps in shared memory of its queries' lists.
struct Heads {
  float threshold[kTileRows];  // NaN: nothing passes
  int count[kTileRows];
  Candidate* lists;
  int query0, split;
  uint32_t lowest_key[8];  // for each team
};

// Who cuts lists together: the block, or each of its warps those of its own rows.
struct BlockTeam {
  static constexpr int kThreads = kProductThreads, kTeams = 1;
  __device__ static int number() { return 0; }
  __device__ static int rank() { return int(threadIdx.x); }
  __device__ static void sync() { __syncthreads(); }
};

template <class Team>
class Lists {
 public:
  __device__ Lists(const Search& s, Heads& heads) : s_(s), heads_(heads) {}

  // Before a barrier of the block.
  __device__ void begin(int query0, int split) const {
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

  // The scores of this thread in a tile's block n of columns. col0: the tile's first bank row; fact(n, e): of the row
  // in column(n, e). The longest list that was appended to, or 0.
  template <class Place, class Accumulators, class Fact>
  __device__ __forceinline__ int append(const Accumulators& acc, int n, int col0, const Fact& fact) const {
    constexpr int kRowBlocks = std::extent_v<Accumulators, 0>;
    float threshold[kRowBlocks][2], factor[2], shift[2];
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) threshold[m][half] = heads_.threshold[Place::row(m, half)];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float of_row = fact(n, e);
      factor[e] = s_.normalize ? of_row : 1;
      shift[e] = s_.normalize ? 0 : -of_row;
    }
    bool any[2] = {};  // two, so that the comparisons are no chain of all
#pragma unroll
    for (int i = 0; i < 2 * kRowBlocks; ++i) {
      const int m = i / 2, half = i % 2;
      const auto score = [&](int e) { return __fmaf_rn(acc[m][n][2 * half + e], factor[e], shift[e]); };
      any[half] |= fmaxf(score(0), score(1)) >= threshold[m][half];
    }
    if (!(any[0] | any[1])) return 0;
    // Rare: the scores are made again, by other operations of the same result (the factor is 1 or the shift 0), or
    // the compiler would keep them all in registers.
    Candidate* const lists = heads_.lists;
    int longest = 0;
#pragma unroll
    for (int i = 0; i < 4 * kRowBlocks; ++i) {
      const int m = i / 4, half = i / 2 % 2, e = i % 2, row = Place::row(m, half);
      const float score = __fadd_rn(__fmul_rn(acc[m][n][2 * half + e], factor[e]), shift[e]);
      if (score >= threshold[m][half]) {
        const int at = atomicAdd(&heads_.count[row], 1);
        lists[row * s_.capacity + at] = {score, col0 + Place::col(n, e)};
        longest = max(longest, at + 1);
      }
    }
    return longest;
  }

  __device__ bool full(int row) const { return heads_.count[row] >= s_.trigger; }
  // Whether so much is left of a list that was cut by scores that distances must cut it.
  __device__ bool crowded(int count) const { return count > (s_.kept + s_.trigger) / 2; }
  __device__ bool is_crowded(int row) const { return crowded(heads_.count[row]); }

  // Cuts a list to what its scores cannot rule out and raises the threshold; by one warp. Gives what is left.
  __device__ int prune(int row) const {
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

  // Cuts a list that scores cannot cut to the nearest by distance; by the team, of which someone just wrote its head.
  __device__ void prune_exactly(int row) const {
    const int n = heads_.count[row];
    const double scale = s_.query_facts[query(row)].scale;
    Candidate* const from = list(row);
    Scratch& scratch = s_.scratch[blockIdx.x * Team::kTeams + Team::number()];
    uint32_t& lowest_key = heads_.lowest_key[Team::number()];
    for (int i = Team::rank() / 32 * 2; i < n; i += Team::kThreads / kRowLanes) {
      const int at = i + int(threadIdx.x) / kRowLanes % 2, b = from[min(at, n - 1)].index;
      const double square = square_distance(s_.queries, query(row), scale, s_.bank, b, s_.bank_scale[b]);
      if (at < n && RowLanes::rank() == 0) scratch.square[at] = square;
    }
    if (Team::rank() == 0) lowest_key = ~0u;
    Team::sync();
    for (int at = Team::rank(); at < n; at += Team::kThreads) {
      const Candidate mine = from[at];
      const double square = scratch.square[at];
      int rank = 0;
      for (int j = 0; j < n; ++j) rank += nearer({scratch.square[j], from[j].index}, {square, mine.index});
      if (rank >= s_.kept) continue;
      scratch.kept[rank] = mine;
      atomicMin(&lowest_key, to_key(mine.score));
    }
    Team::sync();
    for (int i = Team::rank(); i < s_.kept; i += Team::kThreads) from[i] = scratch.kept[i];
    if (Team::rank() == 0) {
      const float lowest = from_key(lowest_key) - slack(s_, s_.query_facts[query(row)]);
      heads_.threshold[row] = fmaxf(heads_.threshold[row], lowest);
      heads_.count[row] = s_.kept;
    }
    Team::sync();
  }

  __device__ void write_count(int row) const {
    if (query(row) < s_.queries.rows) s_.counts[heads_.split * s_.queries.rows + query(row)] = heads_.count[row];
  }

 private:
  __device__ int64_t query(int row) const { return heads_.query0 + row; }
  __device__ Candidate* list(int row) const { return heads_.lists + row * s_.capacity; }

  const Search& s_;
  Heads& heads_;
};

}  // namespace pyfastcal::cuda::knn
