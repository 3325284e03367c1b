// The vector layer, lane by lane, against what its operations are by their definition.
#include <algorithm>
#include <limits>

#include "inputs.h"
#include "layer.h"

namespace pyfastcal::tests {

static constexpr int kLanes = 16;

static bool same(float a, float b) { return std::memcmp(&a, &b, 4) == 0 || (a != a && b != b); }

static const std::vector<float>& odd_values() {
  static const std::vector<float> values = [] {
    const float inf = std::numeric_limits<float>::infinity(), tiny = std::numeric_limits<float>::denorm_min();
    std::vector<float> v = {0.0f,
                            -0.0f,
                            1.0f,
                            -1.0f,
                            inf,
                            -inf,
                            NAN,
                            tiny,
                            -tiny,
                            0x1p-126f,
                            1 - 0x1p-24f,
                            1 + 0x1p-23f,
                            std::numeric_limits<float>::max(),
                            -std::numeric_limits<float>::max(),
                            0.5f,
                            2.5f,
                            -2.5f};
    Numbers numbers(1);
    while (v.size() < 61) v.push_back(float(numbers.normal() * std::exp2(40 * numbers.normal())));
    return v;
  }();
  return values;
}

// f(a, b, c) of sixteen lanes each, which between them hold every pair of odd values.
template <class F>
static void each_pair(const F& f) {
  const std::vector<float>& v = odd_values();
  const size_t n = v.size();
  float a[kLanes], b[kLanes], c[kLanes];
  for (size_t shift = 0; shift < n; ++shift)
    for (size_t i = 0; i < n; i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) {
        a[j] = v[(i + j) % n];
        b[j] = v[(i + j + shift) % n];
        c[j] = v[(i + j * 7 + shift * 3) % n];
      }
      f(a, b, c);
    }
}

PYFASTCAL_TEST(storage_types_are_loaded_exactly) {
  const Layer& layer = layer_of(kernels.name);
  uint16_t in[kLanes];
  float half[kLanes], bfloat16[kLanes];
  for (uint32_t first = 0; first < 0x10000; first += kLanes) {
    for (int j = 0; j < kLanes; ++j) in[j] = uint16_t(first + j);
    layer.load_half(in, half);
    layer.load_bfloat16(in, bfloat16);
    for (int j = 0; j < kLanes; ++j) {
      EXPECT(same(half[j], float(half_value(in[j]))), "fp16 " + std::to_string(in[j]));
      EXPECT(same(bfloat16[j], float(bfloat16_value(in[j]))), "bf16 " + std::to_string(in[j]));
    }
  }
}

PYFASTCAL_TEST(arithmetic) {
  const Layer& layer = layer_of(kernels.name);
  const bool scalar = std::strcmp(kernels.name, "scalar") == 0;
  each_pair([&](const float* a, const float* b, const float* c) {
    float sum[kLanes], difference[kLanes], product[kLanes], fused[kLanes], absolute[kLanes], high[kLanes], low[kLanes];
    layer.add(a, b, sum);
    layer.subtract(a, b, difference);
    layer.multiply(a, b, product);
    layer.fma(a, b, c, fused);
    layer.abs(a, absolute);
    layer.max(a, b, high);
    layer.min(a, b, low);
    for (int j = 0; j < kLanes; ++j) {
      const auto of = [&](const char* name) {
        return std::string(name) + " of " + std::to_string(a[j]) + ", " + std::to_string(b[j]) + ", " +
               std::to_string(c[j]);
      };
      EXPECT(same(sum[j], a[j] + b[j]), of("a + b"));
      EXPECT(same(difference[j], a[j] - b[j]), of("a - b"));
      EXPECT(same(product[j], a[j] * b[j]), of("a * b"));
      const float want = std::fma(a[j], b[j], c[j]);
      // the scalar variant's rounds twice, which shows in a last bit at most, or in fp32's own range
      EXPECT(scalar ? same(fused[j], float(double(a[j]) * b[j] + c[j])) : same(fused[j], want), of("fma"));
      EXPECT(same(absolute[j], std::fabs(a[j])), of("abs"));
      if (a[j] == a[j] || b[j] != b[j]) {  // where b is NaN the result is; where only a is, it is NaN or b
        EXPECT(high[j] == std::fmax(a[j], b[j]) || (b[j] != b[j] && high[j] != high[j]), of("max"));
        EXPECT(low[j] == std::fmin(a[j], b[j]) || (b[j] != b[j] && low[j] != low[j]), of("min"));
      } else {
        EXPECT(high[j] == b[j] || high[j] != high[j], of("max with NaN"));
        EXPECT(low[j] == b[j] || low[j] != low[j], of("min with NaN"));
      }
      if (b[j] != b[j]) EXPECT(high[j] != high[j] && low[j] != low[j], "max and min keep a NaN of b");
    }
  });
}

