// knn where many bank rows are neighbours: all scores of a block of queries are kept, the k-th best of each query is
// bounded by a histogram, and the exact distances of all that reach it, less the filter's slack, are measured row by
// row for the whole block, so that a bank row is scaled once for many queries. The distances are to the bit those that
// knn.h measures.
#pragma once
#include <optional>

#include "knn_direct.h"
#include "knn_scores.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

template <class Filter>
class DenseNeighbours {
 public:
  explicit DenseNeighbours(const Search& search)
      : search_(search),
        queries_(search.queries),
        bank_(search.bank),
        panels_(panels(queries_.rows)),
        width_(block_width()),
        blocks_((panels_ + width_ - 1) / width_),
        scales_(search, blocks_ > 1 && search.wants_scales()) {
    // Scores take as long as the distances of a few queries: where they spare no more all distances are measured, as
    // where they can spare but a few of each query.
    const int64_t m = bank_.rows, k = search.k;
    if (10 * k < 7 * m && queries_.rows * (m - k) > 3 * m) filter_.emplace(queries_, search.normalize);
  }

  void run() {
    if (!queries_.rows) return;
    const int64_t m = bank_.rows, threads = thread_count();
    scales_.prepare();
    const int64_t together = max(1, min(blocks_, (1 << 28) / (panel_bytes() * width_)));
    // Few blocks: threads share the bank. A bank row costs as much as sixteen products with it, or more; less than 2^21
    // products are not worth another thread.
    const int64_t work = max(min(kPanel * width_, queries_.rows), 16) * m * bank_.cols;
    const int64_t wanted = (4 * threads + together - 1) / together;
    const int64_t parts = threads == 1 || together >= 4 * threads ? 1 : max(1, min(wanted, min(work >> 21, m / 64)));
    if (parts == 1) {
      parallel_tasks(blocks_, [&](int64_t i) {
        Block block(*this, i * width_, min((i + 1) * width_, panels_), 1);
        block.score(0, 0, m);
        for (int64_t p = 0; p < block.panels; ++p) block.choose(p);
        block.measure(0, 0, m);
        for (int64_t j = 0; j < block.count; ++j) block.write(j);
      });
      return;
    }
    for (int64_t first = 0; first < blocks_; first += together) {
      const int64_t n = min(together, blocks_ - first), first_panel = first * width_;
      const int64_t last_panel = min((first + n) * width_, panels_);
      std::vector<std::optional<Block>> block(n);
      const auto for_each_part = [&](const auto& f) {
        parallel_tasks(n * parts, [&](int64_t task) {
          const int64_t part = task % parts;
          f(*block[task / parts], part, m * part / parts, m * (part + 1) / parts);
        });
      };
      parallel_tasks(n, [&](int64_t i) {
        block[i].emplace(*this, first_panel + i * width_, min(first_panel + (i + 1) * width_, last_panel), parts);
      });
      if (filter_) for_each_part([](Block& b, int64_t part, int64_t begin, int64_t end) { b.score(part, begin, end); });
      parallel_tasks(last_panel - first_panel, [&](int64_t task) { block[task / width_]->choose(task % width_); });
      for_each_part([](Block& b, int64_t part, int64_t begin, int64_t end) { b.measure(part, begin, end); });
      const int64_t most = width_ * kPanel;
      parallel_tasks(min(last_panel * kPanel, queries_.rows) - first_panel * kPanel,
                     [&](int64_t task) { block[task / most]->write(task % most); });
    }
  }

 private:
  int64_t panel_bytes() const { return 4 * kPanel * bank_.rows; }

  // Panels of a block: as many as 32 MiB hold the scores of, up to eight. Where there are many, so that there are four
  // blocks for each thread: no thread need wait for another then.
  int64_t block_width() const {
    const int64_t fit = max(min((1 << 25) / panel_bytes(), 8), 1), threads = thread_count();
    return max(min(fit, panels_ >= 16 * threads ? panels_ / (4 * threads) : panels_), 1);
  }

