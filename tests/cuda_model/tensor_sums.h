// The sums of products that tensor cores make.
#pragma once
#include <cstdint>

namespace cuda_model {

// sums[16][columns] += a[16][16] * b[16][columns], for columns that are a multiple of eight.
//
// Eight products at a time, rounding as tensor cores since sm_80 do at worst: the exact products and the sum are
// aligned and cut 24 bits below the largest, added, and the total is cut to fp32.
void add_products(float* sums, const float (&a)[16][16], const float* b, int columns);

// The same by the definition, for one row, eight columns and eight products.
void add_products_exactly(float* sums, const float* a, const float* b, int columns);

float bfloat16_to_float(uint16_t bits);
float half_to_float(uint16_t bits);

}  // namespace cuda_model
