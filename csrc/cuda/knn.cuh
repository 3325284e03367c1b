// knn: the k nearest bank rows of every query, exact.
//
// prepare takes every row's norm and, where the product cannot read the rows in place, makes 16-bit copies. scan is the
// filter: scores from one 16-bit matrix product (larger is nearer), each compared in registers with a threshold of its
// query, the k-th best score so far less a slack. What passes is appended to a list of the query's in the workspace; a
// list that fills up is pruned. finish measures the survivors' distances by direct differences in double, as
// csrc/cpu/knn.h does, and sorts them by (distance, index). In which order a list was filled cannot show: it always
// holds its query's nearest among the rows seen, and only exact distances decide in the end.
//
// Scores. With x = b / |b| or, without normalize, x = b, the nearest rows have the largest q.x - h, where h is |x|^2 /
// 2 without normalize and 0 with it. The product runs on the rows themselves where they are 16-bit numbers of one type
// at 16-byte boundaries. Else it runs on copies: fp16, scaled by a power of two, with normalize; bf16, which has the
// range of fp32, without.
//
// Slack: twice the bound of a score's error, so that no true neighbour is lost. With u = 2^-24, L the length of the
// query's row in the product, X the largest |x|, r and R the query's and the bank's largest relative rounding error of
// a copy (measured; 0 in place), the bound is the sum of
//   - accumulation: a step of 16 products aligns them and the sum so far to the largest, truncates each to 24 bits and
//     adds (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021): 17 terms and
//     the result lose less than 2^-23 of the largest each, which is at most L X: 36 u ceil(D / 16) L X in all;
//   - the copies: (r + R + r R) L X;
//   - the roundings of factors, h and the last operations in fp32: 8 u (L X + X^2), X^2 without normalize only.
// A hundredth more covers the products of these small numbers.
//
// Rows that such scores cannot judge, being out of fp32's safe range or zero, are kept out of the filter: finish
// measures the distance of such a bank row to every query, and of such a query to every bank row.
#pragma once
#include "../common/topk.h"
#include "distance.cuh"
#include "launch.cuh"
#include "operand.cuh"
#include "select.cuh"
#include "workspace.cuh"

