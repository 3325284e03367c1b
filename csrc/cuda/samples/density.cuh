// density: the log density of points in the plane under a Gaussian product kernel, at each query.
//
// A lane has a query, the warps of a block share its points: tiles of 1024 go through shared memory, 128 to each warp,
// whose powers are added in fp32, the runs in double. Blocks take 32 queries and a part of the points, the parts' sums
// go to the workspace. A second kernel, a warp for each query, adds them and takes the logarithm; a sum below kFaintest
// it makes anew in fp64, relative to the largest term. Which points make a part follows from their number alone, so a
// query's bits depend on nothing but its numbers, the points and their order. NaN in a query or a point makes NaN. The
// bandwidth is read on the device. Two launches. Workspace: density_workspace().
#pragma once
#include "../../common/density.h"
#include "../rows/row_confidence.cuh"
#include "../runtime/launch.cuh"

namespace pyfastcal::cuda {

struct DensityArguments {
  const float* queries;
  const float* points;
  int64_t n_queries, query_stride, n_points, point_stride, points_per_part, parts;
  const double* bandwidth;
  double* sums;  // (parts, n_queries)
  double* out;
};

inline constexpr int kDensityThreads = 256, kDensityWarps = kDensityThreads / 32, kRunOfWarp = 128,
                     kDensityTile = kDensityWarps * kRunOfWarp, kFinishThreads = 128;

static __global__ void __launch_bounds__(kDensityThreads) sum_density(DensityArguments a) {
  PYFASTCAL_STATIC_SHARED(float4[kDensityTile / 2], tile);  // u, v of two points each
  PYFASTCAL_STATIC_SHARED(double[kDensityThreads], sums);
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t query = int64_t(blockIdx.x) * 32 + lane,
                mine = query < a.n_queries ? query : a.n_queries - 1;  // whole warps take part
  const float u = a.queries[mine * a.query_stride], v = a.queries[mine * a.query_stride + 1];
  const float ku = -float(exponent_scale(a.bandwidth[0])), kv = -float(exponent_scale(a.bandwidth[1]));
  const int64_t begin = blockIdx.y * a.points_per_part,
                end = begin + a.points_per_part < a.n_points ? begin + a.points_per_part : a.n_points;
  const auto power = [&](float pu, float pv) {
    const float du = pu - u, dv = pv - v;
    return prim::exp2_approx(__fmaf_rn(du * ku, du, dv * kv * dv));
  };
  double total = 0;
  for (int64_t first = begin; first < end; first += kDensityTile) {
    __syncthreads();  // the last tile has been read
    for (int i = int(threadIdx.x); i < kDensityTile / 2; i += kDensityThreads) {
      const int64_t point = first + 2 * i;
      const float* p = a.points + point * a.point_stride;
      const bool one = point < end, two = point + 1 < end;  // those past the end are infinitely far away
      tile[i] = {one ? p[0] : kInfinity, one ? p[1] : kInfinity, two ? p[a.point_stride] : kInfinity,
                 two ? p[a.point_stride + 1] : kInfinity};
    }
    __syncthreads();
    if (first + warp * kRunOfWarp < end) {
      const float4* const run = &tile[warp * (kRunOfWarp / 2)];
      float even = 0, odd = 0;
#pragma unroll 8
      for (int i = 0; i < kRunOfWarp / 2; ++i) {
        const float4 p = run[i];
        even += power(p.x, p.y);
        odd += power(p.z, p.w);
      }
      total += even + odd;
    }
  }
  sums[threadIdx.x] = total;
  __syncthreads();
  if (warp == 0 && query < a.n_queries) {
#pragma unroll
    for (int w = 1; w < kDensityWarps; ++w) total += sums[w * 32 + lane];
    a.sums[blockIdx.y * a.n_queries + query] = total;
  }
}

// log2 of the sum of powers at one query, in double, relative to the largest; by a warp.
__device__ inline double faint_sum(const DensityArguments& a, double u, double v, double ku, double kv) {
  const auto exponent = [&](int64_t i) {
    const double du = a.points[i * a.point_stride] - u, dv = a.points[i * a.point_stride + 1] - v;
    return -(ku * du * du + kv * dv * dv);
  };
  double top = -double(kInfinity);
#pragma unroll 4
  for (int64_t i = threadIdx.x % 32; i < a.n_points; i += 32) top = fmax(top, exponent(i));  // NaN is passed over
  top = Lanes<32>::reduce(top, [](double x, double y) { return fmax(x, y); });
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % 32; i < a.n_points; i += 32)
    if (const double t = exponent(i) - top; !(t < -60)) sum += exp2(t);  // NaN is added
  return top + log2(Lanes<32>::reduce(sum, Plus()));
}

static __global__ void __launch_bounds__(kFinishThreads) finish_density(DensityArguments a) {
  const int64_t query = int64_t(blockIdx.x) * (kFinishThreads / 32) + threadIdx.x / 32;
  if (query >= a.n_queries) return;  // a whole warp
  double sum = 0;
  for (int64_t p = 0; p < a.parts; ++p) sum += a.sums[p * a.n_queries + query];
  const double h_u = a.bandwidth[0], h_v = a.bandwidth[1];
  const float* const q = a.queries + query * a.query_stride;
  const double log2_sum =
      sum >= kFaintest ? log2(sum) : faint_sum(a, q[0], q[1], exponent_scale(h_u), exponent_scale(h_v));
  if (threadIdx.x % 32 == 0) a.out[query] = log_density(log2_sum, a.n_points, h_u, h_v);
}

// How the points are parted: by their number alone, into 16 parts at most.
struct DensityParts {
  explicit DensityParts(int64_t n) {
    const int64_t share = (n + 15) / 16, tiles = (share + kDensityTile - 1) / kDensityTile;
    points = kDensityTile * (tiles > 4 ? tiles : 4);
    count = (n + points - 1) / points;
  }
  int64_t points, count;  // of a part, of parts
};

// Bytes: a sum for each query and part.
inline int64_t density_workspace(int64_t queries, int64_t points) {
  return queries * DensityParts(points).count * int64_t(sizeof(double));
}

// queries, points: fp32 rows of 2; bandwidth: 2 numbers on the device; out: one entry per query. At least one point,
// fewer than 2^33 queries.
inline cudaError_t launch_density(const Matrix& queries, const Matrix& points, const double* bandwidth, double* out,
                                  void* workspace, cudaStream_t stream) {
  if (queries.rows == 0) return cudaSuccess;
  if (queries.rows >= int64_t(1) << 33 || points.rows < 1) return cudaErrorInvalidValue;
  if (queries.dtype != Dtype::kFloat || points.dtype != Dtype::kFloat) return cudaErrorInvalidValue;
  const DensityParts parts(points.rows);
  const DensityArguments a{static_cast<const float*>(queries.data),
                           static_cast<const float*>(points.data),
                           queries.rows,
                           queries.stride,
                           points.rows,
                           points.stride,
                           parts.points,
                           parts.count,
                           bandwidth,
                           static_cast<double*>(workspace),
                           out};
  const dim3 grid(uint32_t((queries.rows + 31) / 32), uint32_t(parts.count));
  if (const auto error = PYFASTCAL_LAUNCH(sum_density, grid, dim3(kDensityThreads), 0, stream, a)) return error;
  constexpr int64_t kQueries = kFinishThreads / 32;
  return PYFASTCAL_LAUNCH(finish_density, dim3(uint32_t((queries.rows + kQueries - 1) / kQueries)),
                          dim3(kFinishThreads), 0, stream, a);
}

}  // namespace pyfastcal::cuda
