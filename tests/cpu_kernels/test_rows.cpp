// confidence and nll, row by row, against plain loops in double.
#include <algorithm>
#include <memory>

#include "inputs.h"

namespace pyfastcal::tests {

static constexpr int64_t kCols[] = {1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 1000, 2047, 2048, 2049, 4100};

struct Scores {  // of a row under a factor: what softmax(factor * row) comes from
  bool valid = true;
  int64_t top = 0;                             // the first maximum
  double log_sum = 0, mean = 0, variance = 0;  // of factor * row relative to its maximum; of the row's values
};

static Scores scores_of(const Rows& x, int64_t i, double factor) {
  Scores s;
  for (int64_t j = 0; j < x.cols; ++j) {
    if (!(x.at(i, j) < INFINITY)) s.valid = false;
    if (x.at(i, j) > x.at(i, s.top)) s.top = j;
  }
  const double top = x.at(i, s.top);
  if (!(top > -INFINITY)) s.valid = false;
  double sum = 0, first = 0, second = 0;
  for (int64_t j = 0; j < x.cols; ++j) {
    const double p = std::exp(factor * (x.at(i, j) - top));
    if (p > 0) sum += p, first += p * (x.at(i, j) - top), second += p * (x.at(i, j) - top) * (x.at(i, j) - top);
  }
  s.log_sum = std::log(sum);
  s.mean = top + first / sum;
  s.variance = second / sum - first / sum * (first / sum);
  return s;
}

static void check_confidence(const Kernels& kernels, const Rows& x, const Factors& factors, const std::string& what) {
  // of each row its confidence and its class, which fp32 holds: -1 of a row that has no confidence, whose class is any
  const std::vector<float> got = outputs<float>(2 * x.rows, what, [&](float* out) {
    std::vector<int64_t> prediction(size_t(x.rows));
    kernels.confidence(x, factors, out, prediction.data());
    for (int64_t i = 0; i < x.rows; ++i) out[x.rows + i] = std::isnan(out[i]) ? -1 : float(prediction[size_t(i)]);
  });
  const float *confidence = got.data(), *prediction = confidence + x.rows;
  struct Wanted {
    Scores scores;
    double confidence = NAN;
  };
  const auto& wanted = once(what, [&] {
    std::vector<Wanted> rows(size_t(x.rows));
    for (int64_t i = 0; i < x.rows; ++i) {
      Wanted& row = rows[size_t(i)];
      row.scores = scores_of(x, i, 1);
      const double factor = (factors.class_weight ? factors.class_weight[row.scores.top] : 1.0) *
                            (factors.sample_weight ? factors.sample_weight[i] : 1.0);
      row.confidence = std::exp(-(factor == 1 ? row.scores : scores_of(x, i, factor)).log_sum);
    }
    return rows;
  });
  for (int64_t i = 0; i < x.rows; ++i) {
    const Scores& s = wanted[size_t(i)].scores;
    if (!s.valid) {
      EXPECT(std::isnan(confidence[i]), what + " has no confidence for row " + std::to_string(i));
      continue;
    }
    EXPECT(prediction[i] == float(s.top), what + ": the class of the first maximum of row " + std::to_string(i));
    EXPECT_CLOSE(confidence[i], wanted[size_t(i)].confidence, 4e-6, what + ", row " + std::to_string(i));
  }
}

PYFASTCAL_TEST(confidence_of_every_width) {
  for (const Dtype dtype : kDtypes)
    for (const int64_t cols : kCols)
      for (const int64_t rows : {0, 1, 5}) {
        Numbers numbers(uint64_t(cols * 8 + rows));
        const Rows x(dtype, rows, cols, rows == 5 ? 3 : 0, [&](int64_t, int64_t) { return 4 * numbers.normal(); });
        std::vector<float> class_weight(size_t(cols), 0), sample_weight(size_t(rows), 0);
        for (float& w : class_weight) w = float(0.5 + numbers.uniform());
        for (float& w : sample_weight) w = float(0.5 + numbers.uniform());
        check_confidence(kernels, x, {nullptr, nullptr}, shape("confidence", x));
        check_confidence(kernels, x, {class_weight.data(), sample_weight.data()}, shape("confidence", x, " weighted"));
      }
}

PYFASTCAL_TEST(confidence_of_odd_rows) {
  for (const Dtype dtype : kDtypes)
    for (const int64_t cols : {3, 16, 33, 100})
      for (const double odd : {double(NAN), double(INFINITY), -double(INFINITY)}) {
        Numbers numbers{uint64_t(cols)};
        // row i: `odd` in column i; after those a row of nothing else, one of ties, one of minus infinity but for a
        // class
        const Rows x(dtype, cols + 3, cols, 0, [&](int64_t i, int64_t j) {
          if (i == cols) return odd;
          if (i == cols + 1) return j % 2 ? 2.0 : -1.0;
          if (i == cols + 2) return j == cols - 1 ? -3.0 : -double(INFINITY);
          return i == j ? odd : numbers.normal();
        });
        check_confidence(kernels, x, {nullptr, nullptr}, shape("confidence", x, " with " + std::to_string(odd)));
      }
}

PYFASTCAL_TEST(confidence_of_any_scale) {
  for (const double scale : {1e-30, 1e-3, 100.0, 1e4, 1e8, 1e30})
    for (const double shift : {0.0, 1e3, -1e6}) {
      Numbers numbers(7);
      const Rows x(Dtype::kFloat, 6, 49, 0, [&](int64_t, int64_t) { return shift + scale * numbers.normal(); });
      check_confidence(kernels, x, {nullptr, nullptr},
                       shape("confidence", x, " " + std::to_string(scale) + " at " + std::to_string(shift)));
    }
}

static void check_nll(const Kernels& kernels, const Rows& x, const std::vector<int64_t>& labels, double beta,
                      const std::string& what) {
  const std::vector<double> got = outputs<double>(3, what, [&](double* out) {
    const Nll nll = kernels.nll(x, labels.data(), beta);
    out[0] = nll.value, out[1] = nll.slope, out[2] = nll.curvature;
  });
  double value = 0, slope = 0, curvature = 0, size = 0, wide = 0;
  const auto& scores = once(what, [&] {
    std::vector<Scores> rows;
    for (int64_t i = 0; i < x.rows; ++i) rows.push_back(scores_of(x, i, beta));
    return rows;
  });
  for (int64_t i = 0; i < x.rows; ++i) {
    const Scores& s = scores[size_t(i)];
    const int64_t label = labels[size_t(i)];
    const double y = label >= 0 && label < x.cols ? x.at(i, label) : NAN, top = x.at(i, s.top);
    if (!s.valid || !(y > -INFINITY)) value = NAN;
    value += s.log_sum + beta * (top - y);
    slope += s.mean - y;
    curvature += s.variance;
    size = std::max(size, std::fabs(top - y) + std::sqrt(s.variance));
    wide = std::max(wide, s.variance + (top - s.mean) * (top - s.mean));
  }
  const double n = double(x.rows), nan = value != value ? NAN : 0;
  EXPECT_CLOSE(got[0], value / n, 4e-6 * (1 + beta * size), what + ", value");
  EXPECT_CLOSE(got[1], slope / n + nan, 4e-6 * size + 1e-9, what + ", slope");
  EXPECT_CLOSE(got[2], curvature / n + nan, 2e-5 * wide + 1e-9, what + ", curvature");
}

PYFASTCAL_TEST(nll_of_every_width) {
  for (const Dtype dtype : kDtypes)
    for (const int64_t cols : kCols)
      for (const double beta : {0.02, 1.0, 30.0}) {
        Numbers numbers(uint64_t(cols) + 100);
        const int64_t rows = cols < 1000 ? 67 : 3;
        const Rows x(dtype, rows, cols, 1, [&](int64_t, int64_t) { return 3 * numbers.normal(); });
        std::vector<int64_t> labels;
        for (int64_t i = 0; i < rows; ++i) labels.push_back(int64_t(numbers.bits() % uint64_t(cols)));
        check_nll(kernels, x, labels, beta, shape("nll", x, " " + std::to_string(beta)));
      }
}

PYFASTCAL_TEST(nll_of_odd_rows) {
  for (const Dtype dtype : kDtypes)
    for (const double odd : {double(NAN), double(INFINITY), -double(INFINITY)})
      for (const int64_t at : {0, 7, 15, 16, 32}) {
        Numbers numbers(5);
        const Rows x(dtype, 4, 33, 0, [&](int64_t i, int64_t j) { return i == 2 && j == at ? odd : numbers.normal(); });
        const std::string what = shape("nll", x, " with " + std::to_string(odd) + " at " + std::to_string(at));
        check_nll(kernels, x, {0, 1, 3, 32}, 1.0, what);
        check_nll(kernels, x, {0, 1, at, 32}, 1.0, what + ", the label's");
        check_nll(kernels, x, {0, 1, 3, 33}, 1.0, what + ", a label too large");
        check_nll(kernels, x, {0, -1, 3, 2}, 1.0, what + ", a label too small");
      }
}

// Rows so long that they are taken in pieces, of 8192 logits: 5 and one of 7. Those masked, not finite or of any scale
// in some of them.
PYFASTCAL_TEST(rows_in_pieces) {
  constexpr int64_t kPiece = 8192, kLong = 5 * kPiece + 7, kKinds = 11;
  for (const Dtype dtype : kDtypes) {
    const Rows& x = *once(std::string("rows in pieces ") + name_of(dtype), [=] {
      Numbers numbers(11);
      return std::make_unique<Rows>(dtype, kKinds, kLong, 3, [&](int64_t i, int64_t j) -> double {
        const int64_t p = j / kPiece, at = j % kPiece;
        switch (i) {
          case 0: return 3 * numbers.normal();
          case 1: return 4 * int64_t(3 * numbers.normal() / 4);  // ties, of the maximum too
          case 2: return p == 1 || p == 5 ? -INFINITY : numbers.normal() - 3 * double(p);
          case 3: return j == kLong - 1 ? 2 : -INFINITY;
          case 4: return p == 3 && at == 64 ? NAN : p == 3 ? -INFINITY : numbers.normal();
          case 5: return p == 2 && at == 8191 ? INFINITY : numbers.normal();
          case 6: return -INFINITY;
          case 7: return p == 2 ? 1000 + numbers.normal() : -1000.0;  // other pieces vanish
          case 8: return 30000 * numbers.normal();
          case 9: return p == 4 && at == 5 ? NAN : p == 4 ? -60000.0 : numbers.normal();
          default: return 5e4 + 500 * numbers.normal();
        }
      });
    });
    Numbers numbers(12);
    std::vector<float> class_weight(size_t(kLong), 0), sample_weight(kKinds, 0);
    for (float& w : class_weight) w = float(0.5 + numbers.uniform());
    for (float& w : sample_weight) w = float(0.5 + numbers.uniform());
    check_confidence(kernels, x, {nullptr, nullptr}, shape("confidence", x));
    check_confidence(kernels, x, {nullptr, sample_weight.data()}, shape("confidence", x, " rows weighted"));
    check_confidence(kernels, x, {class_weight.data(), sample_weight.data()}, shape("confidence", x, " weighted"));
    std::vector<float> all(kKinds, 0), one(1, 0);
    std::vector<int64_t> prediction(kKinds, 0);
    kernels.confidence(x, {class_weight.data(), nullptr}, all.data(), prediction.data());
    for (int64_t i = 0; i < kKinds; ++i) {
      Matrix row = x;
      row.data = static_cast<const char*>(x.data) + i * x.stride * (dtype == Dtype::kFloat ? 4 : 2);
      row.rows = 1;
      kernels.confidence(row, {class_weight.data(), nullptr}, one.data(), prediction.data());
      EXPECT(std::memcmp(&one[0], &all[size_t(i)], 4) == 0, shape("confidence", x, " alone: other bits"));
      const double scale = dtype == Dtype::kFloat && i == 8 ? 1e4 : 1;  // so that no shift is a small number
      const int64_t label = i == 3 ? kLong - 1 : i == 2 ? 5 : i == 7 ? 2 * kPiece + 9 : 3 * kPiece + 100 + i;
      const double value = x.at(i, label);
      const Rows& alone = *once(name_of(dtype) + std::string(" row in pieces ") + std::to_string(i), [&] {
        return std::make_unique<Rows>(dtype, 1, kLong, 0, [&](int64_t, int64_t j) { return x.at(i, j) * scale; });
      });
      if (i != 4 || value > -INFINITY)
        check_nll(kernels, alone, {label}, 0.7, shape("nll", alone, ", kind " + std::to_string(i)));
    }
    const Rows plain(dtype, 3, kLong, 1, [&](int64_t i, int64_t j) { return x.at(i < 2 ? i : 10, j); });
    check_nll(kernels, plain, {1, kLong - 1, kPiece}, 1.5, shape("nll", plain));
    check_nll(kernels, plain, {1, kLong, kPiece}, 1.5, shape("nll", plain, ", a label too large"));
  }
}

}  // namespace pyfastcal::tests