namespace pyfastcal::cuda {

inline constexpr int64_t kMostNeighbours = 128;  // above, ops.py takes the reference

namespace knn {

struct alignas(8) Candidate {
  float score;
  int index;
};

enum class State : int { kJudged, kOutOfRange, kNotFinite };

struct QueryFacts {
  double scale;
  float length, residual;  // L and r of the slack
  State state;
};

// Over the bank; zeros to begin with.
struct Totals {
  uint32_t largest, residual;             // bits of X and R
  int not_finite_last, not_finite_first;  // 1 + the last such row; M - the first
  int out_of_range;                       // how many
};

// What the kernels share. The queries, their facts and the outputs are of one chunk, which begins at first_query.
struct Search {
  Matrix queries, bank;
  int64_t first_query;
  bool exclude_self, normalize;
  int k, splits;                // parts of the bank; a query has a list for each
  int kept, trigger, capacity;  // of a list: how many pruning keeps; when it is pruned; its room
  QueryFacts* query_facts;
  double* bank_scale;
  float* fact;        // of bank rows: score = product * fact with normalize, product - fact without; NaN: none passes
  int* out_of_range;  // bank rows
  Totals* totals;
  int* counts;       // [split][query]
  Candidate* lists;  // [split][query][capacity]
  double* squares;   // [block of scan][kMostCapacity]
  float* distances;  // [query][k]
  int64_t* indices;
};

__device__ inline float slack(const Search& s, const QueryFacts& query) {
  constexpr float u = 0x1p-24f;
  const float X = __uint_as_float(s.totals->largest), R = __uint_as_float(s.totals->residual), r = query.residual;
  const float accumulation = 36 * u * float((s.queries.cols + 15) / 16);
  return 2.02f * (query.length * X * (accumulation + r + R + r * R + 8 * u) + (s.normalize ? 0 : X * X * (8 * u)));
}

// ---- prepare ----

inline constexpr int kPrepareThreads = 256, kPrepareRows = kPrepareThreads / kRowLanes;

// Rows of `width` 16-bit numbers, the last of them 0, for the product to read; data null: it reads the rows in place.
struct Copies {
  uint16_t* data;
  int64_t width;
};

struct RowFacts {
  double norm, scale, power;  // the row is multiplied by power in its copy, by scale for distances
  float residual;
  __device__ bool finite() const { return norm < double(kInfinity); }
};

// Sixteen lanes take one row's facts and, where copies are made, write the row's (if it is `wanted`).
__device__ inline RowFacts prepare_row(const Matrix& m, int64_t row, bool normalize, const Copies& copies,
                                       bool wanted) {
  RowFacts facts{row_norm(m, row), 1, 1, 0};
  if (normalize) facts.scale = inverse_norm(facts.norm);
  if (!copies.data) return facts;
  const bool usable = facts.finite() && facts.norm > 0;
  if (normalize && usable) facts.power = ldexp(1.0, 13 - ilogb(facts.norm));  // below 2^14: fp16 goes to 2^16
  uint16_t* const copy = copies.data + row * copies.width;
  double square = 0;
  for (int64_t first = RowLanes::rank(); first < copies.width; first += 4 * kRowLanes) {
    float x[4];
    read_columns(m, row, first, x);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float value = usable ? float(x[i] * facts.power) : 0;
      const __half half = __float2half_rn(value);
      const __nv_bfloat16 bfloat16 = __float2bfloat16_rn(value);
      const double error = double(value) - double(normalize ? to_float(half) : to_float(bfloat16));
      square = __fma_rn(error, error, square);
      if (wanted && first + i * kRowLanes < copies.width)
        copy[first + i * kRowLanes] = normalize ? __half_as_ushort(half) : __bfloat16_as_ushort(bfloat16);
    }
  }
  square = sum_of_lanes(square);
  if (usable) facts.residual = float(sqrt(square) / (facts.norm * facts.power) * (1 + 0x1p-20));
  return facts;
}

// Whether fp32 products with a row of this norm keep their precision, and the row is a unit vector with normalize.
__device__ inline bool in_range(double norm, const Copies& copies, bool normalize) {
  if (!normalize) return norm == 0 || (norm > 1e-15 && norm < 1e15);
  return norm > 1e-12 && (copies.data || norm < 1e15);
}

__global__ void __launch_bounds__(kPrepareThreads) prepare_queries(const __grid_constant__ Search s, Copies copies) {
  const int64_t row = int64_t(blockIdx.x) * kPrepareRows + threadIdx.x / kRowLanes;
  const bool wanted = row < s.queries.rows;  // the whole warp takes part, whoever has a row
  const RowFacts facts = prepare_row(s.queries, wanted ? row : 0, s.normalize, copies, wanted);
  if (!wanted || RowLanes::rank() != 0) return;
  const bool judged = in_range(facts.norm, copies, s.normalize);
  s.query_facts[row] = {facts.scale, float(facts.norm * facts.power), facts.residual,
                        !facts.finite() ? State::kNotFinite
                        : judged        ? State::kJudged
                                        : State::kOutOfRange};
}

// Blocks go over the bank in strides, so that few of them touch the totals.
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_bank(const __grid_constant__ Search s, Copies copies, int64_t padded_rows) {
  const int64_t n = s.bank.rows;
  float largest = 0, residual = 0;
  int last = 0, first = 0;
  for (int64_t row0 = int64_t(blockIdx.x) * kPrepareRows; row0 < padded_rows;
       row0 += int64_t(gridDim.x) * kPrepareRows) {
    const int64_t row = row0 + threadIdx.x / kRowLanes;
    const bool wanted = row < n;
    const RowFacts facts = prepare_row(s.bank, wanted ? row : 0, s.normalize, copies, wanted);
    float fact = kNaN;
    if (wanted && !facts.finite()) {
      last = max(last, int(row) + 1);
      first = max(first, int(n - row));
    } else if (wanted && in_range(facts.norm, copies, s.normalize)) {
      fact = s.normalize ? float(facts.scale / facts.power) : float(facts.norm * facts.norm / 2);
      largest = max(largest, float(facts.norm * facts.scale));
      residual = max(residual, facts.residual);
    } else if (wanted && RowLanes::rank() == 0) {
      s.out_of_range[atomicAdd(&s.totals->out_of_range, 1)] = int(row);
    }
    if (row >= padded_rows || RowLanes::rank() != 0) continue;
    s.fact[row] = fact;
    if (wanted) s.bank_scale[row] = facts.scale;
  }
  const uint32_t largest_bits = __reduce_max_sync(kWholeWarp, __float_as_uint(largest));
  const uint32_t residual_bits = __reduce_max_sync(kWholeWarp, __float_as_uint(residual));
  last = __reduce_max_sync(kWholeWarp, last);
  first = __reduce_max_sync(kWholeWarp, first);
  if (threadIdx.x % 32) return;
  atomicMax(&s.totals->largest, largest_bits);
  atomicMax(&s.totals->residual, residual_bits);
  atomicMax(&s.totals->not_finite_last, last);
  atomicMax(&s.totals->not_finite_first, first);
}

// ---- scan ----

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

// ---- finish ----

inline constexpr int kFinishThreads = 128, kFinishRoom = 4 * kFinishThreads;

// A block's candidates for the nearest rows of one query, settled whenever they fill the room.
class Finalists {
 public:
  struct Shared {
    double square[kFinishRoom];
    int index[kFinishRoom], n;
  };

