// similarity, similarity_confidence and contrast_distance against plain loops in double.
#include <algorithm>

#include "inputs.h"

namespace pyfastcal::tests {

using Table = std::vector<std::vector<double>>;

// The rows, each divided by its length where `normalize`; a length below 1e-12 counts as that.
static Table normalized(const Rows& x, bool normalize) {
  Table out(size_t(x.rows), std::vector<double>(size_t(x.cols)));
  for (int64_t i = 0; i < x.rows; ++i) {
    double square = 0;
    for (int64_t k = 0; k < x.cols; ++k) square += x.at(i, k) * x.at(i, k);
    const double length = normalize ? std::max(std::sqrt(square), 1e-12) : 1;
    for (int64_t k = 0; k < x.cols; ++k) out[size_t(i)][size_t(k)] = x.at(i, k) / length;
  }
  return out;
}

static Table products(const Table& a, const Table& b) {
  Table out(a.size(), std::vector<double>(b.size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < b.size(); ++j)
      for (size_t k = 0; k < a[i].size(); ++k) out[i][j] += a[i][k] * b[j][k];
  return out;
}

// What a product of d terms of length 1 each may be off by: twelve roundings and the chain's, u a term, with luck.
static double product_error(int64_t d) { return 0x1p-24 * (12 + double(d)); }

static double scale_of(int64_t i) { return i % 5 == 4 ? 0.0 : i % 7 == 3 ? 1e-18 : i % 7 == 5 ? 1e19 : 1.0; }

struct Size {
  int64_t images, classes, depth;
};
// around tiles of 6 and 12 rows, panels of 16 and 32 columns
static constexpr Size kSizes[] = {{0, 3, 4},    {1, 1, 1},    {1, 2, 3},     {5, 15, 7},   {6, 16, 16}, {7, 17, 33},
                                  {12, 31, 64}, {13, 32, 65}, {25, 33, 100}, {50, 70, 40}, {70, 3, 40}};

static Rows features(Dtype dtype, int64_t n, int64_t d, uint64_t seed, bool odd, int64_t gap) {
  Numbers numbers(seed);
  return Rows(dtype, n, d, gap, [&](int64_t i, int64_t) {
    // fp16 holds neither the smallest nor the largest scale
    return numbers.normal() / std::sqrt(double(d)) * (odd && dtype != Dtype::kHalf ? scale_of(i) : 1.0);
  });
}

template <class F>
static void each_case(const F& f) {
  for (const Dtype dtype : kDtypes)
    for (const Size& size : kSizes)
      for (const bool normalize : {false, true}) {
        const Rows image = features(dtype, size.images, size.depth, 3, normalize, 2),
                   text = features(dtype, size.classes, size.depth, 4, normalize, 0);
        f(image, text, normalize, std::to_string(size.classes) + (normalize ? " normalized" : ""));
      }
}

static double largest_length(const Table& x) {
  double largest = 0;
  for (const auto& row : x) {
    double square = 0;
    for (const double value : row) square += value * value;
    largest = std::max(largest, std::sqrt(square));
  }
  return largest;
}

PYFASTCAL_TEST(similarities) {
  each_case([&](const Rows& image, const Rows& text, bool normalize, const std::string& rest) {
    const std::string what = shape("similarity", image, " with " + rest);
    const std::vector<float> got = outputs<float>(image.rows * text.rows, what,
                                                  [&](float* out) { kernels.similarity(image, text, normalize, out); });
    const Table a = normalized(image, normalize), b = normalized(text, normalize), want = products(a, b);
    const double tolerance = product_error(image.cols) * largest_length(a) * largest_length(b);
    for (int64_t i = 0; i < image.rows; ++i)
      for (int64_t j = 0; j < text.rows; ++j)
        EXPECT_CLOSE(got[size_t(i * text.rows + j)], want[size_t(i)][size_t(j)], tolerance,
                     what + " at " + std::to_string(i) + ", " + std::to_string(j));
  });
}

PYFASTCAL_TEST(similarity_confidences) {
  each_case([&](const Rows& image, const Rows& text, bool normalize, const std::string& rest) {
    const Table a = normalized(image, normalize), b = normalized(text, normalize), cosine = products(a, b);
    Numbers numbers(9);
    std::vector<float> bias, class_weight, sample_weight;
    for (int64_t j = 0; j < text.rows; ++j) {
      bias.push_back(float(numbers.normal()));
      class_weight.push_back(float(0.5 + numbers.uniform()));
    }
    for (int64_t i = 0; i < image.rows; ++i) sample_weight.push_back(float(0.5 + numbers.uniform()));
    for (const bool weighted : {false, true}) {
      const float scale = 20;
      const std::string what =
          shape("similarity_confidence", image, " with " + rest + (weighted ? ", weights and bias" : ""));
      const Factors factors{weighted ? class_weight.data() : nullptr, weighted ? sample_weight.data() : nullptr};
      std::vector<int64_t> prediction(size_t(image.rows));
      const std::vector<float> got = outputs<float>(image.rows, what, [&](float* out) {
        kernels.similarity_confidence(image, text, scale, weighted ? bias.data() : nullptr, factors, normalize, out,
                                      prediction.data());
      });
      const double error = scale * product_error(image.cols) * largest_length(a) * largest_length(b) + 1e-6;
      for (size_t i = 0; i < a.size(); ++i) {
        std::vector<double> logit;
        for (size_t j = 0; j < b.size(); ++j) logit.push_back(scale * cosine[i][j] + (weighted ? bias[j] : 0));
        const std::string row = what + ", row " + std::to_string(i);
        const size_t top = size_t(prediction[i]);
        EXPECT(top < b.size(), row + ": a class");
        if (top >= b.size()) continue;
        const double most = *std::max_element(logit.begin(), logit.end());
        EXPECT(logit[top] >= most - 2 * error, row + ": the largest logit's class");
        const double factor = weighted ? double(class_weight[top]) * sample_weight[i] : 1.0;
        double sum = 0;
        for (const double one : logit) sum += std::exp(factor * (one - logit[top]));
        EXPECT_CLOSE(got[i], 1 / sum, 4e-6 + 2 * factor * error, row);
      }
    }
  });
}

// Alone, among few that share out the classes, or in a block of many: a row gives the same bits.
PYFASTCAL_TEST(rows_do_not_hang_on_their_batch) {
  for (const Dtype dtype : kDtypes)
    for (const int which : {0, 1, 2, 3}) {
      const bool normalize = which % 2;
      const int64_t classes = which < 2 ? 5 : 37;                 // as rows, and packed
      const int64_t depth = which == 1 || which == 2 ? 40 : 300;  // fewer and more than chains.h puts in order at once
      const Rows image = features(dtype, 77, depth, 3, normalize, 1),
                 text = features(dtype, classes, depth, 4, normalize, 0),
                 text0 = features(dtype, classes, depth, 5, normalize, 2);
      const auto results = [&](int64_t first, int64_t n) {
        Matrix part = image;
        part.data = static_cast<const char*>(image.data) + first * image.stride * (dtype == Dtype::kFloat ? 4 : 2);
        part.rows = n;
        std::vector<float> confidence(static_cast<size_t>(n)), out(size_t(n * text.rows));
        std::vector<int64_t> prediction(static_cast<size_t>(n));
        kernels.similarity(part, text, normalize, out.data());
        kernels.similarity_confidence(part, text, 20, nullptr, {}, normalize, confidence.data(), prediction.data());
        for (int64_t i = 0; i < n; ++i) out.insert(out.begin() + i * (text.rows + 1), confidence[size_t(i)]);
        for (const bool probability : {false, true}) {
          const size_t width = out.size() / size_t(n);
          kernels.contrast_distance(part, text, part, text0, probability, 20, normalize, confidence.data());
          for (size_t i = 0; i < size_t(n); ++i) out.insert(out.begin() + int64_t(i * (width + 1)), confidence[i]);
        }
        return out;
      };
      const std::vector<float> all = results(0, image.rows);
      for (const int64_t n : {1, 2, 5, 6, 13, 64})
        for (const int64_t first : {int64_t(0), int64_t(7), image.rows - n}) {
          const std::vector<float> some = results(first, n);
          EXPECT(std::memcmp(some.data(), &all[size_t(first * (text.rows + 3))], 4 * some.size()) == 0,
                 shape("rows", image, normalize ? " normalized, " : ", ") + std::to_string(n) + " of them from " +
                     std::to_string(first));
        }
    }
}

PYFASTCAL_TEST(similarity_confidence_is_nan_where_a_feature_is_not_finite) {
  for (const double odd : {double(NAN), double(INFINITY)})
    for (const int64_t at : {0, 15, 32}) {
      const auto value = [&](int64_t i, int64_t k) { return i == 1 && k == at ? odd : 0.1 * double((i + k) % 5 - 2); };
      const Rows image(Dtype::kFloat, 3, 33, 0, value),
          text(Dtype::kFloat, 17, 33, 0, [](int64_t i, int64_t k) { return 0.1 * double((3 * i + k) % 7 - 3); });
      float confidence[3];
      int64_t prediction[3];
      kernels.similarity_confidence(image, text, 10.0f, nullptr, {nullptr, nullptr}, true, confidence, prediction);
      EXPECT(std::isnan(confidence[1]) && confidence[0] > 0 && confidence[2] > 0, "NaN for that image alone");
    }
}

static void softmax(Table& table, double scale) {
  for (auto& row : table) {
    const double top = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (const double x : row) sum += std::exp(scale * (x - top));
    for (double& x : row) x = std::exp(scale * (x - top)) / sum;
  }
}

PYFASTCAL_TEST(contrasts) {
  each_case([&](const Rows& image, const Rows& text, bool normalize, const std::string& rest) {
    const Rows image0 = features(image.dtype, image.rows, image.cols, 5, normalize, 1),
               text0 = features(image.dtype, text.rows, image.cols, 6, normalize, 0);
    for (const Rows* zeroshot : {&image, &image0})
      for (const bool probability : {false, true}) {
        const float scale = 15;
        const std::string what = shape("contrast", image, " with " + rest) + (probability ? ", probabilities" : "") +
                                 (zeroshot == &image ? ", same images" : "");
        const std::vector<float> got = outputs<float>(image.rows, what, [&](float* out) {
          kernels.contrast_distance(image, text, *zeroshot, text0, probability, scale, normalize, out);
        });
        const Table a = normalized(image, normalize), b = normalized(text, normalize),
                    a0 = normalized(*zeroshot, normalize), b0 = normalized(text0, normalize);
        double error = product_error(image.cols) *
                       (largest_length(a) * largest_length(b) + largest_length(a0) * largest_length(b0));
        if (probability) error = 4e-6 + 2 * scale * error;
        const std::vector<double>& want = once(what, [&] {
          Table tuned = products(a, b), before = products(a0, b0);
          if (probability) softmax(tuned, scale), softmax(before, scale);
          std::vector<double> z;
          for (size_t i = 0; i < a.size(); ++i) {
            double sum = 0;
            for (size_t j = 0; j < b.size(); ++j) sum += std::fabs(tuned[i][j] - before[i][j]);
            z.push_back(sum / double(b.size()));
          }
          return z;
        });
        for (size_t i = 0; i < a.size(); ++i) EXPECT_CLOSE(got[i], want[i], error, what + ", row " + std::to_string(i));
      }
  });
}

}  // namespace pyfastcal::tests
