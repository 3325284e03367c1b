// knn, last: of every query's candidates the k nearest, by exact distances.
#pragma once
#include "../../../common/topk.h"
#include "../distance.cuh"
#include "search.cuh"
#include "select.cuh"

namespace pyfastcal::cuda::knn {

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
  PYFASTCAL_STATIC_SHARED(Digits, digits);
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
    const uint32_t kth = block_kth_largest(s.kept, digits, [&](const auto& visit) {
      // a list's length is read a list ahead, and four of its scores at once
      int n = count(warp);
      for (int split = warp; split < s.splits; split += kWarps) {
        const int next = count(split + kWarps);
        const Candidate* const from = list(split);
        for (int i = lane; i < n; i += 4 * 32) {
          float score[4];
#pragma unroll
          for (int j = 0; j < 4; ++j) score[j] = i + 32 * j < n ? from[i + 32 * j].score : 0;
#pragma unroll
          for (int j = 0; j < 4; ++j) visit(i + 32 * j < n ? to_key(score[j]) : 0);
        }
        n = next;
      }
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

}  // namespace pyfastcal::cuda::knn
