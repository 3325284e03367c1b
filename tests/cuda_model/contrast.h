// What the tests of contrast share: a run of it, on either product, and the definition in fp64.
#pragma once
#include <numeric>

#include "cuda/product/contrast.cuh"
#include "features.h"

struct Options {
  bool probability = false;
  float logit_scale = 20;
  bool normalize = true;
  pyfastcal::cuda::ProductChoice product = pyfastcal::cuda::ProductChoice::kAuto;
};
inline constexpr Options kSimilarity{}, kProbability{true};

struct Result {
  DeviceArray<float> z;
  bool by_warpgroups;
};

inline Result run_either(const pyfastcal::Matrix& image, const pyfastcal::Matrix& text, const pyfastcal::Matrix& image0,
                         const pyfastcal::Matrix& text0, const Options& o) {
  Result out{DeviceArray<float>(size_t(image.rows)), false};
  const pyfastcal::cuda::Contrast arguments{image, text, image0, text0, o.probability, o.logit_scale, o.normalize};
  pyfastcal::cuda::ContrastPlan plan;
  const uint64_t loads = cuda_model::counters.matrix_loads, copies = cuda_model::counters.async_copies;
  CHECK(plan.make(arguments, o.product) == cudaSuccess);
  DeviceArray<char> workspace(size_t(plan.workspace_bytes()));
  CHECK(plan.launch(arguments, out.z.data(), workspace.data(), nullptr) == cudaSuccess);
  CHECK(cuda_model::counters.async_copies > copies);
  CHECK_EQUAL(cuda_model::counters.matrix_load_conflicts, 0u);
  out.by_warpgroups = cuda_model::counters.matrix_loads == loads;  // it alone does without them
  record(out.z);
  return out;
}

// On the product by warpgroups where that is asked for, on the other where nothing is.
inline DeviceArray<float> run(const pyfastcal::Matrix& image, const pyfastcal::Matrix& text,
                              const pyfastcal::Matrix& image0, const pyfastcal::Matrix& text0, const Options& o) {
  Result out = run_either(image, text, image0, text0, o);
  CHECK_EQUAL(out.by_warpgroups, o.product == pyfastcal::cuda::ProductChoice::kWgmma);
  return std::move(out.z);
}

// Of all rows, one after the other.
template <class T, class U>
std::vector<double> scores(const Features<T>& image, const Features<U>& text, const Options& o) {
  const std::vector<double> images = image.numbers(), texts = text.numbers();
  std::vector<double> of_text, all;
  for (int64_t c = 0; c < text.rows; ++c) of_text.push_back(o.normalize ? unit(text.norm(c)) : 1.0);
  for (int64_t i = 0; i < image.rows; ++i) {
    const double of_image = o.normalize ? unit(image.norm(i)) : 1.0;
    std::vector<double> out;
    for (int64_t c = 0; c < text.rows; ++c) {
      const double *const x = &images[size_t(i * image.cols)], *const y = &texts[size_t(c * text.cols)];
      out.push_back(std::inner_product(x, x + image.cols, y, 0.0) * of_image * of_text[size_t(c)]);
    }
    if (o.probability) {
      const double largest = *std::max_element(out.begin(), out.end());
      double sum = 0;
      for (double& x : out) sum += x = std::exp(double(o.logit_scale) * (x - largest));
      for (double& x : out) x /= sum;
    }
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

// Scores may be off by `error` times the largest similarity, the logit scale times as much in a probability's exponent.
template <class T, class U, class V, class W>
void check_against_definition(const Features<T>& image, const Features<U>& text, const Features<V>& image0,
                              const Features<W>& text0, const Options& o, double error = 1e-6) {
  const DeviceArray<float> z = run(image.matrix(), text.matrix(), image0.matrix(), text0.matrix(), o);
  const std::vector<double> p = scores(image, text, o), p0 = scores(image0, text0, o);
  const size_t classes = size_t(text.rows);
  for (size_t i = 0; i < size_t(image.rows); ++i) {
    double sum = 0, largest = 0, mean = 0;
    for (size_t j = i * classes; j < (i + 1) * classes; ++j) {
      sum += std::fabs(p[j] - p0[j]);
      largest = std::max({largest, std::fabs(p[j]), std::fabs(p0[j])});
      mean += (std::fabs(p[j]) + std::fabs(p0[j])) / double(classes);
    }
    const double exact = sum / double(classes);
    const double allowed = o.probability ? mean * error * double(o.logit_scale) : 2 * largest * error;
    CHECK_NEAR(z[i], exact, allowed + 1e-6 * exact, "row ", i, " of ", image.rows, ", ", text.rows, " classes, ",
               image.cols, " and ", image0.cols, " columns");
  }
}

template <class T>
void check_sizes(int64_t n, int64_t c, int64_t d, int64_t d0, const Options& o, double error = 1e-6) {
  check_against_definition(Features<T>(n, d, 1), Features<T>(c, d, 2), Features<T>(n, d0, 3), Features<T>(c, d0, 4), o,
                           error);
}
