// knn against a search of the whole bank in double.
#include <algorithm>

#include "inputs.h"

namespace pyfastcal::tests {

struct Neighbourhood {
  std::vector<double> distance;
  std::vector<int64_t> index;
};

static Neighbourhood nearest(const Rows& queries, const Rows& bank, int64_t q, int64_t k, bool exclude_self,
                             bool normalize) {
  const auto inverse_length = [&](const Rows& x, int64_t i) {
    double square = 0;
    for (int64_t j = 0; j < x.cols; ++j) square += x.at(i, j) * x.at(i, j);
    return normalize ? 1 / std::max(std::sqrt(square), 1e-12) : 1.0;
  };
  const double scale = inverse_length(queries, q);
  std::vector<std::pair<double, int64_t>> all;
  for (int64_t b = 0; b < bank.rows; ++b) {
    if (exclude_self && b == q) continue;
    const double bank_scale = inverse_length(bank, b);
    double square = 0;
    for (int64_t j = 0; j < bank.cols; ++j) {
      const double difference = bank.at(b, j) * bank_scale - queries.at(q, j) * scale;
      square += difference * difference;
    }
    all.push_back({square, b});
  }
  std::sort(all.begin(), all.end());
  Neighbourhood out;
  for (int64_t i = 0; i < k; ++i) {
    out.distance.push_back(std::sqrt(all[size_t(i)].first));
    out.index.push_back(all[size_t(i)].second);
  }
  return out;
}

static void check_knn(const Kernels& kernels, const Rows& queries, const Rows& bank, int64_t k, bool exclude_self,
                      bool normalize, const std::string& rest) {
  const std::string what = shape("knn", queries, " in " + std::to_string(bank.rows) + ", k " + std::to_string(k)) +
                           (exclude_self ? ", not itself" : "") + (normalize ? ", normalized" : "") + rest;
  const auto n = size_t(queries.rows * k);
  std::vector<int64_t> index(n);
  const std::vector<float> distance = outputs<float>(queries.rows * k, what, [&](float* out) {
    kernels.knn(queries, bank, k, exclude_self, normalize, out, index.data());
  });
  for (int64_t q = 0; q < queries.rows; ++q) {
    const Neighbourhood want = nearest(queries, bank, q, k, exclude_self, normalize);
    for (int64_t i = 0; i < k; ++i) {
      const auto at = [&] { return what + " at " + std::to_string(q) + ", " + std::to_string(i); };
      const double exact = want.distance[size_t(i)];
      // the sum's order is the kernel's own: the last bits of a double, seen where a distance is all but 0
      EXPECT_CLOSE(distance[size_t(q * k + i)], exact, exact * 0x1p-23 + 1e-14, at());
      EXPECT(index[size_t(q * k + i)] == want.index[size_t(i)], at() + ": the neighbour's index");
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
         {Size{0, 5, 3}, {1, 1, 1}, {1, 50, 7}, {7, 49, 16}, {17, 130, 33}, {40, 700, 64}, {37, 2600, 40}})
      for (const bool normalize : {false, true})
        for (const int64_t k : {int64_t(1), int64_t(5), int64_t(70), size.bank - 1, size.bank}) {
          if (k < 1 || k > size.bank || (normalize && size.depth == 1) || (size.bank > 700 && k > 70)) continue;
          Numbers numbers{uint64_t(size.bank)};
          const auto normal = [&](int64_t, int64_t) { return numbers.normal(); };
          const Rows queries(dtype, size.queries, size.depth, 2, normal), bank(dtype, size.bank, size.depth, 1, normal);
          if (dtype == Dtype::kFloat || size.depth > 7)  // few bits in few columns: ties that rounding decides
            check_knn(kernels, queries, bank, k, false, normalize, "");
          if (k < size.bank && size.bank < 700 && dtype == Dtype::kFloat)
            check_knn(kernels, bank, bank, k, true, normalize, "");
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
  check_knn(kernels, queries, bank, 40, false, false, ", nearly equal");
  check_knn(kernels, bank, bank, 25, true, false, ", nearly equal");
  check_knn(kernels, bank, bank, 60, true, false, ", nearly equal");
  const Rows large(Dtype::kFloat, 2400, 37, 0, near);
  check_knn(kernels, queries, large, 3, true, false, ", nearly equal");
  check_knn(kernels, queries, large, 300, true, true, ", nearly equal");
}

// Scores of which all but a few fall in one bucket, and of which all are equal.
PYFASTCAL_TEST(neighbours_among_outliers) {
  Numbers numbers(6);
  const auto far = [&](int64_t i, int64_t j) {
    return i % 97 == 40 ? 1e6 * double(i) * (j == 3) : i < 500 ? 1 + 1e-3 * numbers.normal() : 1.0;
  };
  const Rows bank(Dtype::kFloat, 900, 21, 0, far), queries(Dtype::kFloat, 3, 21, 0, far);
  for (const int64_t k : {1, 50, 450, 800}) check_knn(kernels, queries, bank, k, k == 50, false, ", outliers");
}

PYFASTCAL_TEST(neighbours_of_any_length) {
  // rows that fp32 products cannot judge: of length 0, 1e-20 or 1e17 among others of length 1
  Numbers numbers(4);
  const auto odd = [&](int64_t i, int64_t) {
    return numbers.normal() * (i % 11 == 2 ? 0.0 : i % 11 == 5 ? 1e-20 : i % 11 == 9 ? 1e17 : 1.0);
  };
  for (const int64_t rows : {60, 2400}) {
    const Rows bank(Dtype::kFloat, rows, 20, 0, odd), queries(Dtype::kFloat, 13, 20, 0, odd);
    for (const int64_t k : {1, 3}) check_knn(kernels, queries, bank, k, false, false, ", odd lengths");
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
