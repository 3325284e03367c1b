// The sixteen lanes in four registers of NEON, which every 64-bit Arm processor has.
#pragma once
#include <arm_neon.h>

#include "storage.h"

// A Vec is too large for GCC's taste to be passed to functions that it may as well call.
#define PYFASTCAL_NEON_INLINE __attribute__((always_inline)) inline

namespace pyfastcal::PYFASTCAL_VARIANT {

struct Vec {
  float32x4_t v[4];
};

// `f`, an instruction, of each of the four registers.
template <auto f, class... Vecs>
PYFASTCAL_NEON_INLINE Vec each(Vecs... a) {
  return {f(a.v[0]...), f(a.v[1]...), f(a.v[2]...), f(a.v[3]...)};
}

PYFASTCAL_NEON_INLINE Vec load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
PYFASTCAL_NEON_INLINE float32x4_t load4(const Half* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
}
PYFASTCAL_NEON_INLINE float32x4_t load4(const BFloat16* p) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(&p->bits)), 16));
}
template <class T>
PYFASTCAL_NEON_INLINE Vec load(const T* p) {
  return {load4(p), load4(p + 4), load4(p + 8), load4(p + 12)};
}
PYFASTCAL_NEON_INLINE void store(float* p, Vec a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
PYFASTCAL_NEON_INLINE Vec set1(float x) {
  const float32x4_t r = vdupq_n_f32(x);
  return {r, r, r, r};
}
PYFASTCAL_NEON_INLINE Vec constant(float x) {  // set1 that the compiler keeps in a register
  float32x4_t r = vdupq_n_f32(x);
  asm("" : "+w"(r));
  return {r, r, r, r};
}
PYFASTCAL_NEON_INLINE Vec operator+(Vec a, Vec b) { return each<vaddq_f32>(a, b); }
PYFASTCAL_NEON_INLINE Vec operator-(Vec a, Vec b) { return each<vsubq_f32>(a, b); }
PYFASTCAL_NEON_INLINE Vec operator*(Vec a, Vec b) { return each<vmulq_f32>(a, b); }
PYFASTCAL_NEON_INLINE Vec fma(Vec a, Vec b, Vec c) { return each<vfmaq_f32>(c, a, b); }
PYFASTCAL_NEON_INLINE Vec max(Vec a, Vec b) { return each<vmaxq_f32>(a, b); }  // NaN where either is
PYFASTCAL_NEON_INLINE Vec min(Vec a, Vec b) { return each<vminq_f32>(a, b); }  // NaN where either is
PYFASTCAL_NEON_INLINE Vec abs(Vec a) { return each<vabsq_f32>(a); }
PYFASTCAL_NEON_INLINE void store_truncated(int32_t* p, Vec a) {
  for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, vcvtq_s32_f32(a.v[i]));
}

// compare(a, b) as a bit per lane: the lanes, all ones or zeros, are narrowed to a byte each, of which the lane's own
// bit is kept; the bits are added up.
template <auto compare>
PYFASTCAL_NEON_INLINE uint32_t mask(Vec a, Vec b) {
  static constexpr uint8_t kBit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint16x8_t lanes[4];
  for (int i = 0; i < 4; ++i) lanes[i] = vreinterpretq_u16_u32(compare(a.v[i], b.v[i]));
  const uint16x8_t lo = vuzp1q_u16(lanes[0], lanes[1]), hi = vuzp1q_u16(lanes[2], lanes[3]);
  uint8x16_t bits = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(lo), vreinterpretq_u8_u16(hi)), vld1q_u8(kBit));
  for (int i = 0; i < 3; ++i) bits = vpaddq_u8(bits, bits);
  return vgetq_lane_u16(vreinterpretq_u16_u8(bits), 0);
}
PYFASTCAL_NEON_INLINE uint32_t equal(Vec a, Vec b) { return mask<vceqq_f32>(a, b); }
PYFASTCAL_NEON_INLINE uint32_t not_less(Vec a, Vec b) { return 0xffff ^ mask<vcltq_f32>(a, b); }  // true for NaN

PYFASTCAL_NEON_INLINE float32x4_t low_bits_as_exponent(float32x4_t n) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(n), 23));
}
PYFASTCAL_NEON_INLINE Vec low_bits_as_exponent(Vec n) {
  return {low_bits_as_exponent(n.v[0]), low_bits_as_exponent(n.v[1]), low_bits_as_exponent(n.v[2]),
          low_bits_as_exponent(n.v[3])};
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
