// Sums of products by their definition; and, some ten times as fast, of the numbers that tests mostly have.
#include "tensor_sums.h"

#include <cmath>

namespace cuda_model {

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

[[gnu::always_inline]] inline Floats read(const float* from) {
  Floats numbers;
  __builtin_memcpy(&numbers, from, sizeof numbers);
  return numbers;
}

// What is known of eight numbers, or of many, seen eight at a time. Usual: zero, or so large and so small that no
// product of two leaves fp32's range.
class Kinds {
 public:
  [[gnu::always_inline]] void see(const Floats& numbers) {
    const Ints size = Ints(numbers) & 0x7fffffff, size_or_one = size == 0 ? kOne : size;
    largest_ = size > largest_ ? size : largest_;
    least_ = size_or_one < least_ ? size_or_one : least_;
  }
  struct Kind {
    bool zero, finite, usual;
  };
  [[gnu::always_inline]] Kind kind() const {
    int32_t largest = 0, least = kOne[0];
    for (int i = 0; i < 8; ++i) {
      largest = std::max(largest, largest_[i]);
      least = std::min(least, least_[i]);
    }
    return {largest == 0, largest < 255 << 23, largest < (127 + 50) << 23 && least >= (127 - 50) << 23};
  }

 private:
  static constexpr Ints kOne = Ints{} + (127 << 23);
  Ints largest_ = {}, least_ = kOne;
};
using Kind = Kinds::Kind;

// As add_products_exactly, in fp32, in which the products of usual numbers are exact; false if it cannot be.
[[gnu::always_inline]] inline bool add_usual_products(float* sums, const float* a, const Floats (&b)[8]) {
  Floats terms[9];
  terms[8] = read(sums);
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
    for (int half = 0; half < 2; ++half) {
      Kinds factors;
      factors.see(read(&a[row][8 * half]));
      kinds[row][half] = factors.kind();
    }
  for (int c = 0; c < columns; c += 8)
    for (int half = 0; half < 2; ++half) {
      const float* const first = b + 8 * half * columns + c;
      Floats block[8];
      Kinds factors;
      for (int k = 0; k < 8; ++k) {
        block[k] = read(first + k * columns);
        factors.see(block[k]);
      }
      const Kind kind = factors.kind();
      for (int row = 0; row < 16; ++row) {
        const Kind& other = kinds[row][half];
        if ((kind.zero && other.finite) || (other.zero && kind.finite)) continue;  // as often in small tests
        float* const to = sums + row * columns + c;
        const float* const of_a = &a[row][8 * half];
        if (!kind.usual || !other.usual || !add_usual_products(to, of_a, block))
          add_products_exactly(to, of_a, first, columns);
      }
    }
}

}  // namespace cuda_model
