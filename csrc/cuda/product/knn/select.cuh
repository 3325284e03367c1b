// The k-th largest of a set of scores: for a warp that holds them in registers bit by bit from the top, the largest
// number that at least k keys reach; for a block, which must read them each time anew, eight bits at a time.
#pragma once
#include "../../runtime/primitives.cuh"

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

struct Digits {
  int count[256];   // of the keys that share all digits before: how many have this one
  int digit, left;  // the k-th largest key's, and which of these keys it is; 0: there are fewer than k
};

// The k-th largest of a block's keys; 0 as above. visit_all(f) calls f(key) for each of a thread's keys, as often as it
// is called; keys of 0 do not count.
template <class VisitAll>
__device__ uint32_t block_kth_largest(int k, Digits& digits, const VisitAll& visit_all) {
  uint32_t kth = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = int(threadIdx.x); i < 256; i += int(blockDim.x)) digits.count[i] = 0;
    __syncthreads();
    visit_all([&](uint32_t key) {
      if (key != 0 && uint64_t(key ^ kth) >> (shift + 8) == 0) atomicAdd(&digits.count[key >> shift & 255], 1);
    });
    __syncthreads();
    if (threadIdx.x < 32) {
      // lane l has eight digits, from 255 - 8 l down
      const int first = 255 - 8 * int(threadIdx.x);
      int mine = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) mine += digits.count[first - i];
      int larger = mine;  // keys, with larger digits and these
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int of_lane = __shfl_up_sync(kWholeWarp, larger, step);
        if (int(threadIdx.x) >= step) larger += of_lane;
      }
      if (threadIdx.x == 31 && larger < k) digits.left = 0;
      larger -= mine;
      if (larger < k && larger + mine >= k) {
        int digit = first;
        while (larger + digits.count[digit] < k) larger += digits.count[digit--];
        digits.digit = digit;
        digits.left = k - larger;
      }
    }
    __syncthreads();
    k = digits.left;
    if (k == 0) return 0;
    kth |= uint32_t(digits.digit) << shift;
  }
  return kth;
}

}  // namespace pyfastcal::cuda
