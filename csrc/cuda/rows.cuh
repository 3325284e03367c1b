// Rows of numbers as the kernels read them: element types, 16-byte vectors, and the threads that share a row.
#pragma once
#include <limits>

#include "../common/arguments.h"
#include "primitives.cuh"

namespace pyfastcal::cuda {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// On the host: f(pointer of the element type), a cudaError_t.
template <class F>
cudaError_t with_type(const void* data, Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::kFloat: return f(static_cast<const float*>(data));
    case Dtype::kHalf: return f(static_cast<const __half*>(data));
    case Dtype::kBFloat16: return f(static_cast<const __nv_bfloat16*>(data));
    case Dtype::kDouble: break;  // no matrix is
  }
  return cudaErrorInvalidValue;
}

template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T x[kSize];
};

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// On the host: whether every row starts at a multiple of 16 bytes.
template <class T>
bool rows_are_aligned(const T* data, int64_t rows, int64_t stride) {
  return is_aligned(data) && (rows <= 1 || stride * int64_t(sizeof(T)) % 16 == 0);
}

// The same numbers whether they are aligned or not: what is computed of a row cannot depend on where it lies.
template <class T>
__device__ __forceinline__ Vector<T> load_vector(const T* p, bool aligned) {
  if (aligned) return *reinterpret_cast<const Vector<T>*>(p);
  Vector<T> v;
#pragma unroll
  for (int e = 0; e < Vector<T>::kSize; ++e) v.x[e] = p[e];
  return v;
}

template <class T>
__device__ __forceinline__ T shuffle_xor(T x, int step) {
  return __shfl_xor_sync(~0u, x, step);
}

// kSize consecutive lanes of a warp, a power of two. The whole warp must take part in a reduction.
template <int kLanes>
struct Lanes {
  static constexpr int kSize = kLanes;
  __device__ static int rank() { return int(threadIdx.x) % kLanes; }
  // f over the lanes' x, by a tree of fixed shape; the same bits in every lane where f is commutative
  template <class T, class F>
  __device__ __forceinline__ static T reduce(T x, const F& f) {
#pragma unroll
    for (int step = kLanes / 2; step; step /= 2) x = f(x, shuffle_xor(x, step));
    return x;
  }
};

// A block of kThreads, a power of two that is a multiple of the warp.
template <int kThreads>
struct Block {
  static constexpr int kSize = kThreads;
  __device__ static int rank() { return int(threadIdx.x); }
  template <class T, class F>
  __device__ static T reduce(T x, const F& f) {
    constexpr int kWarps = kThreads / 32;
    PYFASTCAL_STATIC_SHARED(T[kWarps], of_warp);
    x = Lanes<32>::reduce(x, f);
    __syncthreads();  // what an earlier reduction left has been read
    if (rank() % 32 == 0) of_warp[rank() / 32] = x;
    __syncthreads();
    return Lanes<kWarps>::reduce(of_warp[rank() % kWarps], f);
  }
};

}  // namespace pyfastcal::cuda
