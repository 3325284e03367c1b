// Rows of a tile as the accumulators hold them. A row of a warp's part lies in the four lanes of a quad, 16 columns in
// each; lane m of the quad owns its rows row(m, 0) and row(m, 1): what is known of a row is kept there, in registers.
// Every order of combination is fixed and the same for all rows, so that a row's bits do not depend on its place.
#pragma once
#include "operand.cuh"

namespace pyfastcal::cuda {

struct OwnedRows {
  static __device__ int row(int half) { return Place::row(int(threadIdx.x) % 4, half); }

  // x[m]: of this lane's columns of row(m, half). To every row's owner, f over its four lanes; f is commutative.
  template <class V, class F>
  static __device__ __forceinline__ V gather(const V (&x)[4], const F& f) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
    const V low = f(odd ? x[1] : x[0], __shfl_xor_sync(~0u, odd ? x[0] : x[1], 1));
    const V high = f(odd ? x[3] : x[2], __shfl_xor_sync(~0u, odd ? x[2] : x[3], 1));
    return f(upper ? high : low, __shfl_xor_sync(~0u, upper ? low : high, 2));
  }

  // What the owner of row(m, half) holds.
  static __device__ __forceinline__ float spread(float of_owner, int m) { return __shfl_sync(~0u, of_owner, m, 4); }
};

struct Max {
  template <class V>
  __device__ __forceinline__ V operator()(V a, V b) const {
    return max(a, b);
  }
};
struct Min {
  template <class V>
  __device__ __forceinline__ V operator()(V a, V b) const {
    return min(a, b);
  }
};

// acc = f(acc, factor, addend, m) in rows row(m, half); `columns` is that of the warp's first one.
template <class F>
__device__ __forceinline__ void apply_columns(Accumulators& acc, int half, const Column* columns, const F& f) {
  const float4* const pairs = reinterpret_cast<const float4*>(columns + threadIdx.x % 4 * 2);
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float4 two = __ldg(pairs + n * 4);  // factor, addend of columns col(n, 0) and col(n, 1)
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      float &even = acc[m][n][2 * half], &odd = acc[m][n][2 * half + 1];
      even = f(even, two.x, two.y, m);
      odd = f(odd, two.z, two.w, m);
    }
  }
}

// To the owners: the largest number of the warp's columns. NaN is passed over.
__device__ __forceinline__ float largest_of_rows(const Accumulators& acc, int half) {
  float of_lane[4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    of_lane[m] = fmaxf(acc[m][0][2 * half], acc[m][0][2 * half + 1]);
#pragma unroll
    for (int n = 1; n < 8; ++n) of_lane[m] = fmaxf(of_lane[m], fmaxf(acc[m][n][2 * half], acc[m][n][2 * half + 1]));
  }
  return OwnedRows::gather(of_lane, Max());
}

// A sum of powers relative to `before`, and one relative to `top`: their sum, relative to the larger.
__device__ __forceinline__ float add_relative(float sum, float before, float added, float top, float factor) {
  const RelativePower power(fmaxf(top, before), factor);
  return __fmaf_rn(added, power(top), sum == 0 ? 0 : sum * power(before));
}

// To the owners: the sum of the powers of the warp's columns, relative to `top`.
__device__ __forceinline__ float sum_of_powers(const Accumulators& acc, int half, float top, float factor) {
  float of_lane[4];
#pragma unroll
  for (int m = 0; m < 4; ++m) {
    const RelativePower power(OwnedRows::spread(top, m), OwnedRows::spread(factor, m));
    float even = power(acc[m][0][2 * half]), odd = power(acc[m][0][2 * half + 1]);
#pragma unroll
    for (int n = 1; n < 8; ++n) {
      even += power(acc[m][n][2 * half]);
      odd += power(acc[m][n][2 * half + 1]);
    }
    of_lane[m] = even + odd;
  }
  return OwnedRows::gather(of_lane, Plus());
}

inline constexpr int kExchangeBytes = 4 * kTileRows * 4;

// Combines what the four warps that share a row hold of it: every owner gets f over all four, in the order of
// Lanes<4>. By the whole block; shared: kExchangeBytes.
template <class V, class F>
__device__ __forceinline__ void combine_across_warps(V (&x)[2], void* shared, const F& f) {
  static_assert(sizeof(V) == 4);
  V* const all = static_cast<V*>(shared);
#pragma unroll
  for (int half = 0; half < 2; ++half) all[Place::warp_col() / kWarpCols * kTileRows + OwnedRows::row(half)] = x[half];
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const V* const of_row = all + OwnedRows::row(half);
    x[half] = f(f(of_row[0], of_row[2 * kTileRows]), f(of_row[kTileRows], of_row[3 * kTileRows]));
  }
  __syncthreads();
}

}  // namespace pyfastcal::cuda
