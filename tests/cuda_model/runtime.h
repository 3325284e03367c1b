// A CPU model of CUDA: runs the torch-free sources of csrc/cuda, compiled by g++, where there is no GPU.
//
// One OS thread runs a launch block after block. Every CUDA thread is a fibre that runs until it must wait for others:
// at a barrier, or at a warp-wide operation, which is a meeting of the lanes that its mask names. A meeting that cannot
// take place (a divergent barrier, an absent lane) ends the program with a message. In which order those that may run
// do run is the schedule's choice.
//
// The model itself is compiled without sanitizers, kernels and tests with one or none. Under the thread sanitizer every
// CUDA thread is a thread of its own; only barriers, __syncwarp and fences order memory, so what a kernel leaves
// unordered is reported, between a block's threads and between one block and the next. Under the address sanitizer the
// block's shared memory ends where it was asked to.
#pragma once
#include <cuda_bf16.h>  // CUDA's own headers, which a host compiler reads too: vector types, 16-bit floats
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

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

namespace cuda_model {

// In which order waiting threads go on: as they are numbered; the other way round; at random, also interrupted at
// atomics; or those that were woken last first, so that one warp runs far ahead of the others.
enum class Schedule { kForward, kReverse, kShuffle, kGreedy };

struct Settings {
  Schedule schedule = Schedule::kForward;
  uint64_t seed = 1;
  bool copies_land_early = false;  // asynchronous copies: when issued, or only when waited for
  // The current device, which knows of no kernel's limit before it is set there; and what the kernels' launch code asks
  // of it. Devices whose blocks may have other amounts of shared memory must have other numbers.
  int device = 0;
  bool capturing = false;  // a stream, into a graph
  int multiprocessors = 2, blocks_per_multiprocessor = 1;
  size_t shared_per_block = 227 * 1024;
};
extern Settings settings;

struct Counters {
  uint64_t launches, blocks, switches, async_copies, limits_set;
  uint64_t matrix_loads, matrix_load_conflicts;  // of load_matrix_x4: extra cycles that bank conflicts cost
};
extern Counters counters;

[[noreturn]] void die(const char* why);
int lane();

// Where a thread waits, for messages, and to tell whether those that meet are at the same place.
struct Place {
  const char* what;
  const char* file = nullptr;
  int line = 0;
};
#define CUDA_MODEL_PLACE_ARGUMENTS const char *file = __builtin_FILE(), int line = __builtin_LINE()

enum class Vote { kOr, kAnd, kCount };
int block_barrier(int predicate, Vote vote, Place place);

// A warp-wide operation: the lanes named by `mask` meet, each with a value and an argument; the last to come calls
// `complete`, which turns values into results.
struct Warp {
  uint64_t value[32], result[32];
  int argument[32];
};
using Complete = void (*)(Warp& warp, uint32_t mask);
uint64_t meet(uint32_t mask, uint64_t value, int argument, Complete complete, Place place, bool orders_memory = false);
void complete_shuffle(Warp&, uint32_t);
void complete_ballot(Warp&, uint32_t);
void complete_match(Warp&, uint32_t);
void complete_sync(Warp&, uint32_t);

void* dynamic_shared();
// The block's own copy of a variable, which `key` identifies.
void* static_shared(const void* key, size_t size);
bool in_shared(const void* p, size_t size);

void fence();
void at_atomic();

cudaError_t ask_occupancy(int* blocks, const void* kernel, size_t shared_bytes);

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> thread);

template <class T>
uint64_t to_bits(T x) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const void*>(&x), sizeof x);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T x;
  std::memcpy(static_cast<void*>(&x), &bits, sizeof x);
  return x;
}

template <class T>
T shuffle(uint32_t mask, T x, int source, Place place) {
  return from_bits<T>(meet(mask, to_bits(x), source, complete_shuffle, place));
}
// The lanes of a shuffle's segment: [first, first + width).
inline int segment(int width) { return lane() & ~(width - 1); }

enum class Reduction { kAdd, kMin, kMax, kAnd, kOr, kXor };
template <class T, Reduction R>
void complete_reduce(Warp& warp, uint32_t mask);  // for int and unsigned
template <Reduction R, class T>
T reduce(uint32_t mask, T x, Place place) {
  return T(meet(mask, uint64_t(x), 0, complete_reduce<T, R>, place));
}

// Fibres are never interrupted here, so that load and store may be two: the sanitizers see them as atomic.
template <class T, class F>
T read_modify_write(T* p, F f) {
  at_atomic();
  T old, changed;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  changed = f(old);
  __atomic_store(p, &changed, __ATOMIC_RELAXED);
  return old;
}

}  // namespace cuda_model

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
template <class T>
T __reduce_add_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::reduce<cuda_model::Reduction::kAdd>(mask, x, {"__reduce_add_sync", file, line});
}
template <class T>
T __reduce_min_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::reduce<cuda_model::Reduction::kMin>(mask, x, {"__reduce_min_sync", file, line});
}
template <class T>
T __reduce_max_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::reduce<cuda_model::Reduction::kMax>(mask, x, {"__reduce_max_sync", file, line});
}
template <class T>
T __reduce_and_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::reduce<cuda_model::Reduction::kAnd>(mask, x, {"__reduce_and_sync", file, line});
}
template <class T>
T __reduce_or_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::reduce<cuda_model::Reduction::kOr>(mask, x, {"__reduce_or_sync", file, line});
}
template <class T>
T __reduce_xor_sync(unsigned mask, T x, CUDA_MODEL_PLACE_ARGUMENTS) {
  return cuda_model::reduce<cuda_model::Reduction::kXor>(mask, x, {"__reduce_xor_sync", file, line});
}

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
