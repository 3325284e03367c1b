// nll: against the definition in fp64, at every border of the dispatch, in every layout.
#include <sys/mman.h>

#include <limits>

#include "cuda/rows/nll.cuh"
#include "dtypes.h"
#include "testing.h"

using namespace pyfastcal;

static constexpr float kInf = std::numeric_limits<float>::infinity();
static constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

template <class T>
static DeviceArray<double> run(const T* logits, const DeviceArray<int64_t>& labels, int64_t cols, int64_t stride,
                               double beta) {
  DeviceArray<double> out(3);
  const Matrix matrix{logits, kDtype<T>, int64_t(labels.size()), cols, stride};
  DeviceArray<unsigned char> workspace{size_t(cuda::nll_workspace(matrix))};
  const uint64_t before = cuda_model::counters.launches;
  CHECK(cuda::launch_nll(matrix, labels.data(), beta, out.data(), workspace.data(), nullptr) == cudaSuccess);
  CHECK_EQUAL(cuda_model::counters.launches - before, 2u);
  record(out);
  return out;
}

static DeviceArray<int64_t> random_labels(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 generator(seed);
  DeviceArray<int64_t> labels{size_t(rows)};
  for (int64_t& y : labels) y = int64_t(generator() % uint64_t(cols));
  return labels;
}

// Value and derivatives, in nats; size: of the logits' differences.
struct Exact {
  double value = 0, slope = 0, curvature = 0, size = 0;
};
template <class T>
static Exact exact_nll(const T* logits, const DeviceArray<int64_t>& labels, int64_t cols, int64_t stride, double beta) {
  Exact out;
  for (size_t i = 0; i < labels.size(); ++i) {
    std::vector<double> x;
    for (int64_t c = 0; c < cols; ++c) x.push_back(double(float(logits[int64_t(i) * stride + c])));
    const double top = *std::max_element(x.begin(), x.end());
    const double label = x[size_t(labels[i])];
    double sum = 0, mean = 0, variance = 0;
    for (const double v : x) sum += std::exp(beta * (v - top));
    std::erase(x, -std::numeric_limits<double>::infinity());  // masked classes
    for (const double v : x) mean += std::exp(beta * (v - top)) / sum * (v - top);
    for (const double v : x) variance += std::exp(beta * (v - top)) / sum * (v - top - mean) * (v - top - mean);
    out.value += std::log(sum) - beta * (label - top);
    out.slope += mean - (label - top);
    out.curvature += variance;
    out.size = std::max(out.size, top - *std::min_element(x.begin(), x.end()));
  }
  const double n = double(labels.size());
  return {out.value / n, out.slope / n, out.curvature / n, out.size};
}

template <class T>
static void check(const T* logits, const DeviceArray<int64_t>& labels, int64_t cols, int64_t stride, double beta,
                  const DeviceArray<double>& out) {
  const Exact exact = exact_nll(logits, labels, cols, stride, beta);
  // p |t| and p t^2 are numbers near 1 whatever the logits are: what is made of them has the scale 1 / beta
  const double scale = std::min(exact.size, 4 / beta);
  CHECK_NEAR(out[0], exact.value, 5e-7 * (1 + std::fabs(exact.value)), cols, " columns");
  CHECK_NEAR(out[1], exact.slope, 1e-6 * scale + 1e-7 * std::fabs(exact.slope), cols, " columns");
  CHECK_NEAR(out[2], exact.curvature, 3e-6 * (scale * scale + exact.curvature), cols, " columns");
}

static constexpr int64_t kColumns[] = {1,   2,   3,   5,   8,    9,    31,   33,   64,   100,  127,  128,
                                       129, 131, 136, 257, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 2056};

template <class T>
static void check_columns(uint32_t seed) {
  for (const int64_t cols : kColumns) {
    const int64_t rows = cols > 1024 ? 3 : cols > 128 ? 6 : 35;  // the last block is not full
    const DeviceArray<T> logits(testing::random_normal(size_t(rows * cols), seed + uint32_t(cols), 3));
    const DeviceArray<int64_t> labels = random_labels(rows, cols, seed);
    for (const double beta : {0.05, 1.3})
      check(logits.data(), labels, cols, cols, beta, run(logits.data(), labels, cols, cols, beta));
  }
}

