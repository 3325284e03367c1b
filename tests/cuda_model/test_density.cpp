// density: against the definition in fp64, at the borders of tiles and parts, near and far.
#include <limits>

#include "cuda/samples/density.cuh"
#include "testing.h"

using namespace pyfastcal;

static constexpr float kInf = std::numeric_limits<float>::infinity();
static constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

struct Points {
  const DeviceArray<float>& values;
  int64_t rows, stride = 2;
  operator Matrix() const { return {values.data(), Dtype::kFloat, rows, 2, stride}; }
};

static DeviceArray<double> run(const Points& queries, const Points& points, const DeviceArray<double>& bandwidth) {
  DeviceArray<double> out{size_t(queries.rows)};
  const int64_t bytes = cuda::density_workspace(queries.rows, points.rows);
  DeviceArray<unsigned char> workspace{size_t(bytes)};
  const uint64_t before = cuda_model::counters.launches;
  CHECK(cuda::launch_density(queries, points, bandwidth.data(), out.data(), workspace.data(), nullptr) == cudaSuccess);
  CHECK_EQUAL(cuda_model::counters.launches - before, uint64_t(queries.rows > 0 ? 2 : 0));
  record(out);
  return out;
}

static double exact(const Points& queries, int64_t q, const Points& points, const DeviceArray<double>& h) {
  const auto exponent = [&](int64_t i) {
    const double u = double(points.values[size_t(i * points.stride)]) - queries.values[size_t(q * queries.stride)];
    const double v =
        double(points.values[size_t(i * points.stride + 1)]) - queries.values[size_t(q * queries.stride + 1)];
    return -0.5 * (u / h[0] * (u / h[0]) + v / h[1] * (v / h[1]));
  };
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t i = 0; i < points.rows; ++i) top = std::max(top, exponent(i));
  for (int64_t i = 0; i < points.rows; ++i) sum += std::exp(exponent(i) - top);
  return top + std::log(sum) - std::log(2 * std::acos(-1.0) * h[0] * h[1] * double(points.rows));
}

// Near, an error of fp32; far, of the rounding of h alone.
static void check(const Points& queries, const Points& points, const DeviceArray<double>& h,
                  const DeviceArray<double>& out) {
  for (int64_t q = 0; q < queries.rows; ++q) {
    const double expected = exact(queries, q, points, h);
    CHECK_NEAR(out[size_t(q)], expected, 6e-6 + 1e-12 * std::fabs(expected), "query ", q, " of ", queries.rows, ", ",
               points.rows, " points");
  }
}

static DeviceArray<double> bandwidth(double u, double v) { return DeviceArray<double>(std::vector<double>{u, v}); }

TEST(density_of_tails) {
  const DeviceArray<double> h = bandwidth(0.4, 0.9);
  for (const int64_t n : {1, 2, 3, 127, 128, 129, 255, 257, 1023, 1024, 1025, 4095, 4096, 4097, 8193, 65536, 65537})
    for (const int64_t q : {1, 5, 32, 33}) {
      if (n > 5000 && q > 5) continue;
      const DeviceArray<float> queries(testing::random_normal(size_t(2 * q), 1)),
          points(testing::random_normal(size_t(2 * n), 2));
      check({queries, q}, {points, n}, h, run({queries, q}, {points, n}, h));
    }
}

TEST(density_of_no_queries) {
  const DeviceArray<float> none(0), points(std::vector<float>{1, 2});
  run({none, 0}, {points, 1}, bandwidth(1, 1));
}

TEST(density_parts_follow_from_the_number_of_points) {
  for (const int64_t n : {int64_t(1), int64_t(4096), int64_t(4097), int64_t(65536), int64_t(65537), int64_t(1) << 40}) {
    const cuda::DensityParts parts(n);
    CHECK(parts.count >= 1 && parts.count <= 16);
    CHECK(parts.points * parts.count >= n && parts.points * (parts.count - 1) < n);
    CHECK_EQUAL(parts.points % cuda::kDensityTile, 0);
  }
}

// The axes are not the same, nor are a point and a query.
TEST(density_of_one_point) {
  const DeviceArray<float> queries(std::vector<float>{0.5f, 0.25f}), points(std::vector<float>{0.25f, 1.25f});
  const DeviceArray<double> h = bandwidth(0.5, 2);
  const double expected = -0.5 * (0.25 + 0.25) - std::log(2 * std::acos(-1.0) * 0.5 * 2);
  CHECK_NEAR(run({queries, 1}, {points, 1}, h)[0], expected, 1e-6);
}

