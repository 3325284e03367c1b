// confidence: against the definition in fp64, at every border of the dispatch, in every layout.
#include <sys/mman.h>

#include <limits>

#include "cuda/rows/confidence.cuh"
#include "dtypes.h"
#include "testing.h"

using namespace pyfastcal;

static constexpr float kInfinity = std::numeric_limits<float>::infinity();
static constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct Result {
  DeviceArray<float> confidence;
  DeviceArray<int64_t> prediction;
};

template <class T>
static Result run(const T* logits, int64_t rows, int64_t cols, int64_t stride, const Factors& factors = {}) {
  Result out{DeviceArray<float>(size_t(rows)), DeviceArray<int64_t>(size_t(rows))};
  const uint64_t before = cuda_model::counters.launches;
  CHECK(cuda::launch_confidence({logits, kDtype<T>, rows, cols, stride}, factors, out.confidence.data(),
                                out.prediction.data(), nullptr) == cudaSuccess);
  CHECK_EQUAL(cuda_model::counters.launches - before, uint64_t(rows > 0));
  record(out.confidence);
  record(out.prediction);
  return out;
}

// The sum of the exponentials of one row; one argument in a million of each is in doubt by the fp32 multiplication.
static double exact_confidence(const std::vector<double>& row, size_t prediction, double factor) {
  double sum = 0;
  for (const double x : row) sum += std::exp(factor * (x - row[prediction]));
  return 1 / sum;
}

template <class T>
static void check_rows(const T* logits, int64_t rows, int64_t cols, int64_t stride, const Factors& factors,
                       const Result& result) {
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<double> row;
    for (int64_t c = 0; c < cols; ++c) row.push_back(double(float(logits[i * stride + c])));
    const size_t prediction = size_t(std::max_element(row.begin(), row.end()) - row.begin());
    CHECK_EQUAL(result.prediction[size_t(i)], int64_t(prediction), "row ", i, " of ", cols, " columns");
    const double factor = (factors.class_weight ? double(factors.class_weight[prediction]) : 1.0) *
                          (factors.sample_weight ? double(factors.sample_weight[i]) : 1.0);
    const double exact = exact_confidence(row, prediction, factor);
    CHECK_NEAR(result.confidence[size_t(i)], exact, 1e-6 * exact, "row ", i, " of ", cols, " columns");
    CHECK(result.confidence[size_t(i)] <= 1);
  }
}

static constexpr int64_t kColumns[] = {1,    2,    3,    4,    5,    7,    8,    9,    31,   32,   33,   63,  64,
                                       65,   96,   100,  127,  128,  129,  131,  136,  255,  256,  257,  512, 1000,
                                       1001, 1023, 1024, 1025, 1030, 2044, 2047, 2048, 2049, 2055, 4101, 8199};

template <class T>
static void check_columns(uint32_t seed) {
  for (const int64_t cols : kColumns) {
    const int64_t rows = cols > 2048 ? 2 : cols > 128 ? 5 : 19;  // the last block is not full
    const DeviceArray<T> logits(testing::random_normal(size_t(rows * cols), seed + uint32_t(cols), 3));
    DeviceArray<float> class_weight(testing::random_normal(size_t(cols), 1, 0.2f)),
        sample_weight(testing::random_normal(size_t(rows), 2, 0.2f));
    for (float& w : class_weight) w = 1 + std::fabs(w);
    for (float& w : sample_weight) w = 1 / (1 + std::fabs(w));
    for (const Factors& factors :
         {Factors{}, Factors{class_weight.data(), nullptr}, Factors{nullptr, sample_weight.data()},
          Factors{class_weight.data(), sample_weight.data()}})
      check_rows(logits.data(), rows, cols, cols, factors, run(logits.data(), rows, cols, cols, factors));
  }
}

TEST(confidence_float) { check_columns<float>(1); }
TEST(confidence_half) { check_columns<__half>(2); }
TEST(confidence_bfloat16) { check_columns<__nv_bfloat16>(3); }

TEST(confidence_takes_as_many_blocks_as_the_rows_need) {
  const DeviceArray<float> logits(testing::random_normal(17 * 3000, 6));
  for (const auto& [cols, blocks] : {std::pair<int64_t, uint64_t>{100, 2}, {1000, 5}, {3000, 17}}) {
    const uint64_t before = cuda_model::counters.blocks;
    run(logits.data(), 17, cols, cols);
    CHECK_EQUAL(cuda_model::counters.blocks - before, blocks, cols, " columns");
  }
}