TEST(nll_float) { check_columns<float>(1); }
TEST(nll_half) { check_columns<__half>(2); }
TEST(nll_bfloat16) { check_columns<__nv_bfloat16>(3); }

TEST(nll_of_long_rows) {
  for (const int64_t cols : {4101, 8199, 20000}) {
    const DeviceArray<__half> logits(testing::random_normal(size_t(2 * cols), 4, 2));
    const DeviceArray<int64_t> labels = random_labels(2, cols, 4);
    check(logits.data(), labels, cols, cols, 0.7, run(logits.data(), labels, cols, cols, 0.7));
  }
}

// Parts of several steps, and a last one that is not full; launched by hand, because so many rows would take minutes.
TEST(nll_of_parts_of_several_steps) {
  const int64_t rows = 2 * 48 + 21, cols = 2;
  const DeviceArray<float> logits(testing::random_normal(size_t(rows * cols), 5, 3));
  const DeviceArray<int64_t> labels = random_labels(rows, cols, 5);
  DeviceArray<NllTotals> parts(3);
  const float beta2 = float(1.4426950408889634);
  const cuda::NllArguments<float> a{logits.data(), labels.data(), rows, cols, 48, uint32_t(cols), beta2, parts.data()};
  CHECK((cuda::launch_nll_rows<false>(a, 3, nullptr)) == cudaSuccess);
  DeviceArray<double> out(3);
  CHECK(PYFASTCAL_LAUNCH(cuda::sum_nll, dim3(1), dim3(cuda::kSumThreads), 0, nullptr, parts.data(), int64_t(3), rows,
                         1.0, beta2, out.data()) == cudaSuccess);
  record(out);
  check(logits.data(), labels, cols, cols, 1, out);
}

TEST(nll_adds_all_parts) {
  const int64_t n = 2 * cuda::kSumThreads + 7;
  DeviceArray<NllTotals> parts{size_t(n)};
  for (int64_t i = 0; i < n; ++i) parts[size_t(i)] = {double(i + 1), double(2 * i), double(3 * i)};
  DeviceArray<double> out(3);
  CHECK(PYFASTCAL_LAUNCH(cuda::sum_nll, dim3(1), dim3(cuda::kSumThreads), 0, nullptr, parts.data(), n, int64_t(1),
                         1 / 1.4426950408889634 * 0.5, 0.5f, out.data()) == cudaSuccess);
  const double bit = 0.6931471805599453, sum = double(n) * double(n - 1) / 2, used = 0.5 * bit;
  CHECK_NEAR(out[0] / ((sum + double(n)) * bit), 1, 1e-7);
  CHECK_NEAR(out[1] / (2 * sum * bit / used), 1, 1e-7);
  CHECK_NEAR(out[2] / (3 * sum * bit * bit / used / used), 1, 1e-7);
}

// So many rows to a group that the product of their sums, 2^1050, would overflow: logarithms are taken in between.
TEST(nll_takes_logarithms_before_the_product_overflows) {
  for (const int64_t rows : {16 * 150, 5}) {
    cuda::NllArguments<float> a{};
    const DeviceArray<float> zeros(std::vector<float>(size_t(rows * 128), 0.0f));
    const DeviceArray<int64_t> labels = random_labels(rows, 128, 6);
    DeviceArray<NllTotals> part(1);
    a = {zeros.data(), labels.data(), rows, 128, rows, 128, 1.0f, part.data()};
    CHECK((cuda::launch_short_nll<128, cuda::Lanes<8>, true>(a, 1, nullptr)) == cudaSuccess);
    CHECK_NEAR(part[0].value, 7.0 * double(rows), 1e-6);
  }
}

