// knn: the k nearest bank rows of every query.
//
// Two stages. A filter in fp32 or bf16: scores q.b - |b|^2/2 (larger is nearer) tile by tile in registers, each
// compared with the k-th best score that its query has so far, less a slack; almost everything is rejected there by one
// vector compare. Then the survivors' distances by direct differences in double. The slack is twice the proven bound of
// a score's error (knn_filter.h), so no true neighbour is lost, and near-duplicates, whose distance q.q + b.b - 2 q.b
// would lose to cancellation, are exact.
#pragma once
#include "knn_dense.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

struct Candidate {
  float score;
  int64_t index;
};

// The candidates of one query among the bank rows seen so far.
class Shortlist {
 public:
  void reset(int64_t k) {
    k_ = k;
    limit_ = 2 * k + 32;
    kth_ = -kInfinity;
    items.clear();
    items.reserve(limit_);
  }

  // Adds a candidate; true when the k-th best score was found anew.
  bool add(float score, int64_t index, float slack) {
    items.push_back({score, index});
    if (int64_t(items.size()) < limit_) return false;
    prune(slack);
    limit_ = max(limit_, 2 * int64_t(items.size()));  // many within the slack of each other: make room
    return true;
  }

  void prune(float slack) {
    if (int64_t(items.size()) <= k_) return;
    std::nth_element(items.begin(), items.begin() + (k_ - 1), items.end(),
                     [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    kth_ = items[k_ - 1].score;
    const float low = threshold(slack);
    items.erase(std::remove_if(items.begin() + k_, items.end(), [=](const Candidate& c) { return c.score < low; }),
                items.end());
  }

  float threshold(float slack) const { return kth_ - slack; }

  std::vector<Candidate> items;

 private:
  int64_t k_ = 0, limit_ = 0;
  float kth_ = -kInfinity;
};

template <class Filter>
class NearestNeighbours {
 public:
  explicit NearestNeighbours(const Search& search)
      : search_(search),
        queries_(search.queries),
        bank_(search.bank),
        scales_(search, search.wants_scales()),
        filter_(queries_, search.normalize) {}

  void run() {
    if (!queries_.rows) return;
    // A block of queries stays in L2 while the bank streams past; few queries: the bank is split among threads.
    const int64_t all = panels(queries_.rows), threads = thread_count();
    const int64_t share = max((all + 4 * threads - 1) / (4 * threads), 8), fit = min(queries_in_cache(), share);
    const int64_t blocks = (all + fit - 1) / fit;
    const int64_t wanted = (4 * threads + blocks - 1) / blocks, most = 1 + bank_.rows / (64 * search_.k + 2048);
    const int64_t splits = blocks >= 4 * threads ? 1 : min(wanted, most);
    scales_.prepare();
    std::vector<Scan> scans(blocks * splits);
    parallel_tasks(blocks * splits, [&](int64_t task) {
      const int64_t block = task / splits, split = task % splits;
      Scan& scan = scans[task];
      scan.first_panel = all * block / blocks;
      scan.last_panel = all * (block + 1) / blocks;
      run_scan(scan, bank_.rows * split / splits, bank_.rows * (split + 1) / splits);
      if (splits == 1) {
        for (int64_t q = scan.first_query(); q < last_query(scan); ++q) finish(q, &scan, 1);
        scan = Scan();
      }
    });
    if (splits > 1)
      parallel_tasks(queries_.rows, [&](int64_t q) {
        int64_t block = 0;
        while (q >= last_query(scans[block * splits])) ++block;
        finish(q, &scans[block * splits], splits);
      });
  }

 private:
  // Panels of them that stay in L2.
  int64_t queries_in_cache() const {
    return min(max(Filter::kQueryBytes / (Filter::kOperandBytes * kPanel * queries_.cols), 1), Filter::kQueryPanels);
  }

  // A block of queries against a part of the bank.
  struct Scan {
    int64_t first_panel = 0, last_panel = 0;
    std::vector<Shortlist> lists;      // per query
    std::vector<Candidate> odd;        // bank rows that fp32 scores cannot judge: candidates of every query
    double largest = 0, residual = 0;  // norm of a bank row and relative rounding error of one
    int64_t first_query() const { return first_panel * kPanel; }
  };
  int64_t last_query(const Scan& scan) const { return min(scan.last_panel * kPanel, queries_.rows); }

  bool judged_by_score(int64_t query) const { return filter_.facts[query].judged_by_score(search_.normalize); }
  float slack(int64_t query, double largest, double residual) const {
    return filter_slack(filter_.facts[query], largest, residual, search_.normalize, filter_.roundings());
  }

  void run_scan(Scan& scan, int64_t begin, int64_t end) const {
    constexpr int64_t kRows = Filter::Rows::kRows;
    const int64_t first = scan.first_query(), width = (scan.last_panel - scan.first_panel) * kPanel;
    typename Filter::Rows rows(bank_);
    Buffer<float> threshold(width), slacks(width);
    RowScores<Filter> facts;
    scan.lists.resize(width);
    for (int64_t j = 0; j < width; ++j) {
      const bool wanted = first + j < queries_.rows && judged_by_score(first + j);
      if (wanted) scan.lists[j].reset(search_.k);
      slacks[j] = 0;
      threshold[j] = wanted ? -kInfinity : kInfinity;
    }
    for (int64_t row0 = begin; row0 < end; row0 += kRows) {
      const int64_t n = min(kRows, end - row0);
      facts.load(rows, row0, n, search_.normalize);
      for (int64_t r = 0; r < n; ++r)
        if (facts.odd[r]) scan.odd.push_back({0, row0 + r});
      const double largest = facts.largest, residual = facts.residual;
      if (largest > scan.largest || residual > scan.residual) {
        scan.largest = std::fmax(scan.largest, largest), scan.residual = std::fmax(scan.residual, residual);
        for (int64_t j = 0; j < width; ++j) {
          if (threshold[j] == kInfinity) continue;
          slacks[j] = slack(first + j, scan.largest, scan.residual);
          threshold[j] = scan.lists[j].threshold(slacks[j]);
        }
      }
      for (int64_t p = scan.first_panel; p < scan.last_panel; ++p) {
        const int64_t j0 = (p - scan.first_panel) * kPanel;
        prefetch_rows(bank_, min(row0 + kRows + kRows * j0 / width, end),
                      min(row0 + kRows + kRows * (j0 + kPanel) / width, end));
        rows.multiply(n, filter_, p, [&](int64_t r0, auto& acc) {
          constexpr int64_t tile_rows = sizeof(acc) / sizeof(acc[0]);
          PYFASTCAL_UNROLL
          for (int64_t r = 0; r < tile_rows; ++r) {
            PYFASTCAL_UNROLL
            for (int64_t v = 0; v < kTileVecs; ++v) {
              const Vec score = fma(acc[r][v], set1(facts.factor[r0 + r]), set1(-facts.half[r0 + r]));
              const int64_t j = j0 + v * kLanes;
              if (const uint32_t hits = not_less(score, load(threshold + j)))
                collect(scan, score, hits, j, row0 + r0 + r, threshold, slacks);
            }
          }
        });
      }
    }
  }

  // The lanes of `score` that passed; lane 0 is the scan's query j.
  __attribute__((noinline)) void collect(Scan& scan, Vec score, uint32_t hits, int64_t j, int64_t row, float* threshold,
                                         const float* slacks) const {
    float s[kLanes];
    store(s, score);
    for (; hits; hits &= hits - 1) {
      const int64_t lane = __builtin_ctz(hits), query = j + lane;
      if (!(s[lane] > -kInfinity) || threshold[query] == kInfinity) continue;  // an odd row; a query not asked for
      if (search_.exclude_self && scan.first_query() + query == row) continue;
      if (scan.lists[query].add(s[lane], row, slacks[query]))
        threshold[query] = scan.lists[query].threshold(slacks[query]);
    }
  }

  // The exact k nearest of one query, from the shortlists of its n scans.
  void finish(int64_t q, const Scan* scans, int64_t n) const {
    const int64_t d = bank_.cols;
    Buffer<float> query_scratch(d), bank_scratch(d);
    const float* row = float_rows(queries_, q, 1, query_scratch).data;
    const double query_scale = search_.normalize ? inverse_norm(filter_.facts[q].norm) : 1.0;
    Buffer<double> query(whole_lanes(d));
    scale_into(row, d, query_scale, query);
    std::vector<Exact> found;
    const auto examine = [&, query = static_cast<const double*>(query)](int64_t row) {
      if (search_.exclude_self && row == q) return;
      const float* b = float_rows(bank_, row, 1, bank_scratch).data;
      found.push_back({{square_distance(b, scales_.of(row, b), query, d), row}});
    };
    if (judged_by_score(q)) {
      Shortlist all;
      all.reset(search_.k);
      double largest = 0, residual = 0;
      for (int64_t s = 0; s < n; ++s) {
        const std::vector<Candidate>& items = scans[s].lists[q - scans[s].first_query()].items;
        all.items.insert(all.items.end(), items.begin(), items.end());
        for (const Candidate& odd : scans[s].odd) examine(odd.index);
        largest = std::fmax(largest, scans[s].largest), residual = std::fmax(residual, scans[s].residual);
      }
      all.prune(slack(q, largest, residual));
      for (size_t i = 0; i < all.items.size(); ++i) {
        if (i + 2 < all.items.size()) prefetch_rows(bank_, all.items[i + 2].index, all.items[i + 2].index + 1);
        examine(all.items[i].index);
      }
    } else {
      for (int64_t row = 0; row < bank_.rows; ++row) examine(row);
    }
    write_nearest(found, search_.k, search_.distances + q * search_.k, search_.indices + q * search_.k);
  }

  const Search search_;
  const Matrix &queries_, &bank_;
  const BankScales scales_;
  const typename Filter::Queries filter_;
};

inline void knn(const Matrix& queries, const Matrix& bank, int64_t k, bool exclude_self, bool normalize,
                float* distances, int64_t* indices) {
  const Search search{queries, bank, k, exclude_self, normalize, distances, indices};
  with_filter(queries, bank, [&]<class Filter>(Filter*) {
    if (64 * k + 2048 >= bank.rows) return DenseNeighbours<Filter>(search).run();
    NearestNeighbours<Filter>(search).run();
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
