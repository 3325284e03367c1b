// bin_counts: integers, equal to those of a plain loop.
#include <algorithm>

#include "inputs.h"

namespace pyfastcal::tests {

struct Samples {
  Samples(Dtype type, int64_t n, int64_t groups, double odd, uint64_t seed)
      : dtype(type), confidence(type == Dtype::kDouble ? Dtype::kFloat : type, 1, n, 0, values(n, odd, seed)) {
    Numbers numbers(seed + 1);
    for (int64_t i = 0; i < n; ++i) {
      correct.push_back(numbers.bits() & 1);
      group.push_back(int64_t(numbers.bits() % uint64_t(groups)) - (odd > 0 && i % 29 == 3));
      value.push_back(dtype == Dtype::kDouble ? numbers.uniform() : confidence.at(0, i));
    }
    if (dtype == Dtype::kDouble && odd > 0 && n) value[size_t(n / 2)] = NAN;
  }
  const void* data() const { return dtype == Dtype::kDouble ? value.data() : confidence.data; }

  Dtype dtype;
  Rows confidence;
  std::vector<uint8_t> correct;
  std::vector<int64_t> group;
  std::vector<double> value;

 private:
  // Of 40, one is an edge of equal bins and, where `odd`, one no confidence.
  static std::function<double(int64_t, int64_t)> values(int64_t, double odd, uint64_t seed) {
    return [odd, numbers = Numbers(seed)](int64_t, int64_t j) mutable {
      const double u = numbers.uniform();
      if (j % 40 == 7) return double(int64_t(u * 21)) / 20;
      if (j % 40 == 19) return 1 + 0x1p-23;
      if (odd > 0 && j % 40 == 23) return u < 0.3 ? double(NAN) : u < 0.6 ? -u : 1 + u;
      return j % 40 == 31 ? -0.0 : u;
    };
  }
};

static void check_bins(const Kernels& kernels, const Samples& s, const std::vector<float>& edges, int64_t groups,
                       bool closed_right, bool grouped, const std::string& what) {
  const int64_t bins = int64_t(edges.size()) - 1, size = bins * groups, n = int64_t(s.value.size());
  const std::vector<int64_t> got = outputs<int64_t>(3 * size + 1, what, [&](int64_t* out) {
    for (int64_t i = 0; i <= 3 * size; ++i) out[i] = 0;
    kernels.bin_counts(s.data(), s.dtype, reinterpret_cast<const bool*>(s.correct.data()),
                       grouped ? s.group.data() : nullptr, n, {edges.data(), bins, groups, closed_right}, out,
                       out + 3 * size);
  });
  std::vector<int64_t> want(size_t(3 * size + 1));
  for (int64_t i = 0; i < n; ++i) {
    double x = s.value[size_t(i)];
    const int64_t g = grouped ? s.group[size_t(i)] : 0;
    if (!(x >= 0 && x <= 1 + 0x1p-23) || g < 0 || g >= groups) {
      ++want.back();
      continue;
    }
    if (x > 1) x = 1;
    const auto first = edges.begin() + 1, last = edges.end() - 1;
    const int64_t bin = (closed_right ? std::lower_bound(first, last, x) : std::upper_bound(first, last, x)) - first;
    const size_t entry = size_t(g * bins + bin);
    want[entry] += 1;
    want[size_t(size) + entry] += s.correct[size_t(i)];
    want[2 * size_t(size) + entry] += int64_t(std::nearbyint(std::ldexp(x, 32)));
  }
  EXPECT(got == want, what);
}

PYFASTCAL_TEST(bins_of_every_kind) {
  for (const Dtype dtype : {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16, Dtype::kDouble})
    for (const int64_t n : {0, 1, 15, 16, 33, 511, 512, 513, 2048, 2049, 40001}) {
      const double odd = n % 2;
      const Samples s(dtype, n, 3, odd, uint64_t(n));
      for (const int64_t bins : {1, 2, 10, 15, 16, 17, 20, 64, 65, 300})
        for (const bool closed_right : {false, true}) {
          if (n > 40000 && bins != 2 && bins != 16 && bins != 65) continue;  // one of each kind of histogram
          std::vector<float> equal, uneven;
          for (int64_t b = 0; b <= bins; ++b) {
            equal.push_back(float(double(b) / double(bins)));
            uneven.push_back(float(std::sqrt(double(b) / double(bins))));
          }
          const std::string what = std::string("bins ") + name_of(dtype) + " " + std::to_string(n) + " into " +
                                   std::to_string(bins) + (closed_right ? " closed right" : " closed left");
          check_bins(kernels, s, equal, 1, closed_right, false, what);
          if (n < 40000) check_bins(kernels, s, uneven, 1, closed_right, false, what + ", uneven");
          if (n < 40000) check_bins(kernels, s, uneven, 3, closed_right, true, what + ", uneven, in groups");
        }
    }
}

PYFASTCAL_TEST(bins_whose_edges_fall_together) {
  for (const bool closed_right : {false, true}) {
    const Samples s(Dtype::kFloat, 3000, 1, 0, 11);
    check_bins(kernels, s, {0, 0, 0.5f, 0.5f, 1, 1}, 1, closed_right, false,
               closed_right ? "twice the same edge, closed right" : "twice the same edge");
    check_bins(kernels, s, {0, 0.25f, 0.25f + 0x1p-25f, 0.7f, 1}, 1, closed_right, false,
               closed_right ? "edges an ulp apart, closed right" : "edges an ulp apart");
  }
}

}  // namespace pyfastcal::tests