TEST(confidence_of_no_rows) { run<float>(nullptr, 0, 10, 10); }

// Few different values: the first of many equal maxima, wherever it is.
TEST(confidence_of_ties) {
  std::mt19937 generator(5);
  for (const int64_t cols : {2, 9, 40, 128, 300, 1024, 1500, 2048, 3000}) {
    DeviceArray<__half> logits(size_t(12 * cols));
    for (int64_t i = 0; i < 12; ++i)
      for (int64_t c = 0; c < cols; ++c)
        logits[size_t(i * cols + c)] = __half(generator() % uint32_t(2 + i * cols / 8) == 0 ? 1.0f : -2.0f);
    check_rows(logits.data(), 12, cols, cols, {}, run(logits.data(), 12, cols, cols));
  }
  const DeviceArray<float> zeros(std::vector<float>{-0.0f, 0.0f, -0.0f, 0.0f, -1.0f});
  CHECK_EQUAL(run(zeros.data(), 1, 5, 5).prediction[0], 0);
}

// A maximum at every place of rows of every kind.
TEST(confidence_finds_the_maximum_anywhere) {
  for (const int64_t cols : {13, 128, 1024, 2047, 2051}) {
    std::vector<int64_t> places;
    for (int64_t c = 0; c < cols; c += cols > 1000 ? 17 : 1) places.push_back(c);
    for (int64_t c = std::max<int64_t>(0, cols - 20); c < cols; ++c) places.push_back(c);
    const int64_t rows = int64_t(places.size());
    DeviceArray<__nv_bfloat16> logits(size_t(rows * cols));
    for (__nv_bfloat16& x : logits) x = __nv_bfloat16(0.0f);
    for (int64_t i = 0; i < rows; ++i) logits[size_t(i * cols + places[size_t(i)])] = __nv_bfloat16(4.0f);
    const Result result = run(logits.data(), rows, cols, cols);
    for (int64_t i = 0; i < rows; ++i) {
      CHECK_EQUAL(result.prediction[size_t(i)], places[size_t(i)], cols, " columns");
      CHECK_NEAR(result.confidence[size_t(i)], 1 / (1 + double(cols - 1) * std::exp(-4.0)), 1e-6);
    }
  }
}

// The same bits wherever the rows lie, and however many others there are.
template <class T>
static void check_layouts() {
  for (const int64_t cols : {3, 16, 100, 128, 1000, 1024, 2000, 2048, 2500}) {
    const int64_t rows = 9;
    const std::vector<float> values = testing::random_normal(size_t(rows * cols), 7, 2);
    const DeviceArray<T> logits(values);
    const Result expected = run(logits.data(), rows, cols, cols);
    const auto check = [&](const DeviceArray<T>& other, int64_t first, int64_t n, int64_t stride) {
      const Result result = run(other.data(), n, cols, stride);
      for (int64_t i = 0; i < n; ++i) {
        CHECK_EQUAL(result.confidence[size_t(i)], expected.confidence[size_t(first + i)], cols, " columns");
        CHECK_EQUAL(result.prediction[size_t(i)], expected.prediction[size_t(first + i)]);
      }
    };
    check(DeviceArray<T>(values, 1), 0, rows, cols);
    for (const int64_t stride : {cols + 1, (cols + 23) / 16 * 16}) {
      std::vector<float> spread(size_t((rows - 1) * stride + cols), kNaN);
      for (int64_t i = 0; i < rows; ++i) std::copy_n(&values[size_t(i * cols)], cols, &spread[size_t(i * stride)]);
      check(DeviceArray<T>(spread), 0, rows, stride);
    }
    for (int64_t i = 0; i < rows; i += 4)
      check(DeviceArray<T>(std::vector<float>(&values[size_t(i * cols)], &values[size_t((i + 1) * cols)])), i, 1, cols);
  }
}

TEST(confidence_does_not_depend_on_the_layout_float) { check_layouts<float>(); }
TEST(confidence_does_not_depend_on_the_layout_half) { check_layouts<__half>(); }

