// The sixteen lanes in plain loops, which the compiler may still vectorise for the baseline of its target.
#pragma once
#include <cmath>

#include "storage.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

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

}  // namespace pyfastcal::PYFASTCAL_VARIANT
