// What the tests of similarity_confidence share: a run of it, on either product, and the definition in fp64.
#pragma once
#include "cuda/product/similarity_confidence.cuh"
#include "features.h"

struct Options {
  float logit_scale = 20;
  const float* bias = nullptr;
  pyfastcal::Factors factors{};
  bool normalize = true;
  pyfastcal::cuda::ProductChoice product = pyfastcal::cuda::ProductChoice::kAuto;
};

struct Result {
  DeviceArray<float> confidence;
  DeviceArray<int64_t> prediction;
  bool by_warpgroups;
};

inline Result run_either(const pyfastcal::Matrix& image, const pyfastcal::Matrix& text, const Options& options) {
  Result out{DeviceArray<float>(size_t(image.rows)), DeviceArray<int64_t>(size_t(image.rows)), false};
  const pyfastcal::cuda::SimilarityConfidence arguments{
      image, text, options.logit_scale, options.bias, options.factors, options.normalize};
  pyfastcal::cuda::SimilarityConfidencePlan plan;
  const uint64_t loads = cuda_model::counters.matrix_loads, copies = cuda_model::counters.async_copies;
  CHECK(plan.make(arguments, options.product) == cudaSuccess);
  DeviceArray<char> workspace(size_t(plan.workspace_bytes()));
  CHECK(plan.launch(arguments, out.confidence.data(), out.prediction.data(), workspace.data(), nullptr) == cudaSuccess);
  CHECK(cuda_model::counters.async_copies > copies);
  CHECK_EQUAL(cuda_model::counters.matrix_load_conflicts, 0u);
  out.by_warpgroups = cuda_model::counters.matrix_loads == loads;  // it alone does without them
  record(out.confidence);
  record(out.prediction);
  return out;
}

// On the product by warpgroups where that is asked for, on the other where nothing is.
inline Result run(const pyfastcal::Matrix& image, const pyfastcal::Matrix& text, const Options& options) {
  Result out = run_either(image, text, options);
  CHECK_EQUAL(out.by_warpgroups, options.product == pyfastcal::cuda::ProductChoice::kWgmma);
  return out;
}

// A logit may be off by `error` times the largest one; where two are nearer than that, either may be the prediction.
template <class T, class U>
Result check_against_definition(const Features<T>& image, const Features<U>& text, const Options& o,
                                double error = 1e-6) {
  Result result = run(image.matrix(), text.matrix(), o);
  const std::vector<double> images = image.numbers(), texts = text.numbers();
  std::vector<double> of_text;
  for (int64_t c = 0; c < text.rows; ++c) of_text.push_back(o.normalize ? unit(text.norm(c)) : 1.0);
  for (int64_t i = 0; i < image.rows; ++i) {
    const double of_image = o.normalize ? unit(image.norm(i)) : 1.0;
    std::vector<double> logits;
    double largest = 0;
    for (int64_t c = 0; c < text.rows; ++c) {
      const double *const x = &images[size_t(i * image.cols)], *const y = &texts[size_t(c * text.cols)];
      double dot = 0;
      for (int64_t k = 0; k < image.cols; ++k) dot += x[k] * y[k];
      logits.push_back(dot * of_image * of_text[size_t(c)] * double(o.logit_scale) + (o.bias ? double(o.bias[c]) : 0));
      if (std::isfinite(logits.back())) largest = std::max(largest, std::fabs(logits.back()));
    }
    const size_t best = size_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
    const size_t predicted = size_t(result.prediction[size_t(i)]);
    CHECK(predicted < logits.size());
    CHECK_NEAR(logits[predicted], logits[best], 2 * error * largest, "row ", i, ", class ", predicted, " not ", best);
    const double factor = (o.factors.class_weight ? double(o.factors.class_weight[predicted]) : 1.0) *
                          (o.factors.sample_weight ? double(o.factors.sample_weight[i]) : 1.0);
    double sum = 0;
    for (const double x : logits) sum += std::exp(factor * (x - logits[predicted]));
    // the sum of two logits' errors moves a confidence p by at most p (1 - p); the rest is of the exponentials
    const double p = 1 / sum, allowed = p * (1e-6 + 2 * (1 - p) * factor * error * largest);
    CHECK_NEAR(result.confidence[size_t(i)], p, allowed, "row ", i, " of ", image.rows, ", ", text.rows, " classes, ",
               image.cols, " columns");
  }
  return result;
}