TEST(confidence_of_what_is_not_finite) {
  for (const int64_t cols : {6, 8, 128, 700, 1300, 2050}) {
    std::vector<float> values = testing::random_normal(size_t(7 * cols), 3);
    const DeviceArray<float> finite(values);
    const Result expected = run(finite.data(), 7, cols, cols);
    values[size_t(cols - 1)] = kNaN;
    values[size_t(cols)] = kInfinity;
    values[size_t(2 * cols + cols / 2)] = kInfinity;
    values[size_t(3 * cols + cols - 1)] = kInfinity;
    std::fill_n(&values[size_t(4 * cols)], cols, kNaN);
    std::fill_n(&values[size_t(5 * cols)], cols, -kInfinity);
    const DeviceArray<float> logits(values);
    const DeviceArray<float> class_weight(std::vector<float>(size_t(cols), 1.0f));
    const Result result = run(logits.data(), 7, cols, cols, {class_weight.data(), nullptr});
    for (size_t i = 0; i < 6; ++i) {
      CHECK(std::isnan(result.confidence[i]));
      CHECK(result.prediction[i] >= 0 && result.prediction[i] < cols);
    }
    CHECK_EQUAL(result.confidence[6], expected.confidence[6]);
    const DeviceArray<__nv_bfloat16> low(std::vector<float>{kInfinity, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kNaN});
    for (const float confidence : run(low.data(), 2, 8, 8).confidence) CHECK(std::isnan(confidence));
  }
}

template <class T>
static void check_infinity_anywhere() {
  for (const int64_t cols : {13, 72, 2051}) {
    const int64_t rows = cols < 2051 ? cols : 20;  // of the longest, the last columns
    const std::vector<float> values = testing::random_normal(size_t(rows * cols), 4);
    DeviceArray<T> logits(values), masked(values);
    for (int64_t i = 0; i < rows; ++i) {
      logits[size_t((i + 1) * cols - 1 - i)] = T(kInfinity);
      masked[size_t((i + 1) * cols - 1 - i)] = T(-kInfinity);
    }
    for (const float confidence : run(logits.data(), rows, cols, cols).confidence) CHECK(std::isnan(confidence));
    check_rows(masked.data(), rows, cols, cols, {}, run(masked.data(), rows, cols, cols));
  }
}

TEST(confidence_sees_infinity_anywhere) {
  check_infinity_anywhere<float>();
  check_infinity_anywhere<__half>();
  check_infinity_anywhere<__nv_bfloat16>();
}

// All but every third class, which is all of some vectors and threads, with the largest and the smallest factors.
TEST(confidence_of_masked_classes) {
  for (const int64_t cols : {5, 100, 700, 2000, 2050})
    for (const float factor : {1e-30f, 0.3f, 1e30f}) {
      const int64_t rows = 3;
      DeviceArray<float> logits(testing::random_normal(size_t(rows * cols), 6));
      for (int64_t i = 0; i < rows * cols; ++i)
        if (i % cols / (1 + i / cols * 40) % 3 != 0) logits[size_t(i)] = -kInfinity;
      const DeviceArray<float> class_weight(std::vector<float>(size_t(cols), factor));
      const Factors factors{class_weight.data(), nullptr};
      check_rows(logits.data(), rows, cols, cols, factors, run(logits.data(), rows, cols, cols, factors));
    }
}

TEST(confidence_of_extreme_logits) {
  for (const float top : {1e-30f, 1.0f, 1e4f, 3e38f})
    for (const float factor : {2e-38f, 1e-20f, 1.0f, 1e3f}) {
      const DeviceArray<float> logits(
          std::vector<float>{top, 0.0f, -top, 0.0f, 0.0f, 0.0f, -top, -top, -top, -top, top, top});
      const DeviceArray<float> weight(std::vector<float>{factor, factor, factor});
      const Factors factors{weight.data(), nullptr};
      check_rows(logits.data(), 4, 3, 3, factors, run(logits.data(), 4, 3, 3, factors));
    }
  DeviceArray<float> same(2500);
  for (float& x : same) x = 77;
  for (const int64_t cols : {1, 50, 1000, 2000, 2500})
    CHECK_NEAR(run(same.data(), 1, cols, cols).confidence[0], 1.0 / double(cols), 1e-7 / double(cols));
}

// Rows further apart than 32 bits can say.
TEST(confidence_of_far_rows) {
  constexpr int64_t kStride = (int64_t(1) << 31) + 8, kBytes = (2 * kStride + 64) * 2;
  void* memory =
      mmap(nullptr, size_t(kBytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  __half* logits = static_cast<__half*>(memory);
  for (int64_t i = 0; i < 3; ++i) logits[i * kStride + i] = __half(2.0f);
  const Result result = run(logits, 3, 10, kStride);
  for (size_t i = 0; i < 3; ++i) {
    CHECK_EQUAL(result.prediction[i], int64_t(i));
    CHECK_NEAR(result.confidence[i], 1 / (1 + 9 * std::exp(-2.0)), 1e-6);
  }
  munmap(memory, size_t(kBytes));
}
