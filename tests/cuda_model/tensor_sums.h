// The sums of products that tensor cores make.
#pragma once
#include "runtime.h"

namespace cuda_model {

// sums[16][columns] += a[16][16] * b[16][columns], for columns that are a multiple of eight; a and b of numbers that 16
// bits hold.
//
// Eight products at a time, rounding as tensor cores since sm_80 do at worst: the exact products and the sum are
// aligned and cut 24 bits below the largest, added, and the total is cut to fp32.
void add_products(float* sums, const float (&a)[16][16], const float* b, int columns);

// The same by the definition, for one row, eight columns and eight products.
void add_products_exactly(float* sums, const float* a, const float* b, int columns);

// What 16 bits stand for.
template <class T>
inline float to_float(uint16_t bits) {
  if (std::is_same_v<T, __nv_bfloat16>) return from_bits<float>(uint64_t(bits) << 16);
  const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13, sign = uint32_t(bits & 0x8000) << 16;
  const float finite = from_bits<float>(magnitude) * 0x1p112f;
  return from_bits<float>(sign | (magnitude < 0x1fu << 23 ? uint32_t(to_bits(finite)) : magnitude | 0x7f800000));
}

}  // namespace cuda_model
