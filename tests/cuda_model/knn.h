// Rows for the tests of knn, and knn against exact distances of all pairs, summed in the kernels' order: the same bits
// and the same indices.
#pragma once
#include <algorithm>

#include "cuda/product/knn.cuh"
#include "testing.h"

using namespace pyfastcal;
using namespace pyfastcal::cuda;

namespace {

// Rows in a dtype of their own, `padding` numbers (NaN) after each, the first `offset` numbers from a 256-byte
// boundary.
class Vectors {
 public:
  Vectors(int64_t rows, int64_t cols, std::vector<float> values, Dtype dtype = Dtype::kFloat, int64_t padding = 0,
          int64_t offset = 0)
      : rows_(rows),
        cols_(cols),
        stride_(cols + padding),
        dtype_(dtype),
        values_(std::move(values)),
        memory_((rows * stride_ - padding) * size(), offset * size()) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < cols; ++c) store(i, c);
  }
  static Vectors normal(int64_t rows, int64_t cols, uint32_t seed, Dtype dtype = Dtype::kFloat, float scale = 1) {
    return {rows, cols, testing::random_normal(rows * cols, seed, scale), dtype};
  }

  Matrix matrix() const { return {memory_.data(), dtype_, rows_, cols_, stride_}; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const float* row(int64_t i) const { return values_.data() + i * cols_; }
  void set_row(int64_t i, const std::function<float(int64_t)>& f) {
    for (int64_t c = 0; c < cols_; ++c) {
      values_[i * cols_ + c] = f(c);
      store(i, c);
    }
  }

 private:
  size_t size() const { return dtype_ == Dtype::kFloat ? 4 : 2; }
  void store(int64_t i, int64_t c) {
    float& x = values_[i * cols_ + c];
    const auto put = [&](auto as_stored) {
      x = float(as_stored);
      std::memcpy(memory_.data() + (i * stride_ + c) * sizeof as_stored, &as_stored, sizeof as_stored);
    };
    if (dtype_ == Dtype::kFloat) put(x);
    if (dtype_ == Dtype::kHalf) put(__half(x));
    if (dtype_ == Dtype::kBFloat16) put(__nv_bfloat16(x));
  }

  int64_t rows_, cols_, stride_;
  Dtype dtype_;
  std::vector<float> values_;  // as stored
  DeviceArray<unsigned char> memory_;
};

template <class F>
double sum_in_lanes(int64_t n, const F& term) {
  double lane[16] = {};
  for (int64_t i = 0; i < n; ++i) {
    const double x = term(i);
    lane[i % 16] = std::fma(x, x, lane[i % 16]);
  }
  for (int half = 8; half; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  return lane[0];
}

double scale_of(const float* row, int64_t n, bool normalize) {
  if (!normalize) return 1;
  const double norm = std::sqrt(sum_in_lanes(n, [=](int64_t i) { return double(row[i]); }));
  return 1 / (norm > 1e-12 ? norm : norm >= 0 ? 1e-12 : norm);
}

struct Options {
  bool exclude_self = false, normalize = true;
  bool by_warpgroups = false;
  int64_t list_bytes = int64_t(1) << 29;
  unsigned char workspace = 0xff;  // of which bytes it is full before: NaN
};

void check(const Vectors& queries, const Vectors& bank, int64_t k, Options options = {}) {
  const int64_t n = queries.rows(), m = bank.rows(), d = bank.cols();
  DeviceArray<float> distances(n * k);
  DeviceArray<int64_t> indices(n * k);
  knn::Plan plan;
  CHECK(plan_knn(queries.matrix(), bank.matrix(), k, options.exclude_self, plan,
                 options.by_warpgroups ? ProductChoice::kWgmma : ProductChoice::kMma,
                 options.list_bytes) == cudaSuccess);
  CHECK_EQUAL(plan.by_warpgroups, options.by_warpgroups);
  DeviceArray<unsigned char> workspace(plan.bytes);
  std::memset(workspace.data(), options.workspace, workspace.size());
  CHECK(launch_knn(queries.matrix(), bank.matrix(), options.exclude_self, options.normalize, distances.data(),
                   indices.data(), plan, workspace.data(), nullptr) == cudaSuccess);
  record(distances);
  record(indices);
  std::vector<double> bank_scale(m);
  for (int64_t j = 0; j < m; ++j) bank_scale[j] = scale_of(bank.row(j), d, options.normalize);
  for (int64_t q = 0; q < n; ++q) {
    const double scale = scale_of(queries.row(q), d, options.normalize);
    std::vector<Neighbour> expected;
    bool finite = true;
    for (int64_t j = 0; j < m; ++j) {
      if (options.exclude_self && j == q) continue;
      const double square =
          sum_in_lanes(d, [&](int64_t i) { return bank.row(j)[i] * bank_scale[j] - queries.row(q)[i] * scale; });
      finite &= square < double(kInfinity);
      expected.push_back({square, j});
    }
    if (finite) std::sort(expected.begin(), expected.end(), nearer);
    for (int64_t i = 0; i < k; ++i) {
      const float distance = distances[q * k + i];
      CHECK_EQUAL(indices[q * k + i], finite ? expected[i].index : 0, "query ", q, ", neighbour ", i);
      if (finite) {
        CHECK_EQUAL(distance, float(std::sqrt(expected[i].distance)), "query ", q, ", neighbour ", i);
      } else {
        CHECK(std::isnan(distance));
      }
    }
  }
}

// Rows close to one point: with more decimals than a 16-bit copy keeps, so that the filter sees many of them as one.
std::vector<float> cluster(int64_t rows, int64_t cols, float spread, uint32_t seed) {
  const std::vector<float> centre = testing::random_normal(cols, 1), noise = testing::random_normal(rows * cols, seed);
  std::vector<float> out(rows * cols);
  for (int64_t i = 0; i < rows * cols; ++i) out[i] = centre[i % cols] + spread * noise[i];
  return out;
}

constexpr Dtype kDtypes[] = {Dtype::kFloat, Dtype::kHalf, Dtype::kBFloat16};

}  // namespace
