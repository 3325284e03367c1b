// bins: how many confidences fall in each bin, how many of those are correct, and the sum of the confidences.
#pragma once
#include <optional>

#include "../common/bins.h"
#include "bins_compared.h"
#include "rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// The bins as one multiplication, bin = trunc(x * scale), where there is a scale that puts every edge and the float
// next to it in the right bins: the product is monotone in x, so all between are right too. Equal-width bins mostly
// have one, an ulp or two from n_bins; edges of other kinds have not.
inline float find_scale(const Bins& bins) {
  float scale = float(bins.n_bins) * (1 - 0x1p-21f);
  for (int attempt = 0; attempt < 64; ++attempt, scale = std::nextafter(scale, kInfinity)) {
    bool exact = true;
    for (int64_t i = 1; i < bins.n_bins && exact; ++i) {
      const float edge = bins.edges[i];
      const float reached = bins.closed_right ? std::nextafter(edge, kInfinity) : edge;  // the first float of bin i
      exact = edge > 0.0f && edge < 1.0f && int64_t(reached * scale) == i &&
              int64_t(std::nextafter(reached, 0.0f) * scale) == i - 1;
    }
    if (exact) return scale;
  }
  return 0.0f;
}

// The bins by table, for any edges: [0, 1] is cut into cells so fine that each holds at most one interior edge. A cell
// knows how many edges lie before it and the one inside; non-negative floats compare as their bits do.
class BinCells {
 public:
  static constexpr int kCells = 2048;  // a power of two: x * kCells is exact

  explicit BinCells(const Bins& bins) {
    uint32_t edge_in[kCells + 1];
    for (uint32_t& edge : edge_in) edge = kNoEdge;
    for (int64_t i = 1; i < bins.n_bins; ++i) {
      const float edge = bins.edges[i];
      if (!(edge > 0.0f && edge <= 1.0f)) return;  // an edge that separates nothing, or everything: search instead
      uint32_t& cell = edge_in[int32_t(edge * kCells)];
      if (cell != kNoEdge) return;  // two edges in one cell: search instead
      cell = bits(edge) + (bins.closed_right ? 1 : 0);
    }
    uint64_t before = 0;
    for (int i = 0; i <= kCells; ++i) {
      cells_[i] = ((before + 1) << 32) - edge_in[i];
      before += edge_in[i] != kNoEdge;
    }
    exact = true;
  }

  static uint32_t bits(float x) {
    uint32_t out;
    std::memcpy(&out, &x, 4);
    return out;
  }
  // before + (x reaches the edge): the addition carries into the upper half just then
  int32_t find(float x, int32_t cell) const { return int32_t((cells_[cell] + bits(x)) >> 32); }

  bool exact = false;

 private:
  static constexpr uint32_t kNoEdge = 0xffffffffu;
  uint64_t cells_[kCells + 1];
};

// The bins of a block of samples, by multiplication where that is exact, else by table.
class Binning {
 public:
  explicit Binning(const Bins& bins) : scale_(find_scale(bins)), last_(float(bins.n_bins - 1)) {
    if (scale_ == 0.0f) cells_.emplace(bins);
  }
  bool exact() const { return !cells_ || cells_->exact; }

  void find(const float* x, int64_t n, int32_t* bin) const {
    const Vec factor = set1(cells_ ? float(BinCells::kCells) : scale_);
    const Vec last = set1(cells_ ? float(BinCells::kCells) : last_);
    for (int64_t i = 0; i < n; i += kLanes) store_truncated(bin + i, min(load(x + i) * factor, last));
    if (cells_)
      for (int64_t i = 0; i < n; ++i) bin[i] = cells_->find(x[i], bin[i]);
  }

 private:
  const float scale_, last_;
  std::optional<BinCells> cells_;
};

// A histogram whose entries hold count and sum in one word each, wrong and right predictions in entries apart, in a few
// copies that take turns, so that consecutive samples do not wait for each other; emptied into the totals before a
// field can overflow.
class PackedHistogram {
 public:
  static constexpr int kCopies = 4, kMostBins = 64;

  PackedHistogram(const Binning& binning, const Bins& bins) : binning_(binning), n_bins_(bins.n_bins) {}

  // n <= kBlock valid confidences; x is readable up to a multiple of kLanes
  void add(const float* x, const bool* correct, int64_t n) {
    alignas(64) int32_t entry[kBlock];
    alignas(64) uint64_t word[kBlock];
    binning_.find(x, n, entry);
    const uint8_t* right = reinterpret_cast<const uint8_t*>(correct);  // any byte; the loop vectorises
    for (int64_t i = 0; i < n; ++i) word[i] = uint64_t(fixed_point(x[i])) + kOne;
    for (int64_t i = 0; i < n; ++i) entry[i] += (right[i] != 0) * kMostBins;
    int64_t i = 0;
    for (; i + kCopies <= n; i += kCopies) {
      PYFASTCAL_UNROLL
      for (int j = 0; j < kCopies; ++j) copies_[j][entry[i + j]] += word[i + j];
    }
    for (; i < n; ++i) copies_[0][entry[i]] += word[i];
    pending_ += n;
    if (pending_ > kMostPending - kBlock) empty();
  }

  // Adds what was counted to totals, (3, n_bins).
  void flush(int64_t* totals) {
    empty();
    for (int64_t i = 0; i < 3 * n_bins_; ++i) totals[i] += totals_[i / n_bins_][i % n_bins_];
  }

