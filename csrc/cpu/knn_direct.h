// knn without a filter: the distances of all bank rows, by direct differences in double, to the bit those that knn.h
// measures. For K near the size of the bank, where a filter could reject little.
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

// square_distance of `Queries` of them, `stride` apart, and a row that was scaled before.
template <int64_t Queries>
inline void square_distances(const double* row, const double* queries, int64_t stride, int64_t n, double* out) {
  Sums sums[Queries];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    PYFASTCAL_UNROLL
    for (int64_t q = 0; q < Queries; ++q) sums[q].add_squares(row + i, queries + q * stride + i);
  }
  PYFASTCAL_UNROLL
  for (int64_t q = 0; q < Queries; ++q) {
    if (i == n) {
      out[q] = sums[q].total();
      continue;
    }
    double sum[kLanes];
    sums[q].store(sum);
    for (int64_t j = 0; i + j < n; ++j) {
      const double difference = row[i + j] - queries[q * stride + i + j];
      sum[j] = multiply_add(difference, difference, sum[j]);
    }
    out[q] = add_lanes(sum);
  }
}

// Row i of m in double, divided by its length with normalize.
inline void scaled_row(const Matrix& m, int64_t i, bool normalize, float* scratch, double* out) {
  const float* row = float_rows(m, i, 1, scratch).data;
  const double scale = normalize ? inverse_norm(norm(row, m.cols)) : 1.0;
  for (int64_t k = 0; k < m.cols; ++k) out[k] = row[k] * scale;
}

// Puts the k nearest first, in order. Many of them are dealt out first, into as many buckets as there are rows, and
// only the buckets that reach k are sorted: few rows lie in one, unless some are far from all others.
inline void sort_nearest(std::vector<Exact>& found, int64_t k) {
  const auto order = [](const Exact& a, const Exact& b) { return nearer(a, b); };
  const int64_t n = found.size();
  if (k < 64) {
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
  const auto bucket = [=](const Exact& x) { return int64_t((x.distance - low) * factor); };
  std::vector<int64_t> begin(n + 2);  // of bucket b: begin[b + 1] while they are dealt out, begin[b] afterwards
  for (const Exact& x : found) ++begin[min(bucket(x), n - 1) + 2];
  for (int64_t b = 2; b < n + 1; ++b) begin[b] += begin[b - 1];
  std::vector<Exact> dealt(n);
  for (const Exact& x : found) dealt[begin[min(bucket(x), n - 1) + 1]++] = x;
  for (int64_t b = 0; b < n && begin[b] < k; ++b)
    if (begin[b + 1] - begin[b] > 1) std::sort(dealt.begin() + begin[b], dealt.begin() + begin[b + 1], order);
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

inline void knn_direct(const Matrix& queries, const Matrix& bank, int64_t k, bool exclude_self, bool normalize,
                       float* distances, int64_t* indices) {
  constexpr int64_t kQueries = 32, kRows = 64;
  const int64_t d = bank.cols, m = bank.rows, blocks = (m + kRows - 1) / kRows;
  const int64_t chunk = min(queries.rows, max((1 << 23) / m, kQueries));  // of queries: their squares take 64 MB or so
  Buffer<double> squares(chunk * m);
  for (int64_t first = 0; first < queries.rows; first += chunk) {
    const int64_t count = min(chunk, queries.rows - first), groups = (count + kQueries - 1) / kQueries;
    parallel_tasks(groups * blocks, [&](int64_t task) {
      const int64_t q0 = task / blocks * kQueries, n = min(kQueries, count - q0), row0 = task % blocks * kRows;
      Buffer<float> scratch(d);
      Buffer<double> query(n * d), rows(kRows * d);
      for (int64_t q = 0; q < n; ++q) scaled_row(queries, first + q0 + q, normalize, scratch, query + q * d);
      const int64_t count = min(kRows, m - row0);
      for (int64_t r = 0; r < count; ++r) scaled_row(bank, row0 + r, normalize, scratch, rows + r * d);
      // a few queries stay in L1 while the rows pass
      int64_t q = 0;
      for (; q + kQueriesTogether <= n; q += kQueriesTogether)
        for (int64_t r = 0; r < count; ++r) {
          double square[kQueriesTogether];
          square_distances<kQueriesTogether>(rows + r * d, query + q * d, d, d, square);
          for (int64_t j = 0; j < kQueriesTogether; ++j) squares[(q0 + q + j) * m + row0 + r] = square[j];
        }
      for (; q < n; ++q)
        for (int64_t r = 0; r < count; ++r)
          square_distances<1>(rows + r * d, query + q * d, d, d, squares + (q0 + q) * m + row0 + r);
    });
    parallel_tasks(count, [&](int64_t q) {
      std::vector<Exact> found;
      found.reserve(m);
      bool finite = true;
      for (int64_t r = 0; r < m; ++r) {
        if (exclude_self && r == first + q) continue;
        const double square = squares[q * m + r];
        finite &= square < double(kInfinity);
        found.push_back({{square, r}});
      }
      write_nearest(found, k, finite, distances + (first + q) * k, indices + (first + q) * k);
    });
  }
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
