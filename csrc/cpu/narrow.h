// Sixteen lanes rounded to a storage type as torch rounds: to nearest, ties to even.
#pragma once
#include "vec.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline uint32_t bits_of_float(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline void round_to(float x, BFloat16& out) {
  const uint32_t bits = bits_of_float(x), rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  out.bits = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

#if defined(PYFASTCAL_AVX512) || defined(PYFASTCAL_AVX2)
inline void round_to(float x, Half& out) { out.bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
#else
inline void round_to(float x, Half& out) {
  const uint32_t bits = bits_of_float(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u)
    half = 0x7e00u;  // NaN
  else if (magnitude >= 0x477ff000u)
    half = 0x7c00u;                  // infinity, from where it is nearer than the largest number
  else if (magnitude < 0x38800000u)  // a subnormal number: those and the numbers of [0.5, 1) lie as far apart
    half = bits_of_float(std::fabs(x) + 0.5f) - bits_of_float(0.5f);
  else
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
  out.bits = uint16_t(sign | half);
}
#endif

template <class T>
inline void store(T* p, Vec a) {
  float x[kLanes];
  store(static_cast<float*>(x), a);
  for (int64_t i = 0; i < kLanes; ++i) round_to(x[i], p[i]);
}
#if defined(PYFASTCAL_AVX512)
inline void store(Half* p, Vec a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT)); }
#elif defined(PYFASTCAL_AVX2)
inline void store(Half* p, Vec a) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
