// CUDA's own names on the CPU model (model.h): built-in variables, barriers, warp operations, atomics, intrinsics.
#pragma once
#include <cuda_bf16.h>  // CUDA's own headers, which a host compiler reads too: vector types, 16-bit floats
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <type_traits>

#include "model.h"

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static const
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define __syncthreads() \
  ((void)cuda_model::block_barrier(0, cuda_model::Vote::kOr, {"__syncthreads", __FILE__, __LINE__}))
#define __syncthreads_or(p) \
  cuda_model::block_barrier((p), cuda_model::Vote::kOr, {"__syncthreads_or", __FILE__, __LINE__})
#define __syncthreads_and(p) \
  cuda_model::block_barrier((p), cuda_model::Vote::kAnd, {"__syncthreads_and", __FILE__, __LINE__})
#define __syncthreads_count(p) \
  cuda_model::block_barrier((p), cuda_model::Vote::kCount, {"__syncthreads_count", __FILE__, __LINE__})

inline void __syncwarp(unsigned mask = ~0u, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::meet(mask, 0, 0, cuda_model::complete_sync, {"__syncwarp", file, line}, true);
}
template <class T>
T __shfl_sync(unsigned mask, T x, int source, int width = 32, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::shuffle(mask, x, cuda_model::segment(width) | (source & (width - 1)), {"__shfl_sync", file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int flip, int width = 32, CUDA_MODEL_PLACE_ARGUMENTS) {
  const int source = cuda_model::lane() ^ flip;
  const bool inside = source < cuda_model::segment(width) + width;  // an earlier segment may be read, a later not
  return cuda_model::shuffle(mask, x, inside ? source : cuda_model::lane(), {"__shfl_xor_sync", file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32, CUDA_MODEL_PLACE_ARGUMENTS) {
  const int source = cuda_model::lane() - int(by);
  const bool inside = source >= cuda_model::segment(width);
  return cuda_model::shuffle(mask, x, inside ? source : cuda_model::lane(), {"__shfl_up_sync", file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32, CUDA_MODEL_PLACE_ARGUMENTS) {
  const int source = cuda_model::lane() + int(by);
  const bool inside = source < cuda_model::segment(width) + width;
  return cuda_model::shuffle(mask, x, inside ? source : cuda_model::lane(), {"__shfl_down_sync", file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_MODEL_PLACE_ARGUMENTS) {
  return unsigned(
      cuda_model::meet(mask, predicate != 0, 0, cuda_model::complete_ballot, {"__ballot_sync", file, line}));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_MODEL_PLACE_ARGUMENTS) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_MODEL_PLACE_ARGUMENTS) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return unsigned(
      cuda_model::meet(mask, cuda_model::to_bits(x), 0, cuda_model::complete_match, {"__match_any_sync", file, line}));
}

#define CUDA_MODEL_REDUCE(name, reduction)                                                     \
  template <class T>                                                                           \
  T name(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {                                     \
    return cuda_model::reduce<cuda_model::Reduction::reduction>(mask, x, {#name, file, line}); \
  }
CUDA_MODEL_REDUCE(__reduce_add_sync, kAdd)
CUDA_MODEL_REDUCE(__reduce_min_sync, kMin)
CUDA_MODEL_REDUCE(__reduce_max_sync, kMax)
CUDA_MODEL_REDUCE(__reduce_and_sync, kAnd)
CUDA_MODEL_REDUCE(__reduce_or_sync, kOr)
CUDA_MODEL_REDUCE(__reduce_xor_sync, kXor)
#undef CUDA_MODEL_REDUCE

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T old) { return T(old + x); });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T old) { return x < old ? x : old; });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T old) { return old < x ? x : old; });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T old) { return T(old | x); });
}
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T old) { return T(old & x); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T) { return x; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
  return cuda_model::read_modify_write(p, [=](T old) { return old == expected ? x : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned last) {
  return cuda_model::read_modify_write(p, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}

inline void __threadfence() { cuda_model::fence(); }
inline void __threadfence_block() { cuda_model::fence(); }

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcg(T* p, std::type_identity_t<T> x) {
  *p = x;
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> x) {
  *p = x;
}

inline int __float_as_int(float x) { return cuda_model::from_bits<int>(cuda_model::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return cuda_model::from_bits<unsigned>(cuda_model::to_bits(x)); }
inline float __int_as_float(int x) { return cuda_model::from_bits<float>(cuda_model::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return cuda_model::from_bits<float>(cuda_model::to_bits(x)); }
inline long long __double_as_longlong(double x) { return cuda_model::from_bits<long long>(cuda_model::to_bits(x)); }
inline double __longlong_as_double(long long x) { return cuda_model::from_bits<double>(cuda_model::to_bits(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __brev(unsigned x) {
  unsigned out = 0;
  for (int i = 0; i < 32; ++i) out |= (x >> i & 1) << (31 - i);
  return out;
}
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rz(float x) {  // saturates; NaN is 0
  return x >= 0x1p31f ? INT_MAX : x <= -0x1p31f ? INT_MIN : std::isnan(x) ? 0 : int(x);
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
using std::max;
using std::min;

// The functions of the CUDA runtime that launch code uses are in cuda_runtime.cpp; this one is a template over kernels.
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel* kernel, int, size_t shared_bytes) {
  return cuda_model::ask_occupancy(blocks, reinterpret_cast<const void*>(kernel), shared_bytes);
}
