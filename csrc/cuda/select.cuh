// The k-th largest of a set of scores, for a warp that holds them in registers and for a block that reads them: bit by
// bit from the top, the largest number that at least k keys reach.
#pragma once
#include "primitives.cuh"

namespace pyfastcal::cuda {

inline constexpr uint32_t kWholeWarp = ~0u;

// Unsigned numbers in the order of the floats that they stand for; 0 is below the key of -infinity and stands for
// nothing. Not for NaN.
__device__ inline uint32_t to_key(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ inline float from_key(uint32_t key) {  // -infinity for 0
  if (key == 0) return __uint_as_float(0xff800000u);
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The k-th largest key of a warp that holds n, the i-th in keys[i / 32] of lane i % 32 and 0 where there is none; 0 if
// there are fewer than k.
template <int N>
__device__ inline uint32_t warp_kth_largest(const uint32_t (&keys)[N], int n, int k) {
  uint32_t kth = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t trial = kth | 1u << bit;
    int reach = 0;
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (32 * i < n) reach += keys[i] >= trial;
    if (__reduce_add_sync(kWholeWarp, reach) >= k) kth = trial;
  }
  return kth;
}

// The k-th largest of a block's keys; 0 as above. visit_all(f) calls f(key) for each of a thread's keys, as often as it
// is called. `reach`: 32 counters in shared memory.
template <class VisitAll>
__device__ uint32_t block_kth_largest(int k, int (&reach)[32], const VisitAll& visit_all) {
  if (threadIdx.x < 32) reach[threadIdx.x] = 0;
  __syncthreads();
  uint32_t kth = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t trial = kth | 1u << bit;
    int mine = 0;
    visit_all([&](uint32_t key) { mine += key >= trial; });
    mine = __reduce_add_sync(kWholeWarp, mine);
    if (threadIdx.x % 32 == 0 && mine) atomicAdd(&reach[bit], mine);
    __syncthreads();
    if (reach[bit] >= k) kth = trial;
  }
  return kth;
}

}  // namespace pyfastcal::cuda
