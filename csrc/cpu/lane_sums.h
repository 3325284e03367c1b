// Sixteen partial sums in double of the numbers of a row, in one order in every variant. In registers, by name: a
// compiler deals what is a loop over an array out to registers of several widths, and waits for numbers that it has
// just stored.
#pragma once
#include <cstring>

#include "vec.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// A register of them, or one number.
#if defined(PYFASTCAL_AVX512)
using Doubles = __m512d;
inline Doubles load_doubles(const double* p) { return _mm512_loadu_pd(p); }
inline Doubles load_doubles(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
inline void store(double* p, Doubles a) { _mm512_storeu_pd(p, a); }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(PYFASTCAL_AVX2)
using Doubles = __m256d;
inline Doubles load_doubles(const double* p) { return _mm256_loadu_pd(p); }
inline Doubles load_doubles(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
inline void store(double* p, Doubles a) { _mm256_storeu_pd(p, a); }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
#else
using Doubles = double;
inline Doubles load_doubles(const double* p) { return *p; }
inline Doubles load_doubles(const float* p) { return *p; }
inline void store(double* p, Doubles a) { *p = a; }
#endif
inline constexpr int64_t kDoubles = sizeof(Doubles) / sizeof(double), kDoublesOfLanes = kLanes / kDoubles;

// The tree in which the sums are added: each to the one half of them further, and so on.
#if defined(PYFASTCAL_AVX512) || defined(PYFASTCAL_AVX2)
inline double add_lanes(const Doubles (&v)[kDoublesOfLanes]) {
#if defined(PYFASTCAL_AVX512)
  const __m512d eight = v[0] + v[1];
  const __m256d four = _mm512_castpd512_pd256(eight) + _mm512_extractf64x4_pd(eight, 1);
#else
  const __m256d four = (v[0] + v[2]) + (v[1] + v[3]);
#endif
  const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
  return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}
inline double add_lanes(const double (&sum)[kLanes]) {
  Doubles v[kDoublesOfLanes];
  for (int64_t h = 0; h < kDoublesOfLanes; ++h) v[h] = load_doubles(sum + h * kDoubles);
  return add_lanes(v);
}
#else
inline double add_lanes(const double (&sums)[kLanes]) {
  double sum[kLanes];
  std::memcpy(sum, sums, sizeof sum);
  for (int64_t half = kLanes / 2; half; half /= 2)
    for (int64_t j = 0; j < half; ++j) sum[j] += sum[j + half];
  return sum[0];
}
#endif

class LaneSums {
 public:
  void add_products(const float* a, const float* b) {
    each([=](int64_t at, Doubles sum) { return multiply_add(load_doubles(a + at), load_doubles(b + at), sum); });
  }
  void add_squares(const double* a, const double* b) {
    each([=](int64_t at, Doubles sum) { return add_square(load_doubles(a + at) - load_doubles(b + at), sum); });
  }
  void add_squares(const float* a, double scale, const double* b) {
    each([=](int64_t at, Doubles sum) { return add_square(load_doubles(a + at) * scale - load_doubles(b + at), sum); });
  }
  double total() const { return add_lanes(v_); }
  // With `rest` terms more: add(lane, its sum).
  template <class F>
  double total(int64_t rest, const F& add) const {
    if (!rest) return total();
    double sum[kLanes];
    for (int64_t h = 0; h < kDoublesOfLanes; ++h) store(sum + h * kDoubles, v_[h]);
    for (int64_t l = 0; l < rest; ++l) sum[l] = add(l, sum[l]);
    return add_lanes(sum);
  }

 private:
  static Doubles add_square(Doubles x, Doubles sum) { return multiply_add(x, x, sum); }
  // f(first lane of a register, its sums)
  template <class F>
  void each(const F& f) {
    PYFASTCAL_UNROLL
    for (int64_t h = 0; h < kDoublesOfLanes; ++h) v_[h] = f(h * kDoubles, v_[h]);
  }

  Doubles v_[kDoublesOfLanes] = {};
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