 private:
  // 2^15 samples of at most 2^32 each fill 47 bits and a little: the count begins above
  static constexpr int kShift = 48;
  static constexpr uint64_t kOne = uint64_t(1) << kShift;
  static constexpr int64_t kMostPending = 1 << 15;

  void empty() {
    for (int64_t b = 0; b < n_bins_; ++b)
      for (auto& copy : copies_)
        for (int64_t right = 0; right < 2; ++right) {
          uint64_t& word = copy[b + right * kMostBins];
          totals_[0][b] += word >> kShift;
          totals_[1][b] += right * (word >> kShift);
          totals_[2][b] += word & (kOne - 1);
          word = 0;
        }
    pending_ = 0;
  }

  const Binning& binning_;
  const int64_t n_bins_;
  uint64_t copies_[kCopies][2 * kMostBins] = {};
  int64_t totals_[3][kMostBins] = {};
  int64_t pending_ = 0;
};

// Confidences as fp32 in [0, 1], an invalid one as 0 or 1. Returns how many were invalid.
template <class T>
inline int64_t clamp_block(const T* confidence, int64_t n, float* x) {
  int64_t invalid = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = min(kLanes, n - i);
    const Vec value = count < kLanes ? load_first(confidence + i, count, 0.0f) : load(confidence + i);
    const Vec clamped = min(max(value, set1(0.0f)), set1(kMostConfidence));  // -0 becomes 0, and NaN too, or stays
    invalid += __builtin_popcount(equal(value, clamped) ^ 0xffff);
    store(x + i, min(clamped, set1(1.0f)));
  }
  return invalid;
}

// Bins samples [begin, end) block by block; returns how many were invalid.
template <class T, class Histogram>
inline int64_t add_blocks(const T* confidence, const bool* correct, int64_t begin, int64_t end, Histogram histogram,
                          int64_t* totals) {
  alignas(64) float x[kBlock];
  int64_t invalid = 0;
  for (int64_t i = begin; i < end; i += kBlock) {
    const int64_t n = min(kBlock, end - i), of_block = clamp_block(confidence + i, n, x);
    if (of_block == 0) {
      histogram.add(x, correct + i, n);
      continue;
    }
    invalid += of_block;
    bool right[kBlock];
    int64_t valid = 0;
    for (int64_t j = 0; j < n; ++j) {
      x[valid] = x[j];
      right[valid] = reinterpret_cast<const uint8_t*>(correct)[i + j] != 0;
      valid += valid_confidence(to_float(confidence[i + j]));
    }
    histogram.add(x, right, valid);
  }
  histogram.flush(totals);
  return invalid;
}

template <class T>
inline double as_double(T x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return to_float(x);
}

template <class T>
inline void bin_values(const T* confidence, const bool* correct, const int64_t* group, int64_t n, const Bins& bins,
                       int64_t* out, int64_t* invalid_out) {
  const int64_t size = bins.n_bins * bins.n_groups;
  const auto* const right = reinterpret_cast<const uint8_t*>(correct);  // a boolean made from bytes may be any of them
  // For few samples a search costs less than preparing what avoids it.
  const bool may_pack = !std::is_same_v<T, double> && bins.n_groups == 1 && !group && n >= 512 &&
                        bins.n_bins <= PackedHistogram::kMostBins;
  const bool compared = may_pack && can_compare(bins.n_bins);
  std::optional<Binning> binning;
  if (may_pack && !compared) binning.emplace(bins);
  const bool packed = compared || (binning && binning->exact());
  const int64_t tasks = min((n + (1 << 16) - 1) >> 16, 8 * thread_count());
  parallel_tasks(tasks, [&](int64_t task) {
    const int64_t begin = n * task / tasks, end = n * (task + 1) / tasks;
    Buffer<int64_t> totals(3 * size);
    std::memset(totals, 0, sizeof(int64_t) * 3 * size);
    int64_t invalid = 0;
    if constexpr (!std::is_same_v<T, double>) {
      if (compared)
        with_compared_histogram(
            bins, [&](auto histogram) { invalid = add_blocks(confidence, correct, begin, end, histogram, totals); });
      else if (packed)
        invalid = add_blocks(confidence, correct, begin, end, PackedHistogram(*binning, bins), totals);
    }
    for (int64_t i = packed ? end : begin; i < end; ++i) {
      double x = as_double(confidence[i]);
      const int64_t g = group ? group[i] : 0;
      if (!valid_confidence(x) || g < 0 || g >= bins.n_groups) {
        ++invalid;
        continue;
      }
      x = at_most_one(x);
      const int64_t entry = g * bins.n_bins + find_bin(x, bins.edges, bins.n_bins, bins.closed_right);
      totals[entry] += 1;
      totals[size + entry] += right[i] != 0;
      totals[2 * size + entry] += fixed_point(x);
    }
    for (int64_t i = 0; i < 3 * size; ++i)
      if (totals[i]) __atomic_fetch_add(out + i, totals[i], __ATOMIC_RELAXED);
    if (invalid) __atomic_fetch_add(invalid_out, invalid, __ATOMIC_RELAXED);
  });
}

inline void bin_counts(const void* confidence, Dtype dtype, const bool* correct, const int64_t* group, int64_t n,
                       const Bins& bins, int64_t* totals, int64_t* invalid) {
  const auto run = [&](auto* data) { bin_values(data, correct, group, n, bins, totals, invalid); };
  if (dtype == Dtype::kDouble)
    run(static_cast<const double*>(confidence));
  else
    with_type({confidence, dtype, 1, n, n}, run);
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
