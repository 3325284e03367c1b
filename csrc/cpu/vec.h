// Sixteen fp32 lanes, the same in every variant: one AVX-512 register, two AVX2 registers or a plain array.
// Everything above this file is written once over Vec and compiled once per variant, inside the variant's own
// namespace, so that no function of one variant can be linked into another.
//
// Lane order and the order of every reduction are fixed, so AVX2 and AVX-512 give the same bits.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#if defined(PYFASTCAL_AVX2) || defined(PYFASTCAL_AVX512)
#include <immintrin.h>
#endif

#define PYFASTCAL_UNROLL _Pragma("GCC unroll 32")

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr int64_t kLanes = 16;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// a * b + c, in one rounding where the processor has it in one instruction.
inline double multiply_add(double a, double b, double c) {
#if defined(PYFASTCAL_AVX2) || defined(PYFASTCAL_AVX512)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Storage types: the 16 bits of torch.float16 and torch.bfloat16.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }

inline float to_float(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

inline float to_float(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  float out;
  if (magnitude >= 0x7c00u) {  // infinity or NaN
    const uint32_t bits = sign | 0x7f800000u | (magnitude & 0x3ffu) << 13;
    std::memcpy(&out, &bits, 4);
    return out;
  }
  const uint32_t bits = magnitude << 13;  // as an fp32 of exponent 2^-112 too small: exact for subnormals too
  std::memcpy(&out, &bits, 4);
  out *= 0x1p112f;
  return sign ? -out : out;
}

#if defined(PYFASTCAL_AVX512)

struct Vec {
  __m512 v;
};
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec load(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
inline Vec load(const BFloat16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline Vec set1(float x) { return {_mm512_set1_ps(x)}; }
// set1 that the compiler keeps in a register: as an operand in memory it would be loaded at every use
inline Vec constant(float x) {
  __m512 r = _mm512_set1_ps(x);
  asm("" : "+v"(r));
  return {r};
}
inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }  // b where either is NaN
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }  // b where either is NaN
inline Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
inline void store_truncated(int32_t* p, Vec a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a.v)); }
inline uint32_t equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
inline uint32_t not_less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ); }  // true for NaN
inline Vec low_bits_as_exponent(Vec n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(n.v), 23))};
}

#elif defined(PYFASTCAL_AVX2)

struct Vec {
  __m256 lo, hi;
};
inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Vec load(const Half* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
inline __m256 widen(__m128i bf16) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16)); }
inline Vec load(const BFloat16* p) {
  return {widen(_mm_loadu_si128((const __m128i*)p)), widen(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline Vec set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec constant(float x) {  // see above
  __m256 r = _mm256_set1_ps(x);
  asm("" : "+x"(r));
  return {r, r};
}
inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline Vec abs(Vec a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline void store_truncated(int32_t* p, Vec a) {
  _mm256_storeu_si256((__m256i*)p, _mm256_cvttps_epi32(a.lo));
  _mm256_storeu_si256((__m256i*)(p + 8), _mm256_cvttps_epi32(a.hi));
}
inline uint32_t equal(Vec a, Vec b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ)) |
         _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)) << 8;
}
inline uint32_t not_less(Vec a, Vec b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_NLT_UQ)) |
         _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_NLT_UQ)) << 8;
}
inline __m256 low_bits_as_exponent(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(n), 23));
}
inline Vec low_bits_as_exponent(Vec n) { return {low_bits_as_exponent(n.lo), low_bits_as_exponent(n.hi)}; }

#else  // scalar: plain loops, which the compiler may still vectorise for the baseline of its target

struct Vec {
  float v[kLanes];
};
template <class F>
inline Vec lanes(F f) {
  Vec out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = f(i);
  return out;
}
template <class T>
inline Vec load(const T* p) {
  return lanes([&](int i) { return to_float(p[i]); });
}
inline void store(float* p, Vec a) { std::memcpy(p, a.v, sizeof a.v); }
inline Vec set1(float x) {
  return lanes([&](int) { return x; });
}
inline Vec constant(float x) { return set1(x); }
inline Vec operator+(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] * b.v[i]; });
}
// The product is exact in double; only the last rounding can (very rarely) differ from a true fused one.
inline Vec fma(Vec a, Vec b, Vec c) {
  return lanes([&](int i) { return float(double(a.v[i]) * double(b.v[i]) + double(c.v[i])); });
}
inline Vec max(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec min(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec abs(Vec a) {
  return lanes([&](int i) { return std::fabs(a.v[i]); });
}
inline void store_truncated(int32_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) p[i] = int32_t(a.v[i]);
}
inline uint32_t equal(Vec a, Vec b) {
  uint32_t mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= uint32_t(a.v[i] == b.v[i]) << i;
  return mask;
}
inline uint32_t not_less(Vec a, Vec b) {
  uint32_t mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= uint32_t(!(a.v[i] < b.v[i])) << i;
  return mask;
}
inline Vec low_bits_as_exponent(Vec n) {
  return lanes([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &n.v[i], 4);
    bits <<= 23;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
  });
}

#endif

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