  // Some panels of queries against the bank, of which threads may take parts.
  class Block {
   public:
    Block(const DenseNeighbours& all, int64_t first_panel, int64_t last_panel, int64_t parts)
        : first(first_panel * kPanel),
          count(min(last_panel * kPanel, all.queries_.rows) - first),
          panels(last_panel - first_panel),
          all_(all),
          first_panel_(first_panel),
          parts_(parts),
          scores_(all.filter_ ? panels * kPanel * all.bank_.rows : 0),
          wanted_(panels * all.bank_.rows),
          query_(count * all.depth_),
          found_(parts * count),
          largest_(parts),
          residual_(parts) {
      Buffer<float> scratch(all.bank_.cols);
      for (int64_t j = 0; j < count; ++j) {
        const float* const x = float_rows(all.queries_, first + j, 1, scratch).data;
        const double scale = all.search_.normalize ? inverse_norm(norm(x, all.bank_.cols)) : 1.0;
        scale_into(x, all.bank_.cols, scale, query_ + j * all.depth_);
      }
    }

    void score(int64_t part, int64_t begin, int64_t end) {
      if (!all_.filter_) return;
      typename Filter::Rows rows(all_.bank_);
      RowScores<Filter> facts;
      largest_[part] = residual_[part] = 0;
      for (int64_t row0 = begin; row0 < end; row0 += RowScores<Filter>::kRows) {
        const int64_t n = min(RowScores<Filter>::kRows, end - row0);
        facts.load(rows, row0, n, all_.search_.normalize);
        largest_[part] = std::fmax(largest_[part], facts.largest);
        residual_[part] = std::fmax(residual_[part], facts.residual);
        for (int64_t p = 0; p < panels; ++p) {
          float* const out = scores(p) + row0 * kPanel;
          prefetch_rows(all_.bank_, min(row0 + n + n * p / panels, end), min(row0 + n + n * (p + 1) / panels, end));
          rows.multiply(n, *all_.filter_, first_panel_ + p, [&](int64_t r0, auto& acc) {
            constexpr int64_t tile_rows = sizeof(acc) / sizeof(acc[0]);
            PYFASTCAL_UNROLL
            for (int64_t r = 0; r < tile_rows; ++r) {
              PYFASTCAL_UNROLL
              for (int64_t v = 0; v < kTileVecs; ++v)
                store(out + (r0 + r) * kPanel + v * kLanes,
                      fma(acc[r][v], set1(facts.factor[r0 + r]), set1(-facts.half[r0 + r])));
            }
          });
          for (int64_t r = 0; r < n; ++r)
            if (facts.odd[r])
              for (int64_t j = 0; j < kPanel; ++j) out[r * kPanel + j] = -kInfinity;
        }
      }
    }

    // Whose distances are to be measured: a bit for each query of panel p.
    void choose(int64_t p) {
      const int64_t m = all_.bank_.rows, n = min(kPanel, count - p * kPanel), query = first + p * kPanel;
      const uint32_t everyone = uint32_t((uint64_t(1) << n) - 1);
      uint32_t* const wanted = wanted_ + p * m;
      if (all_.filter_) {
        double bound[kPanel], largest = 0, residual = 0;
        alignas(64) float threshold[kPanel];
        for (int64_t part = 0; part < parts_; ++part)
          largest = std::fmax(largest, largest_[part]), residual = std::fmax(residual, residual_[part]);
        // one more, for the query itself may be among them
        bound_kth(scores(p), m, n, all_.search_.k + all_.search_.exclude_self, bound);
        for (int64_t j = 0; j < kPanel; ++j)
          threshold[j] = j < n ? threshold_of(query + j, bound[j], largest, residual) : kInfinity;
        for (int64_t r = 0; r < m; ++r) {
          const float* const score = scores(p) + r * kPanel;
          uint32_t bits = *score == -kInfinity ? everyone : 0;
          PYFASTCAL_UNROLL
          for (int64_t v = 0; v < kPanel; v += kLanes) bits |= not_less(load(score + v), load(threshold + v)) << v;
          wanted[r] = bits;
        }
      } else {
        for (int64_t r = 0; r < m; ++r) wanted[r] = everyone;
      }
      for (int64_t j = 0; j < n && all_.search_.exclude_self; ++j)
        if (query + j < m) wanted[query + j] &= ~(uint32_t(1) << j);
    }