// Class weights of `distinct` values, in no order.
inline DeviceArray<float> some_weights(int64_t classes, int distinct) {
  DeviceArray<float> weights(static_cast<size_t>(classes));
  for (size_t c = 0; c < weights.size(); ++c) weights[c] = 0.75f + 0.125f * float((c * 7 + 3) % size_t(distinct));
  return weights;
}

// A number that is not finite, in the last of the images or in a class, makes NaN of what it touches and of nothing
// else.
template <class T>
void check_not_finite(float bad, Features<T>&& image, Features<T>&& text, const Options& options) {
  const size_t last = size_t(image.rows - 1);
  const Result good = run(image.matrix(), text.matrix(), options);
  T &of_image = image.row(image.rows - 1)[3], &of_text = text.row(text.rows - 4)[text.cols - 1];
  const T was = std::exchange(of_image, T(bad));
  const Result of_row = run(image.matrix(), text.matrix(), options);
  of_image = was;
  for (size_t i = 0; i <= last; ++i) {
    CHECK_EQUAL(std::isnan(of_row.confidence[i]), i == last, i);
    CHECK(of_row.prediction[i] >= 0 && of_row.prediction[i] < text.rows);
    if (i < last) CHECK_EQUAL(of_row.confidence[i], good.confidence[i]);
  }
  of_text = T(bad);
  const Result of_class = run(image.matrix(), text.matrix(), options);
  for (size_t i = 0; i <= last; ++i) CHECK(std::isnan(of_class.confidence[i]));
}

// Images `first` to first + n of `image`, somewhere else in memory, give the bits that they gave in `whole`.
template <class T>
void check_same_rows(const Result& whole, const Features<T>& image, std::array<int, 4> first_n_offset_padding,
                     const pyfastcal::Matrix& text, const Options& options) {
  const auto [first, n, offset, padding] = first_n_offset_padding;
  Features<T> part(n, image.cols, 9, offset, padding);
  for (int64_t i = 0; i < n; ++i) std::copy_n(image.data.data() + (first + i) * image.stride, image.cols, part.row(i));
  Options of_part = options;
  if (options.factors.sample_weight) of_part.factors.sample_weight += first;
  const Result result = run(part.matrix(), text, of_part);
  for (size_t i = 0; i < size_t(n); ++i) {
    CHECK_EQUAL(result.confidence[i], whole.confidence[size_t(first) + i], i);
    CHECK_EQUAL(result.prediction[i], whole.prediction[size_t(first) + i], i);
  }
}

// A scale times the inverse length of a row that fp32 just holds: of zeros, and of the shortest that count.
inline void check_the_largest_scale(int64_t cols, pyfastcal::cuda::ProductChoice product) {
  Features<__nv_bfloat16> image(5, cols, 1);
  const Features<__nv_bfloat16> text(70, cols, 2);
  image.scale(0, 0);
  const DeviceArray<float> bias(testing::random_normal(70, 3)), weights = some_weights(70, 5);
  for (const float* const b : {static_cast<const float*>(nullptr), bias.data()})
    for (const float* const class_weight : {static_cast<const float*>(nullptr), weights.data()}) {
      const Result result = run(image.matrix(), text.matrix(), {1e20f, b, {class_weight, nullptr}, true, product});
      for (const float confidence : result.confidence) CHECK(confidence > 0 && confidence <= 1);
      if (!b) CHECK_NEAR(result.confidence[0], 1.0 / 70, 1e-8);
      CHECK_NEAR(result.confidence[1], 1, 1e-6);
    }
}
