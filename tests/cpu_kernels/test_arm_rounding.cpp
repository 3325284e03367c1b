// Products of bf16 numbers on Arm, to the bit: what bfmmla is by Arm's manual (BFDotAdd), step by step.
#if defined(__aarch64__)
#include "inputs.h"

namespace pyfastcal::tests {

// a + b in fp32: what does not fit is cut off, and sets the last bit; denormals are zero.
static float add_to_odd(float a, float b) {
  const double x = a, y = b, sum = x + y, back = sum - x, rest = (x - (sum - back)) + (y - back);
  if (!std::isfinite(sum)) return float(sum);
  uint64_t wide;
  std::memcpy(&wide, &sum, 8);
  if (rest != 0 && !(wide & 1)) wide += std::signbit(rest) == std::signbit(sum) ? 1 : -1;  // to odd, in double
  const int exponent = int(wide >> 52 & 2047) - 1023;
  const uint32_t sign = uint32_t(wide >> 32) & 0x80000000u, fraction = uint32_t(wide >> 29) & 0x7fffffu;
  uint32_t bits = sign;
  if (exponent >= 128)
    bits |= 0x7f800000u;
  else if (exponent >= -126)
    bits |= uint32_t(exponent + 127) << 23 | fraction | ((wide & 0x1fffffffu) != 0);
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

static float flushed(double x) { return std::fabs(x) < 0x1p-126 ? 0.0f : float(x); }

static float product(const Rows& a, int64_t i, const Rows& b, int64_t j) {
  float sum = 0;
  const auto of = [&](int64_t k) {
    return k < a.cols ? flushed(double(flushed(a.at(i, k))) * double(flushed(b.at(j, k)))) : 0.0f;
  };
  for (int64_t k = 0; k < a.cols; k += 2) sum = add_to_odd(sum, add_to_odd(of(k), of(k + 1)));
  return sum;
}

// Numbers 2^spread up or down.
static void check_products(const Kernels& kernels, double spread, const std::string& what) {
  for (const int64_t depth : {1, 2, 3, 4, 31, 32, 33, 70})
    for (const int64_t rows : {1, 2, 5, 6, 7, 8, 13}) {
      Numbers numbers{uint64_t(depth + rows)};
      const auto value = [&](int64_t, int64_t) { return numbers.normal() * std::exp2(spread * numbers.normal()); };
      const Rows image(Dtype::kBFloat16, rows, depth, 1, value), text(Dtype::kBFloat16, 19, depth, 0, value);
      std::vector<float> got(size_t(rows * 19));
      kernels.similarity(image, text, false, got.data());
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < 19; ++j) {
          const float is = got[size_t(i * 19 + j)], want = product(image, i, text, j);
          EXPECT((is != is && want != want) || std::memcmp(&is, &want, 4) == 0,
                 shape("similarity", image, what) + how_far(is, want, 0x1p-23 * std::fabs(want)));
        }
    }
}

PYFASTCAL_TEST(bf16_products_are_rounded_as_arm_says) {
  if (std::strcmp(kernels.name, "neon_bf16") != 0) return;
  check_products(kernels, 1, " of one scale");
  check_products(kernels, 8, " of many scales");
  check_products(kernels, 40, " of all scales");  // sums that overflow, vanish or are denormal
}

}  // namespace pyfastcal::tests
#endif