// Across kFaintest, where powers are too small for fp32, and in the end for fp64.
TEST(density_far_from_all_points) {
  const DeviceArray<double> h = bandwidth(0.31, 0.17);
  const DeviceArray<float> points(testing::random_normal(2 * 1500, 3, 0.1f));
  std::vector<float> at;
  for (const float d : {0.0f, 1.0f, 1.3f, 2.0f, 2.2f, 2.3f, 2.4f, 3.0f, 4.0f, 5.0f, 10.0f, 1e3f, 1e12f, 3e30f})
    at.insert(at.end(), {d, 0.0f, 0.0f, -d, d, d});
  const int64_t n = int64_t(at.size()) / 2;
  const DeviceArray<float> queries(at);
  check({queries, n}, {points, 1500}, h, run({queries, n}, {points, 1500}, h));
}

// The nearest of far points decides, wherever it is.
TEST(density_finds_the_nearest_anywhere) {
  const DeviceArray<double> h = bandwidth(0.1, 0.1);
  const DeviceArray<float> queries(std::vector<float>{0, 0});
  for (const int64_t n : {1, 31, 33, 70})
    for (int64_t near = 0; near < n; ++near) {
      DeviceArray<float> points(std::vector<float>(size_t(2 * n), 20.0f));
      points[size_t(2 * near + 1)] = 10;
      check({queries, 1}, {points, n}, h, run({queries, 1}, {points, n}, h));
    }
}

// fp32 cannot hold the scales: all is redone in fp64.
TEST(density_of_extreme_bandwidths) {
  const DeviceArray<float> queries(std::vector<float>{0.5f, 0.5f, 0.5f, 3.0f}),
      points(std::vector<float>{0.5f, 0.5f, 0.75f, 0.5f});
  for (const double width : {1e-25, 1e-10, 1e10, 1e25}) {
    const DeviceArray<double> h = bandwidth(width, width);
    check({queries, 2}, {points, 2}, h, run({queries, 2}, {points, 2}, h));
  }
}

TEST(density_of_what_is_not_a_number) {
  const DeviceArray<double> h = bandwidth(1, 1);
  for (const float bad : {kNotANumber, kInf, -kInf}) {
    std::vector<float> at = testing::random_normal(2 * 40, 4);
    const DeviceArray<float> good(at);
    const DeviceArray<double> expected = run({good, 40}, {good, 40}, h);
    at[2 * 7 + 1] = bad;
    const DeviceArray<float> some(at);
    const DeviceArray<double> out = run({some, 40}, {good, 40}, h);
    for (size_t i = 0; i < 40; ++i) {
      if (i == 7)
        CHECK(!std::isfinite(out[i]));
      else
        CHECK_EQUAL(out[i], expected[i]);
    }
  }
  for (const size_t n : {40, 1500}) {
    const DeviceArray<float> queries(testing::random_normal(2 * 3, 5));
    DeviceArray<float> points(testing::random_normal(2 * n, 4));
    points[2 * (n - 2)] = kNotANumber;
    for (const double x : run({queries, 3}, {points, int64_t(n)}, h)) CHECK(std::isnan(x));
  }
  const DeviceArray<float> one(std::vector<float>{0, 1});
  CHECK(std::isnan(run({one, 1}, {one, 1}, bandwidth(kNotANumber, 1))[0]));
}

// The same bits whatever the other queries are, and however the rows lie.
TEST(density_does_not_depend_on_the_batch_or_the_layout) {
  const DeviceArray<double> h = bandwidth(0.3, 0.2);
  constexpr int64_t kQueries = 70, kPoints = 5000;
  const std::vector<float> q = testing::random_normal(2 * kQueries, 6), p = testing::random_normal(2 * kPoints, 7);
  const DeviceArray<float> queries(q), points(p);
  const DeviceArray<double> expected = run({queries, kQueries}, {points, kPoints}, h);
  for (const int64_t i : {0, 31, 32, 69}) {
    const DeviceArray<float> one(std::vector<float>{q[size_t(2 * i)], q[size_t(2 * i + 1)]}, 1);
    CHECK_EQUAL(run({one, 1}, {points, kPoints}, h)[0], expected[size_t(i)]);
  }
  std::vector<float> q5(5 * kQueries - 3), p3(3 * kPoints - 1);
  for (size_t i = 0; i < kQueries; ++i) std::copy_n(&q[2 * i], 2, &q5[5 * i]);
  for (size_t i = 0; i < kPoints; ++i) std::copy_n(&p[2 * i], 2, &p3[3 * i]);
  const DeviceArray<float> wide_queries(q5), wide_points(p3, 1);
  const DeviceArray<double> out = run({wide_queries, kQueries, 5}, {wide_points, kPoints, 3}, h);
  for (size_t i = 0; i < kQueries; ++i) CHECK_EQUAL(out[i], expected[i]);
}
