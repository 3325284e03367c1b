// The scores of knn's filter: what makes products scores, and how many are at least as large as one.
#pragma once
#include "knn_filter.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// What makes the products with a block of bank rows scores: score = product * factor - half. Rows that fp32 scores
// cannot judge get no better one than minus infinity.
template <class Filter>
struct RowScores {
  static constexpr int64_t kRows = Filter::Rows::kRows;
  float square[kRows], factor[kRows], half[kRows];
  bool odd[kRows];
  double largest = 0, residual = 0;  // norm of a row and relative rounding error of one

  void load(typename Filter::Rows& rows, int64_t row0, int64_t n, bool normalize) {
    residual = rows.load(row0, n, square);
    largest = 0;
    for (int64_t r = 0; r < n; ++r) {
      odd[r] = !(square[r] > smallest_square(normalize) && square[r] < kLargestSquare);
      factor[r] = odd[r] ? 0.0f : normalize ? 1.0f / std::sqrt(square[r]) : 1.0f;
      half[r] = odd[r] ? kInfinity : normalize ? 0.0f : 0.5f * square[r];
      if (!odd[r]) largest = std::fmax(largest, std::sqrt(double(square[r])));
    }
  }
};

// A lower bound of the k-th largest score of each of `count` queries in a panel of scores, kPanel to a row: the edge of
// the bucket in which it lies, again within that bucket where it holds many. Rows of minus infinity do not count.
inline void bound_kth(const float* scores, int64_t rows, int64_t count, int64_t k, double* bound) {
  constexpr int64_t kBuckets = 256, kRounds = 3;
  alignas(64) float low[kPanel], high[kPanel], factor[kPanel];
  alignas(64) int32_t at[kPanel];
  const Buffer<int32_t> buckets(kPanel * (kBuckets + 2));  // those below and those above have one too
  for (int64_t v = 0; v < kPanel; v += kLanes) {
    Vec lo = set1(kInfinity), hi = set1(-kInfinity);
    for (int64_t r = 0; r < rows; ++r) {
      if (scores[r * kPanel] == -kInfinity) continue;
      lo = min(lo, load(scores + r * kPanel + v));
      hi = max(hi, load(scores + r * kPanel + v));
    }
    store(low + v, lo);
    store(high + v, hi);
  }
  for (int64_t j = 0; j < count; ++j) bound[j] = k == 1 ? high[j] : low[j];
  if (k == 1) return;
  for (int64_t round = 0; round < kRounds; ++round) {
    for (int64_t j = 0; j < kPanel; ++j) {
      const float width = high[j] - low[j], x = kBuckets / width;
      factor[j] = width > 0 && x < kInfinity ? x : 0;
    }
    std::memset(buckets, 0, sizeof(int32_t) * kPanel * (kBuckets + 2));
    for (int64_t r = 0; r < rows; ++r) {
      const float* const score = scores + r * kPanel;
      if (*score == -kInfinity) continue;
      PYFASTCAL_UNROLL
      for (int64_t v = 0; v < kPanel; v += kLanes) {
        const Vec t = fma(load(score + v) - load(low + v), load(factor + v), set1(1.0f));
        store_truncated(at + v, max(min(t, set1(kBuckets + 1)), set1(0.0f)));  // in this order: NaN goes somewhere too
      }
      for (int64_t j = 0; j < count; ++j) ++buckets[j * (kBuckets + 2) + at[j]];
    }
    bool again = false;
    for (int64_t j = 0; j < count; ++j) {
      const int32_t* const bucket = buckets + j * (kBuckets + 2);
      int64_t b = kBuckets + 1, seen = bucket[b];
      while (seen < k && b > 0) seen += bucket[--b];
      if (b == 0 || factor[j] == 0) continue;  // fewer than k; all equal: the bound stands
      // Of a score in bucket b, low + (b - 1) / factor is a lower bound but for three roundings of something below 258.
      const double edge = double(low[j]) + (double(b) - 1.01) / double(factor[j]);
      bound[j] = std::fmax(bound[j], edge);
      if (b > kBuckets || bucket[b] <= k / 8 + 16) continue;
      const float next_low = float(edge), next_high = float(double(low[j]) + (double(b) + 0.01) / double(factor[j]));
      if (!(next_low > low[j] || next_high < high[j])) continue;
      low[j] = std::nextafter(next_low, -kInfinity), high[j] = next_high;
      again = true;
    }
    if (!again) return;
  }
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