  __device__ Finalists(const Search& s, int64_t query, double scale, Shared& shared)
      : s_(s), query_(query), scale_(scale), shared_(shared) {
    if (threadIdx.x == 0) shared_.n = 0;
    __syncthreads();
  }

  // By all threads, each with a bank row or none.
  __device__ void add(bool wanted, int64_t row) {
    wanted &= !(s_.exclude_self && row == s_.first_query + query_);
    if (wanted) shared_.index[atomicAdd(&shared_.n, 1)] = int(row);
    n_ += __syncthreads_count(wanted);
    if (n_ > kFinishRoom - kFinishThreads) settle();
  }

  // Leaves the k nearest, in order.
  __device__ void settle() {
    constexpr int kEach = kFinishRoom / kFinishThreads;
    for (int i = measured_ + int(threadIdx.x) / 32 * 2; i < n_; i += kFinishThreads / kRowLanes) {
      const int at = i + int(threadIdx.x) / kRowLanes % 2, row = shared_.index[min(at, n_ - 1)];
      const double square = square_distance(s_.queries, query_, scale_, s_.bank, row, s_.bank_scale[row]);
      if (at < n_ && RowLanes::rank() == 0) shared_.square[at] = square;
    }
    __syncthreads();
    Neighbour mine[kEach];
    int rank[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = int(threadIdx.x) + i * kFinishThreads;
      rank[i] = s_.k;
      if (at >= n_) continue;
      mine[i] = {shared_.square[at], shared_.index[at]};
      rank[i] = 0;
      for (int j = 0; j < n_; ++j) rank[i] += nearer({shared_.square[j], shared_.index[j]}, mine[i]);
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (rank[i] < s_.k) {
        shared_.square[rank[i]] = mine[i].distance;
        shared_.index[rank[i]] = int(mine[i].index);
      }
    n_ = measured_ = min(n_, s_.k);
    if (threadIdx.x == 0) shared_.n = n_;
    __syncthreads();
  }

 private:
  const Search& s_;
  const int64_t query_;
  const double scale_;
  Shared& shared_;
  int n_ = 0, measured_ = 0;
};

// Whether a bank row that is not finite is among those that the query is compared with.
__device__ inline bool spoilt(const Search& s, int64_t query) {
  const int64_t last = s.totals->not_finite_last - int64_t(1), first = s.bank.rows - s.totals->not_finite_first;
  return last >= 0 && !(s.exclude_self && first == last && last == s.first_query + query);
}

__global__ void __launch_bounds__(kFinishThreads) finish(const __grid_constant__ Search s) {
  PYFASTCAL_STATIC_SHARED(Finalists::Shared, shared);
  PYFASTCAL_STATIC_SHARED(int[32], reach);
  const int64_t query = blockIdx.x;
  const QueryFacts facts = s.query_facts[query];
  float* const distances = s.distances + query * s.k;
  int64_t* const indices = s.indices + query * s.k;
  if (facts.state == State::kNotFinite || spoilt(s, query)) {
    for (int i = int(threadIdx.x); i < s.k; i += kFinishThreads) {
      distances[i] = kNaN;
      indices[i] = 0;
    }
    return;
  }
  Finalists finalists(s, query, facts.scale, shared);
  if (facts.state == State::kJudged) {
    // a warp takes a list at a time
    constexpr int kWarps = kFinishThreads / 32;
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    const auto list = [&](int split) { return s.lists + (split * s.queries.rows + query) * s.capacity; };
    const auto count = [&](int split) { return split < s.splits ? s.counts[split * s.queries.rows + query] : 0; };
    const uint32_t kth = block_kth_largest(s.kept, reach, [&](const auto& visit) {
      for (int split = warp; split < s.splits; split += kWarps)
        for (int i = lane, n = count(split); i < n; i += 32) visit(to_key(list(split)[i].score));
    });
    const float low = from_key(kth) - slack(s, facts);
    for (int first = 0; first < s.splits; first += kWarps)
      for (int i = lane, split = first + warp, n = count(split); i - lane < s.trigger; i += 32) {
        const Candidate candidate = i < n ? list(split)[i] : Candidate{};
        finalists.add(i < n && candidate.score >= low, candidate.index);
      }
    for (int i = int(threadIdx.x); i - int(threadIdx.x) < s.totals->out_of_range; i += kFinishThreads) {
      const bool wanted = i < s.totals->out_of_range;
      finalists.add(wanted, wanted ? s.out_of_range[i] : -1);
    }
  } else {
    for (int64_t row = threadIdx.x; row - threadIdx.x < s.bank.rows; row += kFinishThreads)
      finalists.add(row < s.bank.rows, row);
  }
  finalists.settle();
  for (int i = int(threadIdx.x); i < s.k; i += kFinishThreads) {
    distances[i] = float(sqrt(shared.square[i]));
    indices[i] = shared.index[i];
  }
}

// ---- launch ----

struct Plan {
  bool copied;
  int64_t queries, bank, width, padded_bank, chunk;  // width: columns of a copy; chunk: queries at a time
  int k, kept, splits, multiprocessors;
  Slots slots;
  int64_t bytes;  // of the workspace
};

// Parts of the bank: as many as let the last block end soonest, a part costing a few tiles more to begin and to end.
inline int choose_splits(int64_t row_tiles, int64_t col_tiles, int64_t multiprocessors) {
  constexpr int64_t kTilesMore = 6;
  int64_t best = 1, least = INT64_MAX;
  for (int64_t splits = 1; splits <= min(col_tiles, 4 * multiprocessors); ++splits) {
    const int64_t waves = (row_tiles * splits + multiprocessors - 1) / multiprocessors;
    const int64_t time = waves * ((col_tiles + splits - 1) / splits + kTilesMore);
    if (time < least) least = time, best = splits;
  }
  return int(best);
}

struct Layout {
  Search search{};
  Copies queries{}, bank{};
  int64_t bytes;

