// Sixteen partial sums in double of the numbers of a row, in one order in every variant.
#pragma once
#include <cstring>

#include "vec.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// The tree in which sixteen partial sums are added: each to the one half of them further, and so on. In registers where
// they are known: what a compiler makes of the loop waits for numbers that it has just stored.
#if defined(PYFASTCAL_AVX2) || defined(PYFASTCAL_AVX512)
inline double add_four(__m256d v) {
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}
#endif
#if defined(PYFASTCAL_AVX512)
inline double add_lanes(__m512d a, __m512d b) {
  const __m512d eight = _mm512_add_pd(a, b);
  return add_four(_mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd(eight, 1)));
}
inline double add_lanes(const double (&sum)[kLanes]) {
  return add_lanes(_mm512_loadu_pd(sum), _mm512_loadu_pd(sum + 8));
}
#elif defined(PYFASTCAL_AVX2)
inline double add_lanes(__m256d a, __m256d b, __m256d c, __m256d d) {
  return add_four(_mm256_add_pd(_mm256_add_pd(a, c), _mm256_add_pd(b, d)));
}
inline double add_lanes(const double (&sum)[kLanes]) {
  return add_lanes(_mm256_loadu_pd(sum), _mm256_loadu_pd(sum + 4), _mm256_loadu_pd(sum + 8), _mm256_loadu_pd(sum + 12));
}
#else
inline double add_lanes(double (&sum)[kLanes]) {
  for (int64_t half = kLanes / 2; half; half /= 2)
    for (int64_t j = 0; j < half; ++j) sum[j] += sum[j + half];
  return sum[0];
}
#endif

// The partial sums in registers, where a compiler would deal them out to registers of several widths.
struct LaneSums {
#if defined(PYFASTCAL_AVX512)
  __m512d v[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
  static __m512d wide(const float* a) { return _mm512_cvtps_pd(_mm256_loadu_ps(a)); }
  void add_products(const float* a, const float* b) {
    for (int h = 0; h < 2; ++h) v[h] = _mm512_fmadd_pd(wide(a + 8 * h), wide(b + 8 * h), v[h]);
  }
  void add_squares(const double* a, const double* b) {
    for (int h = 0; h < 2; ++h) add_square(h, _mm512_sub_pd(_mm512_loadu_pd(a + 8 * h), _mm512_loadu_pd(b + 8 * h)));
  }
  void add_squares(const float* a, double scale, const double* b) {
    const __m512d by = _mm512_set1_pd(scale);
    for (int h = 0; h < 2; ++h)
      add_square(h, _mm512_sub_pd(_mm512_mul_pd(wide(a + 8 * h), by), _mm512_loadu_pd(b + 8 * h)));
  }
  void add_square(int h, __m512d x) { v[h] = _mm512_fmadd_pd(x, x, v[h]); }
  void store(double* out) const {
    for (int h = 0; h < 2; ++h) _mm512_storeu_pd(out + 8 * h, v[h]);
  }
  double total() const { return add_lanes(v[0], v[1]); }
#elif defined(PYFASTCAL_AVX2)
  __m256d v[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
  static __m256d wide(const float* a) { return _mm256_cvtps_pd(_mm_loadu_ps(a)); }
  void add_products(const float* a, const float* b) {
    for (int h = 0; h < 4; ++h) v[h] = _mm256_fmadd_pd(wide(a + 4 * h), wide(b + 4 * h), v[h]);
  }
  void add_squares(const double* a, const double* b) {
    for (int h = 0; h < 4; ++h) add_square(h, _mm256_sub_pd(_mm256_loadu_pd(a + 4 * h), _mm256_loadu_pd(b + 4 * h)));
  }
  void add_squares(const float* a, double scale, const double* b) {
    const __m256d by = _mm256_set1_pd(scale);
    for (int h = 0; h < 4; ++h)
      add_square(h, _mm256_sub_pd(_mm256_mul_pd(wide(a + 4 * h), by), _mm256_loadu_pd(b + 4 * h)));
  }
  void add_square(int h, __m256d x) { v[h] = _mm256_fmadd_pd(x, x, v[h]); }
  void store(double* out) const {
    for (int h = 0; h < 4; ++h) _mm256_storeu_pd(out + 4 * h, v[h]);
  }
  double total() const { return add_lanes(v[0], v[1], v[2], v[3]); }
#else
  double v[kLanes] = {};
  void add_products(const float* a, const float* b) {
    for (int64_t j = 0; j < kLanes; ++j) v[j] = multiply_add(a[j], b[j], v[j]);
  }
  void add_squares(const double* a, const double* b) {
    for (int64_t j = 0; j < kLanes; ++j) v[j] = multiply_add(a[j] - b[j], a[j] - b[j], v[j]);
  }
  void add_squares(const float* a, double scale, const double* b) {
    for (int64_t j = 0; j < kLanes; ++j) v[j] = multiply_add(a[j] * scale - b[j], a[j] * scale - b[j], v[j]);
  }
  void store(double* out) const { std::memcpy(out, v, sizeof v); }
  double total() const {
    double sum[kLanes];
    store(sum);
    return add_lanes(sum);
  }
#endif
  // With `rest` terms more: add(lane, its sum).
  template <class F>
  double total(int64_t rest, const F& add) const {
    if (!rest) return total();
    double sum[kLanes];
    store(sum);
    for (int64_t l = 0; l < rest; ++l) sum[l] = add(l, sum[l]);
    return add_lanes(sum);
  }
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