    void measure(int64_t part, int64_t begin, int64_t end) {
      // as many rows as may stay in L2 while the block's queries pass; few queries: in L1
      const int64_t most = count > kQueriesTogether ? 32 : 2, d = all_.depth_, m = all_.bank_.rows;
      Buffer<float> scratch(all_.bank_.cols);
      Buffer<double> rows(most * d);
      std::vector<Exact>* const found = &found_[part * count];
      for (int64_t j = 0; j < count; ++j) found[j].reserve((all_.search_.k + all_.search_.k / 4) / parts_ + 16);
      for (int64_t row0 = begin; row0 < end; row0 += most) {
        const int64_t n = min(most, end - row0);
        for (int64_t r = 0; r < n; ++r) {
          uint32_t any = 0;
          for (int64_t p = 0; p < panels; ++p) any |= wanted_[p * m + row0 + r];
          if (any) all_.scale_row(row0 + r, scratch, rows + r * d);
          prefetch_rows(all_.bank_, min(row0 + n + r, end), min(row0 + n + r + 1, end));
        }
        // a few queries stay in L1 while the rows pass
        for (int64_t j0 = 0; j0 < count; j0 += kQueriesTogether)
          for (int64_t r = 0; r < n; ++r) {
            constexpr uint32_t kMask = (1u << kQueriesTogether) - 1;
            const uint32_t bits = wanted_[j0 / kPanel * m + row0 + r] >> j0 % kPanel & kMask;
            if (bits) measure_row(rows + r * d, row0 + r, bits, j0, found);
          }
      }
    }

    void write(int64_t j) {
      std::vector<Exact>& found = found_[j];
      for (int64_t part = 1; part < parts_; ++part) {
        const std::vector<Exact>& more = found_[part * count + j];
        found.insert(found.end(), more.begin(), more.end());
      }
      const int64_t k = all_.search_.k, at = (first + j) * k;
      write_nearest(found, k, all_.search_.distances + at, all_.search_.indices + at);
      found = std::vector<Exact>();
    }

    const int64_t first, count, panels;  // queries and panels of them

   private:
    float* scores(int64_t p) const { return scores_ + p * kPanel * all_.bank_.rows; }

    float threshold_of(int64_t query, double bound, double largest, double residual) const {
      const FilterQuery& facts = all_.filter_->facts[query];
      if (!facts.judged_by_score(all_.search_.normalize)) return -kInfinity;
      const double slack = filter_slack(facts, largest, residual, all_.search_.normalize, all_.filter_->roundings());
      return std::nextafter(float(bound - slack), -kInfinity);
    }

    // The distances of a bank row to the queries j0 + those of the bits.
    void measure_row(const double* row, int64_t index, uint32_t bits, int64_t j0, std::vector<Exact>* found) const {
      const double* queries[kQueriesTogether];
      int64_t at[kQueriesTogether], n = 0;
      for (; bits; bits &= bits - 1, ++n) {
        at[n] = j0 + __builtin_ctz(bits);
        queries[n] = query_ + at[n] * all_.depth_;
      }
      double square[kQueriesTogether];
      square_distances_of<kQueriesTogether>(row, queries, n, all_.depth_, square);
      for (int64_t i = 0; i < n; ++i) found[at[i]].push_back({{square[i], index}});
    }

    const DenseNeighbours& all_;
    const int64_t first_panel_, parts_;
    const Buffer<float> scores_;
    const Buffer<uint32_t> wanted_;
    const Buffer<double> query_;
    std::vector<std::vector<Exact>> found_;  // of each part and query
    const Buffer<double> largest_, residual_;
  };

  void scale_row(int64_t row, float* scratch, double* out) const {
    const float* const x = float_rows(bank_, row, 1, scratch).data;
    scale_into(x, bank_.cols, scales_.of(row, x), out);
  }

  const Search search_;
  const Matrix &queries_, &bank_;
  const int64_t panels_, width_, blocks_, depth_ = whole_lanes(bank_.cols);  // depth_: columns of rows in double
  const BankScales scales_;
  std::optional<typename Filter::Queries> filter_;
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