  Layout(const Plan& plan, void* workspace) {
    Workspace w(workspace);
    Search& s = search;
    s.k = plan.k;
    s.kept = plan.kept;
    s.trigger = trigger_of(plan.kept);
    s.capacity = capacity_of(plan.kept);
    s.splits = plan.splits;
    s.totals = w.take<Totals>(1);
    s.bank_scale = w.take<double>(plan.bank);
    s.fact = w.take<float>(plan.padded_bank);
    s.out_of_range = w.take<int>(plan.bank);
    s.query_facts = w.take<QueryFacts>(plan.chunk);
    s.counts = w.take<int>(plan.chunk * plan.splits);
    s.lists = w.take<Candidate>(plan.chunk * plan.splits * s.capacity);
    s.squares = w.take<double>((plan.chunk + kTileRows - 1) / kTileRows * plan.splits * kMostCapacity);
    if (plan.copied) {
      queries = {w.take<uint16_t>(plan.chunk * plan.width), plan.width};
      bank = {w.take<uint16_t>(plan.bank * plan.width), plan.width};
    }
    bytes = w.bytes();
  }
};

inline Matrix rows_from(const Matrix& m, int64_t first, int64_t n) {
  const int64_t size = m.dtype == Dtype::kFloat ? 4 : 2;
  return {static_cast<const char*>(m.data) + first * m.stride * size, m.dtype, n, m.cols, m.stride};
}

template <class T>
Operand<T> operand(const Matrix& m, const Copies& copies) {
  if (copies.data) return {reinterpret_cast<const T*>(copies.data), m.rows, copies.width, 0};
  return {static_cast<const T*>(m.data), m.rows, m.stride, 0};
}

template <class T>
cudaError_t launch_scan(const Layout& layout, const Plan& plan, int64_t blocks, cudaStream_t stream) {
  const Search& s = layout.search;
  const Product<T> product{operand<T>(s.queries, layout.queries), operand<T>(s.bank, layout.bank), int(plan.width), 1};
  return PYFASTCAL_LAUNCH(scan<T>, unsigned(blocks), kProductThreads, plan.slots.bytes() + sizeof(Heads), stream, s,
                          product, plan.slots);
}

}  // namespace knn

// The workspace holds, in bytes: 16 per bank row and 4 more for the bank; per query 24 and, for each part of the bank,
// a list of 8 (2 K + 363); copies, where they are made, 2 D per row of both. Queries are taken in chunks whose lists
// fit in list_bytes.
inline cudaError_t plan_knn(const Matrix& queries, const Matrix& bank, int64_t k, bool exclude_self, knn::Plan& plan,
                            int64_t list_bytes = int64_t(1) << 29) {
  DeviceLimits device;
  if (const auto error = ask_device(&device)) return error;
  plan = {};
  plan.copied = must_split(queries, bank) || !readable_in_place(queries) || !readable_in_place(bank);
  plan.queries = queries.rows;
  plan.bank = bank.rows;
  plan.width = packed_width(bank);
  const int64_t col_tiles = (bank.rows + kTileCols - 1) / kTileCols;
  plan.padded_bank = col_tiles * kTileCols;
  plan.k = int(k);
  plan.kept = plan.k + exclude_self;
  plan.multiprocessors = device.multiprocessors;
  plan.splits = knn::choose_splits((queries.rows + kTileRows - 1) / kTileRows, col_tiles, plan.multiprocessors);
  const int64_t list = plan.splits * int64_t(sizeof(knn::Candidate)) * knn::capacity_of(plan.kept);
  plan.chunk = min(queries.rows, max(list_bytes / list / kTileRows, int64_t(1)) * kTileRows);
  plan.slots =
      choose_slots(int((bank.cols + kChunk - 1) / kChunk), true, size_t(device.shared_bytes) - sizeof(knn::Heads));
  plan.bytes = knn::Layout(plan, nullptr).bytes;
  return plan.slots.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
}

// queries.rows > 0, bank.rows < 2^31, k <= kMostNeighbours; workspace: plan.bytes.
inline cudaError_t launch_knn(const Matrix& queries, const Matrix& bank, bool exclude_self, bool normalize,
                              float* distances, int64_t* indices, const knn::Plan& plan, void* workspace,
                              cudaStream_t stream) {
  using namespace knn;
  Layout layout(plan, workspace);
  Search& s = layout.search;
  s.bank = bank;
  s.exclude_self = exclude_self;
  s.normalize = normalize;
  if (const auto error = cudaMemsetAsync(s.totals, 0, sizeof(Totals), stream)) return error;
  const int64_t blocks = min((plan.padded_bank + kPrepareRows - 1) / kPrepareRows, int64_t(16) * plan.multiprocessors);
  if (const auto error = PYFASTCAL_LAUNCH(prepare_bank, unsigned(blocks), kPrepareThreads, 0, stream, s, layout.bank,
                                          plan.padded_bank))
    return error;
  const bool as_half = plan.copied ? normalize : bank.dtype == Dtype::kHalf;
  for (s.first_query = 0; s.first_query < queries.rows; s.first_query += plan.chunk) {
    const int64_t n = min(plan.chunk, queries.rows - s.first_query), row_tiles = (n + kTileRows - 1) / kTileRows;
    s.queries = rows_from(queries, s.first_query, n);
    s.distances = distances + s.first_query * plan.k;
    s.indices = indices + s.first_query * plan.k;
    if (const auto error = PYFASTCAL_LAUNCH(prepare_queries, unsigned((n + kPrepareRows - 1) / kPrepareRows),
                                            kPrepareThreads, 0, stream, s, layout.queries))
      return error;
    if (const auto error = as_half ? launch_scan<__half>(layout, plan, row_tiles * plan.splits, stream)
                                   : launch_scan<__nv_bfloat16>(layout, plan, row_tiles * plan.splits, stream))
      return error;
    if (const auto error = PYFASTCAL_LAUNCH(finish, unsigned(n), kFinishThreads, 0, stream, s)) return error;
  }
  return cudaSuccess;
}

}  // namespace pyfastcal::cuda
