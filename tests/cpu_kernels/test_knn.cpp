// knn against a search of the whole bank in double.
#include <algorithm>

#include "inputs.h"

namespace pyfastcal::tests {

using Neighbour = std::pair<double, int64_t>;  // squared distance, index

static std::vector<std::vector<double>> scaled(const Rows& x, bool normalize) {
  std::vector<std::vector<double>> out;
  for (int64_t i = 0; i < x.rows; ++i) {
    double square = 0;
    for (int64_t j = 0; j < x.cols; ++j) square += x.at(i, j) * x.at(i, j);
    const double scale = normalize ? 1 / std::max(std::sqrt(square), 1e-12) : 1.0;
    std::vector<double>& row = out.emplace_back();
    for (int64_t j = 0; j < x.cols; ++j) row.push_back(x.at(i, j) * scale);
  }
  return out;
}

// Of each query the bank rows, nearest first.
static std::vector<std::vector<Neighbour>> sorted_banks(const Rows& queries, const Rows& bank, bool exclude_self,
                                                        bool normalize) {
  const auto a = scaled(queries, normalize), b = scaled(bank, normalize);
  std::vector<std::vector<Neighbour>> out(a.size());
  for (size_t q = 0; q < a.size(); ++q) {
    for (size_t i = 0; i < b.size(); ++i) {
      if (exclude_self && i == q) continue;
      double square = 0;
      for (size_t j = 0; j < b[i].size(); ++j) square += (b[i][j] - a[q][j]) * (b[i][j] - a[q][j]);
      out[q].push_back({square, int64_t(i)});
    }
    std::sort(out[q].begin(), out[q].end());
  }
  return out;
}

static void check_knn(const Kernels& kernels, const Rows& queries, const Rows& bank, const std::vector<int64_t>& ks,
                      bool exclude_self, bool normalize, const std::string& rest) {
  const std::string name = shape("knn", queries, " in " + std::to_string(bank.rows)) +
                           (exclude_self ? ", not itself" : "") + (normalize ? ", normalized" : "") + rest;
  const auto& wanted = once(name, [&] { return sorted_banks(queries, bank, exclude_self, normalize); });
  for (const int64_t k : ks) {
    if (k < 1 || k > bank.rows - exclude_self) continue;
    const std::string what = name + ", k " + std::to_string(k);
    std::vector<int64_t> index(size_t(queries.rows * k));
    const std::vector<float> distance = outputs<float>(queries.rows * k, what, [&](float* out) {
      kernels.knn(queries, bank, k, exclude_self, normalize, out, index.data());
    });
    for (int64_t q = 0; q < queries.rows; ++q)
      for (int64_t i = 0; i < k; ++i) {
        const Neighbour& want = wanted[size_t(q)][size_t(i)];
        const auto at = [&] { return what + " at " + std::to_string(q) + ", " + std::to_string(i); };
        const double exact = std::sqrt(want.first);
        // the sum's order is the kernel's own: the last bits of a double, seen where a distance is all but 0
        EXPECT_CLOSE(distance[size_t(q * k + i)], exact, exact * 0x1p-23 + 1e-14, at());
        EXPECT(index[size_t(q * k + i)] == want.second, at() + ": the neighbour's index");
      }
  }
}

PYFASTCAL_TEST(neighbours) {
  struct Size {
    int64_t queries, bank, depth;
  };
  for (const Dtype dtype : kDtypes)
    // the last: with few neighbours by way of shortlists, else by scores kept, in parts of the bank
    for (const Size size :
         {Size{0, 5, 3}, {1, 1, 1}, {1, 50, 7}, {7, 49, 16}, {17, 130, 33}, {34, 330, 40}, {9, 2600, 12}})
      for (const bool normalize : {false, true}) {
        if (normalize && size.depth == 1) continue;
        Numbers numbers{uint64_t(size.bank)};
        const auto normal = [&](int64_t, int64_t) { return numbers.normal(); };
        const Rows queries(dtype, size.queries, size.depth, 2, normal), bank(dtype, size.bank, size.depth, 1, normal);
        std::vector<int64_t> ks{1, 5, 70};
        if (size.bank < 1000) ks.insert(ks.end(), {size.bank - 1, size.bank});
        if (dtype == Dtype::kFloat || size.depth > 12)  // few bits in few columns: ties that rounding decides
          check_knn(kernels, queries, bank, ks, false, normalize, "");
        if (size.bank < 330 && dtype == Dtype::kFloat) check_knn(kernels, bank, bank, ks, true, normalize, "");
      }
}

PYFASTCAL_TEST(neighbours_that_are_equal_or_nearly_so) {
  Numbers numbers(3);
  std::vector<double> centre;
  for (int j = 0; j < 37; ++j) centre.push_back(numbers.normal());
  // every third row is the same; the others differ from it in one column, by so little that fp32 products cannot tell
  const auto near = [&](int64_t i, int64_t j) {
    return centre[size_t(j)] + (i % 3 && j == i % 37 ? double(i) * 0x1p-18 : 0.0);
  };
  const Rows bank(Dtype::kFloat, 90, 37, 0, near), queries(Dtype::kFloat, 4, 37, 0, near);
  check_knn(kernels, queries, bank, {40}, false, false, ", nearly equal");
  check_knn(kernels, bank, bank, {25, 60}, true, false, ", nearly equal");
  const Rows large(Dtype::kFloat, 2400, 37, 0, near);
  check_knn(kernels, queries, large, {3}, true, false, ", nearly equal");
  check_knn(kernels, queries, large, {300}, true, true, ", nearly equal");
}

PYFASTCAL_TEST(neighbours_that_sums_of_bf16_cannot_tell_apart) {
  // numbers that bf16 holds, so that only the sums' rounding is between them; rows differ in columns of little weight,
  // and distances are exact in double
  Numbers numbers(5);
  std::vector<double> centre;
  for (int j = 0; j < 30; ++j) centre.push_back(std::round(32 * numbers.normal()) / 32);
  const auto near = [&](int64_t i, int64_t j) {
    return j < 30 ? centre[size_t(j)] : std::ldexp(128 + double((i * 37 + j * 11) % 128), -16);
  };
  const auto far = [&](int64_t, int64_t j) { return std::round(32 * numbers.normal()) / (j < 30 ? 32 : 4096); };
  const Rows bank(Dtype::kBFloat16, 2400, 35, 0, near), queries(Dtype::kBFloat16, 5, 35, 0, far);
  check_knn(kernels, queries, bank, {1, 5, 50}, false, false, ", nearly equal");
}

// Scores of which all but a few fall in one bucket, and of which all are equal.
PYFASTCAL_TEST(neighbours_among_outliers) {
  Numbers numbers(6);
  const auto far = [&](int64_t i, int64_t j) {
    return i % 97 == 40 ? 1e6 * double(i) * (j == 3) : i < 500 ? 1 + 1e-3 * numbers.normal() : 1.0;
  };
  const Rows bank(Dtype::kFloat, 900, 21, 0, far), queries(Dtype::kFloat, 3, 21, 0, far);
  check_knn(kernels, queries, bank, {1, 450, 800}, false, false, ", outliers");
  check_knn(kernels, queries, bank, {50}, true, false, ", outliers");
}

PYFASTCAL_TEST(neighbours_of_any_length) {
  // rows that fp32 products cannot judge: of length 0, 1e-20 or 1e17 among others of length 1
  Numbers numbers(4);
  const auto odd = [&](int64_t i, int64_t) {
    return numbers.normal() * (i % 11 == 2 ? 0.0 : i % 11 == 5 ? 1e-20 : i % 11 == 9 ? 1e17 : 1.0);
  };
  for (const int64_t rows : {60, 2400}) {
    const Rows bank(Dtype::kFloat, rows, 20, 0, odd), queries(Dtype::kFloat, 13, 20, 0, odd);
    check_knn(kernels, queries, bank, {1, 3}, false, false, ", odd lengths");
  }
}

PYFASTCAL_TEST(neighbours_of_what_is_not_finite) {
  for (const int64_t rows : {40, 2400})
    for (const double bad : {double(NAN), double(INFINITY)}) {
      const auto good = [](int64_t i, int64_t j) { return double((i * 7 + j * 3) % 11); };
      const Rows bank(Dtype::kFloat, rows, 19, 0, good),
          bad_bank(Dtype::kFloat, rows, 19, 0,
                   [&](int64_t i, int64_t j) { return i == rows / 2 && j == 18 ? bad : good(i, j); }),
          queries(Dtype::kFloat, 3, 19, 0,
                  [&](int64_t i, int64_t j) { return i == 1 && j == 18 ? bad : double(j % 4); });
      float distance[6];
      int64_t index[6];
      kernels.knn(queries, bank, 2, false, false, distance, index);
      for (int i = 0; i < 6; ++i) EXPECT(std::isnan(distance[i]) == (i / 2 == 1), "NaN for that query alone");
      kernels.knn(queries, bad_bank, 2, false, false, distance, index);
      for (int i = 0; i < 6; ++i) EXPECT(std::isnan(distance[i]), "NaN for all queries of a bank that is not finite");
    }
}

}  // namespace pyfastcal::tests
