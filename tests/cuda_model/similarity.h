// What the tests of similarity share: a run of it, on either product, and the definition in fp64.
#pragma once
#include <numeric>

#include "cuda/product/similarity.cuh"
#include "features.h"

struct Options {
  bool normalize = true;
  pyfastcal::cuda::ProductChoice product = pyfastcal::cuda::ProductChoice::kAuto;
};

struct Result {
  DeviceArray<float> out;
  bool by_warpgroups;
};

inline Result run_either(const pyfastcal::Matrix& image, const pyfastcal::Matrix& text, const Options& o) {
  Result result{DeviceArray<float>(size_t(image.rows * text.rows)), false};
  pyfastcal::cuda::SimilarityPlan plan;
  const uint64_t loads = cuda_model::counters.matrix_loads, copies = cuda_model::counters.async_copies;
  CHECK(plan.make(image, text, o.product) == cudaSuccess);
  DeviceArray<char> workspace(size_t(plan.workspace_bytes()));
  CHECK(plan.launch(image, text, o.normalize, result.out.data(), workspace.data(), nullptr) == cudaSuccess);
  CHECK(cuda_model::counters.async_copies > copies);
  CHECK_EQUAL(cuda_model::counters.matrix_load_conflicts, 0u);
  result.by_warpgroups = cuda_model::counters.matrix_loads == loads;  // it alone does without them
  record(result.out);
  return result;
}

// On the product by warpgroups where that is asked for, on the other where nothing is.
inline DeviceArray<float> run(const pyfastcal::Matrix& image, const pyfastcal::Matrix& text, const Options& o = {}) {
  Result result = run_either(image, text, o);
  CHECK_EQUAL(result.by_warpgroups, o.product == pyfastcal::cuda::ProductChoice::kWgmma);
  return std::move(result.out);
}

// A similarity may be off by `error` times the product of the lengths, or nearly vanish with vectors that count as
// zero.
template <class T, class U>
void check_against_definition(const Features<T>& image, const Features<U>& text, const Options& o = {},
                              double error = 1e-6) {
  const DeviceArray<float> out = run(image.matrix(), text.matrix(), o);
  const std::vector<double> images = image.numbers(), texts = text.numbers();
  std::vector<double> norms;
  for (int64_t c = 0; c < text.rows; ++c) norms.push_back(text.norm(c));
  for (int64_t i = 0; i < image.rows; ++i) {
    const double norm = image.norm(i);
    for (int64_t c = 0; c < text.rows; ++c) {
      const double *const x = &images[size_t(i * image.cols)], *const y = &texts[size_t(c * text.cols)];
      const double length = o.normalize ? unit(norm) * unit(norms[size_t(c)]) : 1.0;
      CHECK_NEAR(out[size_t(i * text.rows + c)], std::inner_product(x, x + image.cols, y, 0.0) * length,
                 error * length * norm * norms[size_t(c)] + 1e-24, "row ", i, " of ", image.rows, ", class ", c, " of ",
                 text.rows, ", ", image.cols, " columns");
    }
  }
}

template <class T>
void check_sizes(int64_t n, int64_t c, int64_t d, const Options& o = {}, double error = 1e-6) {
  check_against_definition(Features<T>(n, d, 1), Features<T>(c, d, 2), o, error);
}
