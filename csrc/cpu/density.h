// density: the log density of points in the plane under a Gaussian product kernel, at each query.
#pragma once
#include "../common/density.h"
#include "confidence.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Coordinates apart, padded to whole vectors by points infinitely far away.
struct Plane {
  explicit Plane(const Matrix& points)
      : u(whole_lanes(points.rows)), v(whole_lanes(points.rows)), n(whole_lanes(points.rows)) {
    const auto* data = static_cast<const float*>(points.data);
    for (int64_t i = 0; i < n; ++i) {
      u[i] = i < points.rows ? data[i * points.stride] : kInfinity;
      v[i] = i < points.rows ? data[i * points.stride + 1] : kInfinity;
    }
  }
  Buffer<float> u, v;
  int64_t n;
};

// Adds to sums[j] the powers of points [begin, end) at query j, for kTogether queries: a point is loaded once.
inline constexpr int kTogether = 4;
inline void add_powers(const Plane& points, int64_t begin, int64_t end, const float* u, const float* v, Vec ku, Vec kv,
                       const Exp2& exp2, double* sums) {
  const Vec low = set1(kSmallestExponent);
  Vec sum[kTogether], qu[kTogether], qv[kTogether];
  for (int j = 0; j < kTogether; ++j) {
    sum[j] = set1(0.0f);
    qu[j] = set1(u[j]);
    qv[j] = set1(v[j]);
  }
  for (int64_t i = begin; i < end; i += kLanes) {
    const Vec pu = load(points.u + i), pv = load(points.v + i);
    PYFASTCAL_UNROLL
    for (int j = 0; j < kTogether; ++j) {
      const Vec du = pu - qu[j], dv = pv - qv[j];
      sum[j] = exp2.add_to(sum[j], max(low, fma(du * ku, du, dv * kv * dv)));
    }
  }
  for (int j = 0; j < kTogether; ++j) sums[j] += reduce_add(sum[j]);
}

// log2 of the sum of powers at one query, in double, relative to the largest.
inline double faint_sum(const Plane& points, int64_t n, double u, double v, double ku, double kv) {
  const auto exponent = [&](int64_t i) {
    const double du = points.u[i] - u, dv = points.v[i] - v;
    return -(ku * du * du + kv * dv * dv);
  };
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    const double t = exponent(i);
    if (!(t <= top)) top = t;
  }
  double sum = 0;
  for (int64_t i = 0; i < n; ++i)
    if (const double t = exponent(i) - top; !(t < -60)) sum += std::exp2(t);
  return top + std::log2(sum);
}

// queries, points: fp32 rows of 2; out: one entry per query. A bandwidth whose inverse square fp32 cannot hold makes
// the fp32 sums NaN at points that share a coordinate with the query.
inline void log_density(const Matrix& queries, const Matrix& points, const double* bandwidth, double* out) {
  const Plane plane(points);
  const double ku = exponent_scale(bandwidth[0]), kv = exponent_scale(bandwidth[1]);
  constexpr int64_t kQueries = 64;  // per task: the points come out of L2 that often less
  parallel_tasks((queries.rows + kQueries - 1) / kQueries, [&](int64_t task) {
    const int64_t begin = task * kQueries, count = min(kQueries, queries.rows - begin);
    float u[kQueries], v[kQueries];
    double sums[kQueries] = {};
    const auto* data = static_cast<const float*>(queries.data);
    for (int64_t j = 0; j < kQueries; ++j) {  // the last task repeats its last query: groups are whole
      const float* q = data + (begin + min(j, count - 1)) * queries.stride;
      u[j] = q[0];
      v[j] = q[1];
    }
    const Exp2 exp2;
    const Vec minus_ku = constant(-float(ku)), minus_kv = constant(-float(kv));
    for (int64_t first = 0; first < plane.n; first += kDensityRun)
      for (int64_t j = 0; j < count; j += kTogether)
        add_powers(plane, first, min(first + kDensityRun, plane.n), u + j, v + j, minus_ku, minus_kv, exp2, sums + j);
    for (int64_t j = 0; j < count; ++j) {
      const double log2_sum =
          sums[j] >= kFaintest ? std::log2(sums[j]) : faint_sum(plane, points.rows, u[j], v[j], ku, kv);
      out[begin + j] = pyfastcal::log_density(log2_sum, points.rows, bandwidth[0], bandwidth[1]);
    }
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