TEST(nll_parts_follow_from_the_shape) {
  CHECK_EQUAL(cuda::NllParts(2048 * 16 + 1, 128).rows_per_part, 32);
  CHECK_EQUAL(cuda::NllParts(2048 * 16 + 1, 129).rows_per_part, 32);
  CHECK_EQUAL(cuda::NllParts(256, 1000).count, 64);
  CHECK_EQUAL(cuda::NllParts(256, 5000).count, 256);
  for (const int64_t cols : {1, 128, 129, 2048, 2049})
    for (const int64_t rows : {int64_t(1), int64_t(15), int64_t(17), int64_t(5000), int64_t(1) << 20,
                               (int64_t(1) << 33) + 1, int64_t(1) << 50}) {
      const cuda::NllParts parts(rows, cols);
      CHECK(parts.count >= 1 && parts.count <= 16384);
      CHECK(parts.rows_per_part * parts.count >= rows && parts.rows_per_part * (parts.count - 1) < rows);
    }
}

TEST(nll_of_one_class) {
  const DeviceArray<float> logits(testing::random_normal(9, 1, 100));
  for (const double x : run(logits.data(), random_labels(9, 1, 0), 1, 1, 2)) CHECK_NEAR(x, 0, 1e-12);
}

// Terms that are lost in the sum beside 1 are not lost in the derivatives.
TEST(nll_of_confident_rows) {
  const DeviceArray<float> logits(std::vector<float>{33.3f, 3.3f, -6.7f});
  const DeviceArray<int64_t> labels(std::vector<int64_t>{0});
  const Exact exact = exact_nll(logits.data(), labels, 3, 3, 1);
  const DeviceArray<double> out = run(logits.data(), labels, 3, 3, 1);
  CHECK_NEAR(out[1], exact.slope, -1e-5 * exact.slope);
  CHECK_NEAR(out[2], exact.curvature, 1e-5 * exact.curvature);
}

TEST(nll_of_extreme_logits_and_temperatures) {
  for (const float top : {1e-10f, 1e-3f, 1.0f, 1e4f, 1e30f, 3e38f})
    for (const double beta : {1e-30, 1e-3, 1.0, 1e5, 1e30}) {
      if (beta * top < 1e-20) continue;  // drowned in fp32's denormals
      for (const int64_t cols : {4, 2049}) {
        if (cols > 4 && top < 1e30f) continue;
        std::vector<float> values(size_t(3 * cols), -top);
        for (int64_t i = 0; i < 2; ++i) {
          values[size_t(i * cols + i)] = top;
          values[size_t(i * cols + 3)] = top / 2;
        }
        const DeviceArray<float> logits(values);
        const DeviceArray<int64_t> labels(std::vector<int64_t>{0, 3, 2});
        const DeviceArray<double> out = run(logits.data(), labels, cols, cols, beta);
        const Exact exact = exact_nll(logits.data(), labels, cols, cols, beta);
        const double size = 2 * double(top);
        CHECK_NEAR(out[0] / (1 + beta * size), exact.value / (1 + beta * size), 1e-6);
        CHECK_NEAR(out[1] / size, exact.slope / size, 1e-6);
        CHECK_NEAR(out[2] / size / size, exact.curvature / size / size, 1e-6);
      }
    }
}

// The rounding of beta to fp32 leaves no bias.
TEST(nll_takes_the_rounding_of_beta_back) {
  const DeviceArray<float> logits(std::vector<float>{5.0f, -900.0f});
  const DeviceArray<int64_t> labels(std::vector<int64_t>{1});
  const double beta = 0.3141592653589793;
  CHECK_NEAR(run(logits.data(), labels, 2, 2, beta)[0], 905 * beta, 1e-10);
  const DeviceArray<float> close(std::vector<float>{1.0f, 0.0f});
  const double p = 1 / (1 + std::exp(beta));  // of the label
  CHECK_NEAR(run(close.data(), labels, 2, 2, beta)[1], 1 - p, 1.5e-7);
}

TEST(nll_of_what_is_not_finite) {
  for (const int64_t cols : {6, 8, 128, 700, 1300, 2050}) {
    const int64_t rows = cols > 2048 ? 1 : 4;
    const std::vector<float> values = testing::random_normal(size_t(rows * cols), 3);
    const DeviceArray<int64_t> labels = random_labels(rows, cols, 3);
    for (const float bad : {kNotANumber, kInf})
      for (const int64_t place : {cols / 2, rows * cols - 1}) {
        DeviceArray<float> logits(values);
        logits[size_t(place)] = bad;
        for (const double x : run(logits.data(), labels, cols, cols, 1)) CHECK(std::isnan(x));
      }
    for (const float bad : {kNotANumber, kInf, -kInf}) {
      DeviceArray<__nv_bfloat16> logits(values);
      std::fill_n(logits.begin() + (rows - 1) * cols, cols, __nv_bfloat16(bad));
      for (const double x : run(logits.data(), labels, cols, cols, 1)) CHECK(std::isnan(x));
    }
  }
}