PYFASTCAL_TEST(comparisons) {
  const Layer& layer = layer_of(kernels.name);
  each_pair([&](const float* a, const float* b, const float*) {
    uint32_t equal = 0, not_less = 0;
    for (int j = 0; j < kLanes; ++j) {
      equal |= uint32_t(a[j] == b[j]) << j;
      not_less |= uint32_t(!(a[j] < b[j])) << j;
    }
    EXPECT(layer.equal(a, b) == equal, "equal");
    EXPECT(layer.not_less(a, b) == not_less, "not_less");
  });
}

PYFASTCAL_TEST(reductions_are_one_tree) {
  const Layer& layer = layer_of(kernels.name);
  Numbers numbers(2);
  for (int repeat = 0; repeat < 50; ++repeat) {
    float a[kLanes], tree[kLanes];
    for (float& x : a) x = float(numbers.normal() * std::exp2(10 * numbers.normal()));
    std::copy(a, a + kLanes, tree);
    for (int half = kLanes / 2; half; half /= 2)
      for (int j = 0; j < half; ++j) tree[j] += tree[j + half];
    EXPECT(same(layer.reduce_add(a), tree[0]), "reduce_add");
    EXPECT(layer.reduce_max(a) == *std::max_element(a, a + kLanes), "reduce_max");
    EXPECT(layer.reduce_min(a) == *std::min_element(a, a + kLanes), "reduce_min");
    float rows[kReduced * kLanes], sums[kReduced];
    for (float& x : rows) x = float(numbers.normal() * std::exp2(10 * numbers.normal()));
    layer.reduce_add_each(rows, sums);
    for (int i = 0; i < kReduced; ++i) EXPECT(same(sums[i], layer.reduce_add(rows + i * kLanes)), "reduce_add of each");
  }
}

PYFASTCAL_TEST(parts_of_a_vector) {
  const Layer& layer = layer_of(kernels.name);
  for (int64_t n = 0; n <= kLanes; ++n) {
    const Guarded memory(sizeof(float) * size_t(n));
    float* p = reinterpret_cast<float*>(memory.data);
    for (int64_t j = 0; j < n; ++j) p[j] = float(j + 1);
    float out[kLanes], all[kLanes], kept[kLanes], constant[kLanes];
    layer.load_first(p, n, -3.0f, out);
    layer.constants(7.0f, all, constant);
    layer.keep_first(all, n, kept);
    for (int64_t j = 0; j < kLanes; ++j) {
      EXPECT(out[j] == (j < n ? float(j + 1) : -3.0f), "load_first");
      EXPECT(kept[j] == (j < n ? 7.0f : 0.0f), "keep_first");
      EXPECT(all[j] == 7.0f && constant[j] == 7.0f, "set1, constant");
    }
  }
}

PYFASTCAL_TEST(conversions_to_integers) {
  const Layer& layer = layer_of(kernels.name);
  float a[kLanes] = {0.0f, 0.99f, 1.0f, 1.5f, 2047.0f, 2047.99f, 2048.0f, 63.0f, -0.5f, -0.0f, 1e-40f, 3.99f};
  int32_t out[kLanes];
  layer.truncated(a, out);
  for (int j = 0; j < kLanes; ++j) EXPECT(out[j] == int32_t(a[j]), "truncated " + std::to_string(a[j]));
  float powers[kLanes];
  for (int j = 0; j < kLanes; ++j) a[j] = 12582912.0f + 127.0f + float(8 * j - 64);  // 1.5 * 2^23 + biased exponents
  layer.low_bits_as_exponent(a, powers);
  for (int j = 0; j < kLanes; ++j)
    EXPECT(powers[j] == std::exp2(float(8 * j - 64)), "low_bits_as_exponent " + std::to_string(8 * j - 64));
}

PYFASTCAL_TEST(powers_of_two) {
  const Layer& layer = layer_of(kernels.name);
  float t[kLanes], p[kLanes];
  uint64_t all = 0;
  for (int64_t step = 0; step < 4032; ++step) {
    for (int j = 0; j < kLanes; ++j) t[j] = float(-126.0 + (step * kLanes + j) / 256.0);
    layer.exp2(t, p);
    for (int j = 0; j < kLanes; ++j) {
      if (t[j] > 126.0f) continue;
      const double want = std::exp2(double(t[j]));
      EXPECT(std::fabs(p[j] - want) <= 2.1 * 0x1p-23 * want, "2^" + std::to_string(t[j]));
      all = hash(all, p[j]);
    }
  }
  (*bits)["powers of two"] = all;
  for (float& x : t) x = NAN;
  layer.exp2(t, p);
  for (const float x : p) EXPECT(x != x, "2^NaN");
}

}  // namespace pyfastcal::tests
