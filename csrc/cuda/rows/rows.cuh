// Rows of numbers as the kernels read them: element types, 16-byte vectors, and the threads that share a row.
#pragma once
#include <limits>

#include "../../common/arguments.h"
#include "../runtime/primitives.cuh"

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

// 16 bytes of numbers, kept as words: the compiler takes 16-bit numbers held as such apart and puts them together
// again.
template <class T>
struct Vector {
  static constexpr int kSize = 16 / sizeof(T);
  uint32_t word[4];
};

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// On the host: whether every row starts at a multiple of 16 bytes. So must those that a lone row lacks: addresses past
// the last row are made, if not read, and how a row is read must not depend on how many there are.
template <class T>
bool rows_are_aligned(const T* data, int64_t stride) {
  return is_aligned(data) && stride * int64_t(sizeof(T)) % 16 == 0;
}

template <class T>
using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;

template <class T>
__device__ __forceinline__ uint32_t load_word(const T* p) {  // of which only the numbers are aligned
  if constexpr (sizeof(T) == 4) {
    return __float_as_uint(*p);
  } else {
    uint16_t low, high;
    memcpy(&low, __builtin_assume_aligned(p, 2), 2);
    memcpy(&high, __builtin_assume_aligned(p + 1, 2), 2);
    return low | uint32_t(high) << 16;
  }
}

// Of vectors first, first + step, ... of a row those before `end`; the others stay as they are. The same numbers
// whether they are aligned or not: what is computed of a row cannot depend on where it lies.
template <bool kAligned, class T, int kVectors>
__device__ __forceinline__ void load_vectors(Vector<T> (&v)[kVectors], const T* row, uint32_t first, uint32_t step,
                                             uint32_t end) {
  constexpr int kSize = Vector<T>::kSize;
  const T* p = row + size_t(first) * kSize;
#pragma unroll
  for (uint32_t j = 0; j < kVectors; ++j)
    if (first + j * step < end) {
      if constexpr (kAligned) {
        memcpy(&v[j], __builtin_assume_aligned(p + j * step * kSize, 16), 16);
      } else {
#pragma unroll
        for (int w = 0; w < 4; ++w) v[j].word[w] = load_word(p + j * step * kSize + w * (kSize / 4));
      }
    }
}

template <class T, int kVectors>
__device__ __forceinline__ void fill_with_nan(Vector<T> (&v)[kVectors]) {
#pragma unroll
  for (Vector<T>& one : v)
#pragma unroll
    for (uint32_t& word : one.word) word = ~0u;
}

template <class T>
__device__ __forceinline__ Pair<T> to_pair(uint32_t word) {
  Pair<T> pair;
  memcpy(static_cast<void*>(&pair), &word, 4);
  return pair;
}

template <class T>
__device__ __forceinline__ void to_floats(const Vector<T>& v, float (&x)[Vector<T>::kSize]) {
#pragma unroll
  for (int w = 0; w < 4; ++w)
    if constexpr (std::is_same_v<T, float>) {
      x[w] = __uint_as_float(v.word[w]);
    } else if constexpr (std::is_same_v<T, __half>) {
      x[2 * w] = __half2float(to_pair<T>(v.word[w]).x);
      x[2 * w + 1] = __half2float(to_pair<T>(v.word[w]).y);
    } else {
      x[2 * w] = __uint_as_float(v.word[w] << 16);
      x[2 * w + 1] = __uint_as_float(v.word[w] & 0xffff0000u);
    }
}

// The largest number of a vector, NaN passed over; 16-bit numbers are compared in pairs.
template <class T>
__device__ __forceinline__ float largest(const Vector<T>& v) {
  if constexpr (std::is_same_v<T, float>) {
    float x[4];
    to_floats(v, x);
    return fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
  } else {
    const Pair<T> a = to_pair<T>(v.word[0]), b = to_pair<T>(v.word[1]), c = to_pair<T>(v.word[2]),
                  d = to_pair<T>(v.word[3]), max = __hmax2(__hmax2(a, b), __hmax2(c, d));
    return fmaxf(to_float(max.x), to_float(max.y));
  }
}

template <class T>
__device__ __forceinline__ T shuffle_xor(T x, int step) {
  return __shfl_xor_sync(~0u, x, step);
}

// kSize consecutive lanes of a warp, a power of two. The whole warp must take part in a reduction.
template <int kLanes>
struct Lanes {
  static constexpr int kSize = kLanes;
  __device__ static uint32_t rank() { return threadIdx.x % kLanes; }
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
  __device__ static uint32_t rank() { return threadIdx.x; }
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
