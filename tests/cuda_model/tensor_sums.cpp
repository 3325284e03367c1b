#include "tensor_sums.h"

#include <cmath>

#include "primitives.h"

namespace cuda_model {

float bfloat16_to_float(uint16_t bits) { return from_bits<float>(uint64_t(bits) << 16); }
float half_to_float(uint16_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13, sign = uint32_t(bits & 0x8000) << 16;
  const bool finite = magnitude < 0x1fu << 23;
  const float scaled = from_bits<float>(magnitude) * 0x1p112f;
  return from_bits<float>(sign | (finite ? uint32_t(to_bits(scaled)) : magnitude | 0x7f800000));
}

void add_products_exactly(float* sums, const float* a, const float* b, int columns) {
  for (int c = 0; c < 8; ++c) {
    double terms[9], largest = 0;
    bool finite = true;
    for (int k = 0; k < 9; ++k) {
      terms[k] = k < 8 ? double(a[k]) * double(b[k * columns + c]) : double(sums[c]);
      largest = std::max(largest, std::fabs(terms[k]));
      finite &= std::isfinite(terms[k]);
    }
    if (!finite) {
      for (int k = 0; k < 8; ++k) sums[c] += a[k] * b[k * columns + c];
    } else if (largest > 0) {
      const uint64_t exponent = to_bits(largest) & uint64_t(0x7ff) << 52;
      const double quantum = from_bits<double>(exponent - (uint64_t(24) << 52)),
                   inverse = from_bits<double>((uint64_t(2 * 1023 + 24) << 52) - exponent);
      int32_t total = 0;
      for (const double term : terms) total += int32_t(term * inverse);
      const double exact = double(total) * quantum;
      const float rounded = float(exact);
      sums[c] = std::fabs(double(rounded)) > std::fabs(exact) ? std::nextafter(rounded, 0.0f) : rounded;
    }
  }
}

namespace {

using Floats = float __attribute__((vector_size(32)));
using Ints = int32_t __attribute__((vector_size(32)));

// What is known of some numbers. Usual: zero, or so large and so small that no product of two leaves fp32's range.
struct Kind {
  bool zero = true, finite = true, usual = true;
  void see(float x) {
    const uint32_t exponent = uint32_t(to_bits(x)) >> 23 & 0xff;
    zero &= x == 0;
    finite &= exponent != 255;
    usual &= x == 0 || (exponent > 127 - 50 && exponent < 127 + 50);
  }
};

// As add_products_exactly, in fp32, in which the products of usual numbers are exact; false if it cannot be.
[[gnu::always_inline]] inline bool add_usual_products(float* sums, const float* a, const Floats (&b)[8]) {
  Floats terms[9];
  __builtin_memcpy(&terms[8], sums, sizeof(Floats));
  for (int k = 0; k < 8; ++k) terms[k] = a[k] * b[k];
  Ints largest = {};
  for (const Floats& term : terms) {
    const Ints size = Ints(term) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  const Ints exponent = largest & 0x7f800000, zero = largest == 0;
  const Ints outside = ((exponent < 27 << 23) | (exponent > 247 << 23)) & ~zero;
  int any = 0;
  for (int c = 0; c < 8; ++c) any |= outside[c];
  if (any) return false;
  const Floats inverse = Floats(((2 * 127 + 24) << 23) - exponent), quantum = Floats(exponent - (24 << 23));
  Ints total = {};
  for (const Floats& term : terms) total += __builtin_convertvector(term * inverse, Ints);
  const Floats rounded = __builtin_convertvector(total, Floats);  // to nearest
  const Ints back = __builtin_convertvector(rounded, Ints);
  const Ints too_large = (back < 0 ? -back : back) > (total < 0 ? -total : total);
  const Floats cut = Floats(Ints(rounded) + too_large) * quantum;
  const Floats result = zero ? terms[8] : cut;
  __builtin_memcpy(sums, &result, sizeof(Floats));
  return true;
}

}  // namespace

__attribute__((target_clones("avx2", "default"))) void add_products(float* sums, const float (&a)[16][16],
                                                                    const float* b, int columns) {
  Kind kinds[16][2];
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k) kinds[row][k / 8].see(a[row][k]);
  for (int c = 0; c < columns; c += 8)
    for (int half = 0; half < 2; ++half) {
      const float* const first = b + 8 * half * columns + c;
      Floats block[8];
      Kind kind;
      for (int k = 0; k < 8; ++k) {
        __builtin_memcpy(&block[k], first + k * columns, sizeof(Floats));
        for (int i = 0; i < 8; ++i) kind.see(first[k * columns + i]);
      }
      for (int row = 0; row < 16; ++row) {
        const Kind& other = kinds[row][half];
        if ((kind.zero && other.finite) || (other.zero && kind.finite)) continue;  // as often in small tests
        float* const to = sums + row * columns + c;
        const float* const factors = &a[row][8 * half];
        if (!kind.usual || !other.usual || !add_usual_products(to, factors, block))
          add_products_exactly(to, factors, first, columns);
      }
    }
}

}  // namespace cuda_model
