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
  DenseNeighbours(const Matrix& queries, const Matrix& bank, int64_t k, bool exclude_self, bool normalize,
                  float* distances, int64_t* indices)
      : queries_(queries),
        bank_(bank),
        k_(k),
        exclude_self_(exclude_self),
        normalize_(normalize),
        distances_(distances),
        indices_(indices),
        scales_kept_(normalize && queries.rows * k >= bank.rows),
        bank_scale_(scales_kept_ ? bank.rows : 0) {
    if (10 * k < 7 * bank.rows) filter_.emplace(queries, normalize);  // else all distances are measured
  }

  void run() {
    if (!queries_.rows) return;
    const int64_t m = bank_.rows, threads = thread_count(), all = panels(queries_.rows);
    if (scales_kept_)
      parallel_tasks((m * bank_.cols >> 18) + 1, [&](int64_t task) {
        const int64_t tasks = (m * bank_.cols >> 18) + 1;
        Buffer<float> scratch(bank_.cols);
        for (int64_t row = m * task / tasks; row < m * (task + 1) / tasks; ++row)
          bank_scale_[row] = scale_of(row, scratch);
      });
    const int64_t panel_bytes = 4 * kPanel * m, fit = max(min((1 << 25) / panel_bytes, 8), 1);
    const int64_t width = min(fit, max(all / threads, 1)), blocks = (all + width - 1) / width;
    const int64_t together = max(1, min(blocks, (1 << 28) / (panel_bytes * width)));
    // few blocks: the bank is split among threads
    // a bank row costs as much as sixteen products with it, or more; less than 2^21 of those are not worth another
    // thread
    const int64_t work = max(min(kPanel * width, queries_.rows), 16) * m * bank_.cols;
    const int64_t wanted = (4 * threads + together - 1) / together;
    const int64_t parts = threads == 1 || together >= 4 * threads ? 1 : max(1, min(wanted, min(work >> 21, m / 64)));
    if (parts == 1) {
      parallel_tasks(blocks, [&](int64_t i) {
        Block block(*this, i * width, min((i + 1) * width, all), 1);
        block.score(0, 0, m);
        for (int64_t p = 0; p < block.panels; ++p) block.choose(p);
        block.measure(0, 0, m);
        for (int64_t j = 0; j < block.count; ++j) block.write(j);
      });
      return;
    }
    for (int64_t first = 0; first < blocks; first += together) {
      const int64_t n = min(together, blocks - first);
      std::vector<std::optional<Block>> block(n);
      const auto for_each_part = [&](const auto& f) {
        parallel_tasks(n * parts, [&](int64_t task) {
          const int64_t part = task % parts;
          f(*block[task / parts], part, m * part / parts, m * (part + 1) / parts);
        });
      };
      parallel_tasks(n, [&](int64_t i) {
        block[i].emplace(*this, (first + i) * width, min((first + i + 1) * width, all), parts);
      });
      for_each_part([](Block& b, int64_t part, int64_t begin, int64_t end) { b.score(part, begin, end); });
      parallel_tasks(n * width, [&](int64_t task) {
        if (task % width < block[task / width]->panels) block[task / width]->choose(task % width);
      });
      for_each_part([](Block& b, int64_t part, int64_t begin, int64_t end) { b.measure(part, begin, end); });
      parallel_tasks(n * width * kPanel, [&](int64_t task) {
        Block& b = *block[task / (width * kPanel)];
        if (task % (width * kPanel) < b.count) b.write(task % (width * kPanel));
      });
    }
  }

 private:
  double scale_of(int64_t row, float* scratch) const {
    return inverse_norm(norm(float_rows(bank_, row, 1, scratch).data, bank_.cols));
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
          query_(count * all.bank_.cols),
          found_(parts * count),
          largest_(parts),
          residual_(parts) {
      Buffer<float> scratch(all.bank_.cols);
      for (int64_t j = 0; j < count; ++j)
        scaled_row(all.queries_, first + j, all.normalize_, scratch, query_ + j * all.bank_.cols);
    }

    void score(int64_t part, int64_t begin, int64_t end) {
      if (!all_.filter_) return;
      typename Filter::Rows rows(all_.bank_);
      RowScores<Filter> facts;
      largest_[part] = residual_[part] = 0;
      for (int64_t row0 = begin; row0 < end; row0 += RowScores<Filter>::kRows) {
        const int64_t n = min(RowScores<Filter>::kRows, end - row0);
        facts.load(rows, row0, n, all_.normalize_);
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
        bound_kth(scores(p), m, n, all_.k_ + all_.exclude_self_, bound);
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
      for (int64_t j = 0; j < n && all_.exclude_self_; ++j)
        if (query + j < m) wanted[query + j] &= ~(uint32_t(1) << j);
    }

    void measure(int64_t part, int64_t begin, int64_t end) {
      constexpr int64_t kRows = 32;
      const int64_t d = all_.bank_.cols, m = all_.bank_.rows;
      Buffer<float> scratch(d);
      Buffer<double> rows(kRows * d);
      std::vector<Exact>* const found = &found_[part * count];
      for (int64_t j = 0; j < count; ++j) found[j].reserve((all_.k_ + all_.k_ / 4) / parts_ + 16);
      for (int64_t row0 = begin; row0 < end; row0 += kRows) {
        const int64_t n = min(kRows, end - row0);
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
      bool finite = true;
      for (const Exact& x : found) finite &= x.distance < double(kInfinity);
      const int64_t k = all_.k_, at = (first + j) * k;
      write_nearest(found, k, finite, all_.distances_ + at, all_.indices_ + at);
      found = std::vector<Exact>();
    }

    const int64_t first, count, panels;  // queries and panels of them

   private:
    float* scores(int64_t p) const { return scores_ + p * kPanel * all_.bank_.rows; }

    float threshold_of(int64_t query, double bound, double largest, double residual) const {
      const FilterQuery& facts = all_.filter_->facts[query];
      if (!facts.judged_by_score(all_.normalize_)) return -kInfinity;
      const double slack = filter_slack(facts, largest, residual, all_.normalize_, all_.filter_->roundings());
      return std::nextafter(float(bound - slack), -kInfinity);
    }

    // The distances of a bank row to the queries j0 + those of the bits.
    void measure_row(const double* row, int64_t index, uint32_t bits, int64_t j0, std::vector<Exact>* found) const {
      const double* queries[kQueriesTogether];
      int64_t at[kQueriesTogether], n = 0;
      for (; bits; bits &= bits - 1, ++n) {
        at[n] = j0 + __builtin_ctz(bits);
        queries[n] = query_ + at[n] * all_.bank_.cols;
      }
      double square[kQueriesTogether];
      square_distances_of<kQueriesTogether>(row, queries, n, all_.bank_.cols, square);
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
    const double scale = !normalize_ ? 1.0 : scales_kept_ ? bank_scale_[row] : inverse_norm(norm(x, bank_.cols));
    for (int64_t i = 0; i < bank_.cols; ++i) out[i] = x[i] * scale;
  }

  const Matrix &queries_, &bank_;
  const int64_t k_;
  const bool exclude_self_, normalize_;
  float* const distances_;
  int64_t* const indices_;
  const bool scales_kept_;
  const Buffer<double> bank_scale_;
  std::optional<typename Filter::Queries> filter_;
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
