// The exact distances of knn, by direct differences in double, one by one or of several queries at a time, to the same
// bits; and the order of neighbours.
#pragma once
#include <algorithm>
#include <vector>

#include "../common/topk.h"
#include "rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

struct Exact : Neighbour {};  // of this namespace, as is every type that a std template is made with: see vec.h

// (b * scale - query)^2: exact 0 for equal rows, because b * scale is rounded as query was
inline double square_distance(const float* b, double scale, const double* query, int64_t n) {
  return accumulate_in_lanes(n, [=](int64_t i, double sum) {
    const double difference = b[i] * scale - query[i];
    return multiply_add(difference, difference, sum);
  });
}

// The 16 partial sums of accumulate_in_lanes, in registers.
struct Sums {
#if defined(PYFASTCAL_AVX512)
  __m512d v[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  void add_squares(const double* a, const double* b) {
    for (int h = 0; h < 2; ++h) {
      const __m512d difference = _mm512_sub_pd(_mm512_loadu_pd(a + 8 * h), _mm512_loadu_pd(b + 8 * h));
      v[h] = _mm512_fmadd_pd(difference, difference, v[h]);
    }
  }
  void store(double* out) const {
    for (int h = 0; h < 2; ++h) _mm512_storeu_pd(out + 8 * h, v[h]);
  }
  double total() const {
    const __m512d eight = _mm512_add_pd(v[0], v[1]);
    return add_four(_mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1)));
  }
#elif defined(PYFASTCAL_AVX2)
  __m256d v[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
  void add_squares(const double* a, const double* b) {
    for (int h = 0; h < 4; ++h) {
      const __m256d difference = _mm256_sub_pd(_mm256_loadu_pd(a + 4 * h), _mm256_loadu_pd(b + 4 * h));
      v[h] = _mm256_fmadd_pd(difference, difference, v[h]);
    }
  }
  void store(double* out) const {
    for (int h = 0; h < 4; ++h) _mm256_storeu_pd(out + 4 * h, v[h]);
  }
  double total() const { return add_four(_mm256_add_pd(_mm256_add_pd(v[0], v[2]), _mm256_add_pd(v[1], v[3]))); }
#else
  double v[kLanes] = {};
  void add_squares(const double* a, const double* b) {
    for (int64_t j = 0; j < kLanes; ++j) v[j] = multiply_add(a[j] - b[j], a[j] - b[j], v[j]);
  }
  void store(double* out) const { std::memcpy(out, v, sizeof v); }
  double total() const {
    double sum[kLanes];
    store(sum);
    return add_lanes(sum);
  }
#endif

#if defined(PYFASTCAL_AVX2) || defined(PYFASTCAL_AVX512)
  // The tree of add_lanes, from the fourth lane on.
  static double add_four(__m256d v) {
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
  }
#endif
};
// Queries that a bank row is compared with at a time.
#if defined(PYFASTCAL_AVX512)
inline constexpr int64_t kQueriesTogether = 8;  // 16 of 32 registers
#else
inline constexpr int64_t kQueriesTogether = 2;  // 8 of 16
#endif

// square_distance of `Queries` of them and a row that was scaled before.
template <int64_t Queries>
inline void square_distances(const double* row, const double* const* queries, int64_t n, double* out) {
  const double* q[Queries];
  Sums sums[Queries];
  PYFASTCAL_UNROLL
  for (int64_t j = 0; j < Queries; ++j) q[j] = queries[j];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < Queries; ++j) sums[j].add_squares(row + i, q[j] + i);
  }
  PYFASTCAL_UNROLL
  for (int64_t j = 0; j < Queries; ++j) {
    if (i == n) {
      out[j] = sums[j].total();
      continue;
    }
    double sum[kLanes];
    sums[j].store(sum);
    for (int64_t l = 0; i + l < n; ++l) {
      const double difference = row[i + l] - q[j][i + l];
      sum[l] = multiply_add(difference, difference, sum[l]);
    }
    out[j] = add_lanes(sum);
  }
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

// Row i of m in double, divided by its length with normalize.
inline void scaled_row(const Matrix& m, int64_t i, bool normalize, float* scratch, double* out) {
  const float* row = float_rows(m, i, 1, scratch).data;
  const double scale = normalize ? inverse_norm(norm(row, m.cols)) : 1.0;
  for (int64_t k = 0; k < m.cols; ++k) out[k] = row[k] * scale;
}

// Puts the k nearest first, in order. Many of them are dealt out first, into as many buckets as there are rows: few lie
// in one, unless some are far from all others, and an insertion or two put each in its place.
inline void sort_nearest(std::vector<Exact>& found, int64_t k) {
  const auto order = [](const Exact& a, const Exact& b) { return nearer(a, b); };
  const int64_t n = found.size();
  if (n < 64) {
    std::sort(found.begin(), found.end(), order);
    return;
  }
  if (8 * k < n) {
    std::partial_sort(found.begin(), found.begin() + k, found.end(), order);
    return;
  }
  double low = found[0].distance, high = low;
  for (const Exact& x : found) low = x.distance < low ? x.distance : low, high = x.distance > high ? x.distance : high;
  const double factor = double(n - 1) / (high - low);
  if (!(factor < double(kInfinity))) {  // all about equal
    std::sort(found.begin(), found.end(), order);
    return;
  }
  const auto bucket = [=](const Exact& x) { return min(int64_t((x.distance - low) * factor), n - 1); };
  std::vector<int64_t> begin(n + 2);  // of bucket b: begin[b + 1] while they are dealt out, begin[b] afterwards
  for (const Exact& x : found) ++begin[bucket(x) + 2];
  for (int64_t b = 2; b < n + 1; ++b) begin[b] += begin[b - 1];
  std::vector<Exact> dealt(n);
  for (const Exact& x : found) dealt[begin[bucket(x) + 1]++] = x;
  for (int64_t b = 0; b < n && begin[b] < k; ++b) {
    const int64_t first = begin[b], last = begin[b + 1];
    if (last - first > 16) {
      std::sort(dealt.begin() + first, dealt.begin() + last, order);
      continue;
    }
    for (int64_t i = first + 1; i < last; ++i) {
      const Exact x = dealt[i];
      int64_t at = i;
      for (; at > first && nearer(x, dealt[at - 1]); --at) dealt[at] = dealt[at - 1];
      dealt[at] = x;
    }
  }
  found.swap(dealt);
}

// The k nearest of those found are a query's neighbours; NaN where a distance was not finite.
inline void write_nearest(std::vector<Exact>& found, int64_t k, bool finite, float* distances, int64_t* indices) {
  if (finite) sort_nearest(found, k);
  for (int64_t i = 0; i < k; ++i) {
    distances[i] = finite ? float(std::sqrt(found[i].distance)) : kNaN;
    indices[i] = finite ? found[i].index : 0;
  }
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
