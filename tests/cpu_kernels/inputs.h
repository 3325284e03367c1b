// Inputs of the tests: numbers that are the same on every processor, and rows of them in each dtype, in memory that
// ends where a page begins that nobody may read.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <functional>

#include "checks.h"

namespace pyfastcal::tests {

class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t bits() {  // xorshift64*
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  double uniform() { return double(bits() >> 11) * 0x1p-53; }
  double normal() {  // nearly: the sum of twelve
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  uint64_t state_;
};

// Memory of n bytes, the byte after which belongs to a page that is not there.
class Guarded {
 public:
  explicit Guarded(size_t n) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE)), used = (n + page - 1) / page * page;
    size_ = used + page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + used, page, PROT_NONE)) std::abort();
    data = base_ + used - n;
  }
  ~Guarded() { munmap(base_, size_); }
  Guarded(const Guarded&) = delete;
  char* data;

 private:
  char* base_;
  size_t size_;
};

inline uint16_t half_bits(float x) {  // to nearest, ties to even
  uint32_t b;
  std::memcpy(&b, &x, 4);
  const uint16_t sign = uint16_t(b >> 16 & 0x8000u);
  b &= 0x7fffffffu;
  if (b > 0x7f800000u) return sign | 0x7e00u;
  if (b >= 0x477ff000u) return sign | 0x7c00u;
  if (b < 0x38800000u) {  // a subnormal: 0.5 has its last bit at 2^-24
    const float shifted = std::fabs(x) + 0.5f;
    std::memcpy(&b, &shifted, 4);
    return uint16_t(sign | (b - 0x3f000000u));
  }
  return uint16_t(sign | (b - 0x38000000u + 0xfffu + (b >> 13 & 1)) >> 13);
}
inline double half_value(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double magnitude = exponent == 31 ? (fraction ? std::nan("") : double(INFINITY))
                           : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                                          : std::ldexp(fraction, -24);
  return h & 0x8000 ? -magnitude : magnitude;
}
inline uint16_t bfloat16_bits(float x) {  // to nearest, ties to even
  uint32_t b;
  std::memcpy(&b, &x, 4);
  if (x != x) return 0x7fc0u;
  return uint16_t((b + 0x7fffu + (b >> 16 & 1)) >> 16);
}
inline double bfloat16_value(uint16_t h) {
  const uint32_t b = uint32_t(h) << 16;
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}

inline constexpr Dtype kDtypes[] = {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16};
inline const char* name_of(Dtype dtype) {
  return dtype == Dtype::kFloat ? "fp32" : dtype == Dtype::kHalf ? "fp16" : dtype == Dtype::kBFloat16 ? "bf16" : "fp64";
}

// rows x cols values value(i, j), rounded to the dtype; what lies between a row's end and the next row is NaN.
class Rows : public Matrix {
 public:
  Rows(Dtype type, int64_t n, int64_t d, int64_t gap, const std::function<double(int64_t, int64_t)>& value)
      : Matrix{nullptr, type, n, d, d + gap},
        values(size_t(n * d)),
        memory_(size_t(n ? (n - 1) * stride + d : 0) * (type == Dtype::kFloat ? 4 : 2)) {
    data = memory_.data;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < (i + 1 < n ? stride : d); ++j) {
        const double kept = put(i * stride + j, j < d ? float(value(i, j)) : NAN);
        if (j < d) values[size_t(i * d + j)] = kept;
      }
  }
  double at(int64_t i, int64_t j) const { return values[size_t(i * cols + j)]; }  // as the dtype holds it

  std::vector<double> values;

 private:
  double put(int64_t at, float x) {
    if (dtype == Dtype::kFloat) {
      std::memcpy(memory_.data + 4 * at, &x, 4);
      return x;
    }
    const uint16_t h = dtype == Dtype::kHalf ? half_bits(x) : bfloat16_bits(x);
    std::memcpy(memory_.data + 2 * at, &h, 2);
    return dtype == Dtype::kHalf ? half_value(h) : bfloat16_value(h);
  }
  Guarded memory_;
};

inline std::string shape(const char* op, const Rows& x, const std::string& more = "") {
  return std::string(op) + " " + name_of(x.dtype) + " " + std::to_string(x.rows) + "x" + std::to_string(x.cols) + "+" +
         std::to_string(x.stride - x.cols) + more;
}

}  // namespace pyfastcal::tests