TEST(nll_of_masked_classes) {
  for (const int64_t cols : {6, 128, 700, 1300, 2050}) {
    const int64_t rows = cols > 2048 ? 1 : 4;
    DeviceArray<float> logits(testing::random_normal(size_t(rows * cols), 3));
    const DeviceArray<int64_t> labels = random_labels(rows, cols, 3);
    for (int64_t i = 0; i < rows * cols; ++i)
      if (i % 3 != 0 && i % cols != labels[size_t(i / cols)]) logits[size_t(i)] = -kInf;
    check(logits.data(), labels, cols, cols, 0.7, run(logits.data(), labels, cols, cols, 0.7));
    logits[size_t((rows - 1) * cols + labels[size_t(rows - 1)])] = -kInf;
    for (const double x : run(logits.data(), labels, cols, cols, 1)) CHECK(std::isnan(x));
  }
}

// What they would point at is never read: the first and the last row are at the ends of the memory.
TEST(nll_of_labels_that_are_no_class) {
  for (const int64_t cols : {10, 2050})
    for (const int64_t bad : {int64_t(-1), cols, int64_t(1) << 40, std::numeric_limits<int64_t>::min()})
      for (const size_t row : {0, 4}) {
        if (cols > 10 && (bad == cols) != (row == 4)) continue;
        const DeviceArray<float> logits(testing::random_normal(size_t(5 * cols), 3));
        DeviceArray<int64_t> labels = random_labels(5, cols, 3);
        labels[row] = bad;
        for (const double x : run(logits.data(), labels, cols, cols, 1)) CHECK(std::isnan(x));
      }
}

// The same bits wherever the rows lie.
template <class T>
static void check_layouts() {
  for (const int64_t cols : {3, 16, 100, 128, 1000, 1024, 2000, 2048, 2500}) {
    const int64_t rows = 9;
    const std::vector<float> values = testing::random_normal(size_t(rows * cols), 7, 2);
    const DeviceArray<int64_t> labels = random_labels(rows, cols, 7);
    const DeviceArray<T> logits(values), moved(values, 1);
    const DeviceArray<double> expected = run(logits.data(), labels, cols, cols, 0.9);
    const auto check = [&](const DeviceArray<T>& other, int64_t stride) {
      const DeviceArray<double> out = run(other.data(), labels, cols, stride, 0.9);
      for (size_t i = 0; i < 3; ++i) CHECK_EQUAL(out[i], expected[i], cols, " columns");
    };
    check(logits, cols);
    check(moved, cols);
    for (const int64_t stride : {cols + 1, (cols + 23) / 16 * 16}) {
      std::vector<float> spread(size_t((rows - 1) * stride + cols), kNotANumber);
      for (int64_t i = 0; i < rows; ++i) std::copy_n(&values[size_t(i * cols)], cols, &spread[size_t(i * stride)]);
      check(DeviceArray<T>(spread), stride);
    }
  }
}

TEST(nll_does_not_depend_on_the_layout_float) { check_layouts<float>(); }
TEST(nll_does_not_depend_on_the_layout_half) { check_layouts<__half>(); }

// Rows further apart than 32 bits can say.
TEST(nll_of_far_rows) {
  constexpr int64_t kStride = (int64_t(1) << 31) + 8, kBytes = (2 * kStride + 64) * 2;
  void* memory =
      mmap(nullptr, size_t(kBytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  __half* logits = static_cast<__half*>(memory);
  for (int64_t i = 0; i < 3; ++i) logits[i * kStride + i] = __half(2.0f);
  const DeviceArray<int64_t> labels(std::vector<int64_t>{0, 1, 2});
  CHECK_NEAR(run(logits, labels, 10, kStride, 1)[0], std::log(1 + 9 * std::exp(-2.0)), 1e-6);
  munmap(memory, size_t(kBytes));
}
