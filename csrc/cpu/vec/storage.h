// What the lanes are loaded from.
#pragma once
#include <cstdint>
#include <cstring>

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr int64_t kLanes = 16;

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

#if defined(PYFASTCAL_AVX512) || defined(PYFASTCAL_AVX2)
inline float to_float(Half x) { return _cvtsh_ss(x.bits); }
#else
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
#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
