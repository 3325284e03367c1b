// The exact distances of knn, by direct differences in double, one by one or of several queries at a time, to the same
// bits; and the order of neighbours.
#pragma once
#include <algorithm>
#include <vector>

#include "../common/topk.h"
#include "rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// What is asked for.
struct Search {
  const Matrix &queries, &bank;
  const int64_t k;
  const bool exclude_self, normalize;
  float* const distances;
  int64_t* const indices;

  // Whether the bank's exact norms are worth having before they are needed, for as many survivors as bank rows.
  bool wants_scales() const { return normalize && queries.rows * k >= bank.rows; }
};

// What bank rows are multiplied by, found all at once or, not `kept`, each when it is asked for.
class BankScales {
 public:
  BankScales(const Search& search, bool kept)
      : bank_(search.bank), normalize_(search.normalize), kept_(kept), scale_(kept ? bank_.rows : 0) {}

  void prepare() const {
    if (!kept_) return;
    const int64_t m = bank_.rows, tasks = (m * bank_.cols >> 18) + 1;
    parallel_tasks(tasks, [&](int64_t task) {
      const Buffer<float> scratch(bank_.cols);
      for (int64_t row = m * task / tasks; row < m * (task + 1) / tasks; ++row)
        scale_[row] = inverse_norm(norm(float_rows(bank_, row, 1, scratch).data, bank_.cols));
    });
  }
  // x: the row's numbers
  double of(int64_t row, const float* x) const {
    return !normalize_ ? 1.0 : kept_ ? scale_[row] : inverse_norm(norm(x, bank_.cols));
  }

 private:
  const Matrix& bank_;
  const bool normalize_, kept_;
  const Buffer<double> scale_;
};

struct Exact : Neighbour {};  // of this namespace, as is every type that a std template is made with: see vec.h

// (b * scale - query)^2: exact 0 for equal rows, because b * scale is rounded as query was
inline double square_distance(const float* b, double scale, const double* query, int64_t n) {
  LaneSums sums;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums.add_squares(b + i, scale, query + i);
  return sums.total(n - i, [=](int64_t l, double sum) {
    const double difference = b[i + l] * scale - query[i + l];
    return multiply_add(difference, difference, sum);
  });
}

// Queries that a bank row is compared with at a time.
#if defined(PYFASTCAL_AVX512)
inline constexpr int64_t kQueriesTogether = 8;  // 16 of 32 registers
#else
inline constexpr int64_t kQueriesTogether = 2;  // 8 of 16
#endif

// square_distance of `Queries` of them and a row that was scaled before; n is a whole number of kLanes.
template <int64_t Queries>
inline void square_distances(const double* row, const double* const* queries, int64_t n, double* out) {
  const double* q[Queries];
  LaneSums sums[Queries];
  PYFASTCAL_UNROLL
  for (int64_t j = 0; j < Queries; ++j) q[j] = queries[j];
  for (int64_t i = 0; i < n; i += kLanes) {
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < Queries; ++j) sums[j].add_squares(row + i, q[j] + i);
  }
  PYFASTCAL_UNROLL
  for (int64_t j = 0; j < Queries; ++j) out[j] = sums[j].total();
}

// Of any number of them up to Most.
template <int64_t Most>
inline void square_distances_of(const double* row, const double* const* queries, int64_t count, int64_t n,
                                double* out) {
  if (count >= Most) {
    square_distances<Most>(row, queries, n, out);
    queries += Most, out += Most, count -= Most;
  }
  if constexpr (Most > 1)
    if (count) square_distances_of<Most / 2>(row, queries, count, n, out);
}

// A row in double times its scale, zeros up to whole_lanes: what is 0 in both rows adds nothing to a distance.
inline void scale_into(const float* row, int64_t n, double scale, double* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = row[i] * scale;
  for (int64_t i = n; i < whole_lanes(n); ++i) out[i] = 0;
}

// Puts the k nearest first, in order; false where a distance is not finite. Many of them are dealt out first, into as
// many buckets as there are rows: few lie in one, unless some are far from all others, and an insertion or two put each
// in its place.
inline bool sort_nearest(std::vector<Exact>& found, int64_t k) {
  const auto order = [](const Exact& a, const Exact& b) { return nearer(a, b); };
  const int64_t n = found.size();
  double low = found[0].distance, high = low;
  bool finite = true;
  for (const Exact& x : found) {
    finite &= x.distance < double(kInfinity);
    low = x.distance < low ? x.distance : low, high = x.distance > high ? x.distance : high;
  }
  if (!finite) return false;
  if (n < 64) {
    std::sort(found.begin(), found.end(), order);
    return true;
  }
  if (8 * k < n) {
    std::partial_sort(found.begin(), found.begin() + k, found.end(), order);
    return true;
  }
  const double factor = double(n - 1) / (high - low);
  if (!(factor < double(kInfinity))) {  // all about equal
    std::sort(found.begin(), found.end(), order);
    return true;
  }
  const auto bucket = [=](const Exact& x) { return min(int64_t((x.distance - low) * factor), n - 1); };
  std::vector<int64_t> begin(n + 2);  // of bucket b: begin[b + 1] while they are dealt out, begin[b] afterwards
  for (const Exact& x : found) ++begin[bucket(x) + 2];
  int64_t most = begin[n + 1];
  for (int64_t b = 2; b < n + 1; ++b) {
    most = max(most, begin[b]);
    begin[b] += begin[b - 1];
  }
  std::vector<Exact> dealt(n);
  for (const Exact& x : found) dealt[begin[bucket(x) + 1]++] = x;
  const auto insert = [&](int64_t first, int64_t last) {
    for (int64_t i = first + 1; i < last; ++i) {
      const Exact x = dealt[i];
      int64_t at = i;
      for (; at > first && nearer(x, dealt[at - 1]); --at) dealt[at] = dealt[at - 1];
      dealt[at] = x;
    }
  };
  if (most <= 16) {  // none passes the edge of its bucket: all buckets in one
    insert(0, begin[bucket(dealt[k - 1]) + 1]);
  } else {
    for (int64_t b = 0; b < n && begin[b] < k; ++b) {
      const int64_t first = begin[b], last = begin[b + 1];
      if (last - first > 16)
        std::sort(dealt.begin() + first, dealt.begin() + last, order);
      else
        insert(first, last);
    }
  }
  found.swap(dealt);
  return true;
}

// The k nearest of those found, at least as many, are a query's neighbours; NaN where a distance is not finite.
inline void write_nearest(std::vector<Exact>& found, int64_t k, float* distances, int64_t* indices) {
  const bool finite = sort_nearest(found, k);
  for (int64_t i = 0; i < k; ++i) {
    distances[i] = finite ? float(std::sqrt(found[i].distance)) : kNaN;
    indices[i] = finite ? found[i].index : 0;
  }
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
