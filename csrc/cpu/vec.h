// Sixteen fp32 lanes, the same in every variant: one AVX-512 register, two of AVX2, four of NEON or a plain array.
// Everything above this file is written once over Vec and compiled once per variant, inside the variant's own
// namespace, so that no function of one variant can be linked into another.
//
// Lane order and the order of every reduction are fixed, so AVX2, AVX-512 and NEON give the same bits. max and min
// give b where b is NaN; where a alone is, NEON gives NaN and the others b.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#if defined(PYFASTCAL_AVX512)
#include "vec/avx512.h"
#elif defined(PYFASTCAL_AVX2)
#include "vec/avx2.h"
#elif defined(PYFASTCAL_NEON)
#include "vec/neon.h"
#else
#include "vec/scalar.h"
#endif

#define PYFASTCAL_UNROLL _Pragma("GCC unroll 32")

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t whole_lanes(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// a * b + c, in one rounding where the processor has it in one instruction.
inline double multiply_add(double a, double b, double c) {
#if defined(PYFASTCAL_AVX2) || defined(PYFASTCAL_AVX512) || defined(PYFASTCAL_NEON)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The first n lanes from p, the others `fill`.
template <class T>
inline Vec load_first(const T* p, int64_t n, float fill) {
  float buffer[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) buffer[i] = i < n ? to_float(p[i]) : fill;
  return load(buffer);
}

#if defined(PYFASTCAL_AVX512) && !defined(__SANITIZE_ADDRESS__)  // which does not see loads under a mask
inline __mmask16 first(int64_t n) { return __mmask16((1u << n) - 1); }
inline Vec load_first(const float* p, int64_t n, float fill) {
  return {_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p)};
}
inline Vec load_first(const BFloat16* p, int64_t n, float fill) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p));
  const __m512i fills = _mm512_castps_si512(_mm512_set1_ps(fill));
  return {_mm512_castsi512_ps(_mm512_mask_slli_epi32(fills, first(n), wide, 16))};
}
inline Vec load_first(const Half* p, int64_t n, float fill) {
  return {_mm512_mask_cvtph_ps(_mm512_set1_ps(fill), first(n), _mm256_maskz_loadu_epi16(first(n), p))};
}
inline Vec keep_first(Vec a, int64_t n) { return {_mm512_maskz_mov_ps(first(n), a.v)}; }
#else
inline Vec keep_first(Vec a, int64_t n) {
  float buffer[kLanes];
  store(buffer, a);
  return load_first(buffer, n, 0.0f);
}
#endif

// A fixed tree: lane i with i + 8, then 4, 2, 1. f of two arguments of as many lanes.
#if defined(PYFASTCAL_AVX512) || defined(PYFASTCAL_AVX2)
#if defined(PYFASTCAL_AVX512)
inline __m256 low(Vec a) { return _mm512_castps512_ps256(a.v); }
inline __m256 high(Vec a) { return _mm512_extractf32x8_ps(a.v, 1); }
#else
inline __m256 low(Vec a) { return a.lo; }
inline __m256 high(Vec a) { return a.hi; }
#endif
template <class Eight, class Four>
inline float reduce(Vec a, Eight eight, Four four) {
  const __m256 b = eight(low(a), high(a));
  __m128 c = four(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  c = four(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(four(c, _mm_shuffle_ps(c, c, 1)));
}
inline float reduce_add(Vec a) {
  return reduce(
      a, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); }, [](__m128 x, __m128 y) { return _mm_add_ps(x, y); });
}
inline float reduce_max(Vec a) {  // y where either is NaN, as in the loop below
  return reduce(
      a, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); }, [](__m128 x, __m128 y) { return _mm_max_ps(x, y); });
}
inline float reduce_min(Vec a) {
  return reduce(
      a, [](__m256 x, __m256 y) { return _mm256_min_ps(x, y); }, [](__m128 x, __m128 y) { return _mm_min_ps(x, y); });
}
#else
template <class F>
inline float reduce(Vec a, F f) {
  float b[kLanes];
  store(b, a);
  for (int64_t half = kLanes / 2; half; half /= 2)
    for (int64_t i = 0; i < half; ++i) b[i] = f(b[i], b[i + half]);
  return b[0];
}
inline float reduce_add(Vec a) {
  return reduce(a, [](float x, float y) { return x + y; });
}
inline float reduce_max(Vec a) {
  return reduce(a, [](float x, float y) { return x > y ? x : y; });
}
inline float reduce_min(Vec a) {
  return reduce(a, [](float x, float y) { return x < y ? x : y; });
}
#endif

// out[i] = reduce_add(a[i]), by the same tree; of eight at once without a shuffle for each.
template <int64_t N>
inline void reduce_add(const Vec (&a)[N], float* out) {
  int64_t i = 0;
#if defined(PYFASTCAL_AVX512) || defined(PYFASTCAL_AVX2)
  PYFASTCAL_UNROLL
  for (; i + 8 <= N; i += 8) {
    __m256 b[8], c[4], d[2];
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < 8; ++j) b[j] = _mm256_add_ps(low(a[i + j]), high(a[i + j]));
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < 4; ++j)
      c[j] = _mm256_add_ps(_mm256_permute2f128_ps(b[j], b[j + 4], 0x20), _mm256_permute2f128_ps(b[j], b[j + 4], 0x31));
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < 2; ++j)
      d[j] = _mm256_add_ps(_mm256_shuffle_ps(c[j], c[j + 2], 0x44), _mm256_shuffle_ps(c[j], c[j + 2], 0xee));
    const __m256 sums = _mm256_add_ps(_mm256_shuffle_ps(d[0], d[1], 0x88), _mm256_shuffle_ps(d[0], d[1], 0xdd));
    _mm256_storeu_ps(out + i, _mm256_permutevar8x32_ps(sums, _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7)));
  }
#endif
  for (; i < N; ++i) out[i] = reduce_add(a[i]);
}

// 2^t within 2 ulp for t in [-126, 126]; NaN where t is. Adding 1.5 * 2^23 + 127 rounds t to an integer and leaves it,
// biased as an exponent is, in the low mantissa bits; a minimax polynomial on [-1/2, 1/2] does the rest. An object, so
// that its constants are made once, before a loop, and stay in registers.
class Exp2 {
 public:
  // sum + 2^t: the last product is fused into the sum
  Vec add_to(Vec sum, Vec t) const {
    const Vec n = t + magic_, f = t - (n - magic_);
    Vec p = c_[0];
    PYFASTCAL_UNROLL
    for (int k = 1; k < 6; ++k) p = fma(p, f, c_[k]);
    return fma(p, low_bits_as_exponent(n), sum);
  }
  Vec operator()(Vec t) const { return add_to(set1(0.0f), t); }

 private:
  const Vec magic_ = constant(12582912.0f + 127.0f);
  const Vec c_[6] = {constant(1.32646528e-3f), constant(9.67151113e-3f), constant(5.55073395e-2f),
                     constant(2.40222424e-1f), constant(6.93147004e-1f), constant(1.0f)};
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
