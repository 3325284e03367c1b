// How bins finds the bin of a confidence in a few instructions.
#pragma once
#include "../../../common/bins.h"
#include "../../rows/rows.cuh"

namespace pyfastcal::cuda {

// The bin of an fp32 number without a search: [0, 1] in equal parts, a power of two of them, of which each holds at
// most one interior edge. A part for 1 comes last.
struct Parts {
  static constexpr int kMost = 128;
  struct Part {
    float edge;  // the least number that reaches it; infinity where there is none
    int below;   // the bin of smaller numbers
  };
  Part part[kMost + 1];
  int crowded;  // whether one holds more, and bins must be searched for

  // As few as hold one edge of equal-width bins each: the fewer, the fewer share a bank of shared memory.
  __device__ static int count(int n_bins) { return n_bins <= 16 ? 16 : n_bins <= 32 ? 32 : n_bins <= 64 ? 64 : kMost; }

  // By the block, which must wait for all before and after. `crowded` is 0 before.
  __device__ void fill(const float* edges, int n_bins, bool closed_right, int parts) {
    for (int i = int(threadIdx.x); i <= parts; i += int(blockDim.x)) {
      const float begin = float(i) / float(parts), end = float(i + 1) / float(parts);
      const int low = find_bin(begin, edges, 0, n_bins - 1, true), high = find_bin(end, edges, 0, n_bins - 1, true);
      if (i == parts) {
        part[i] = {kInfinity, find_bin(begin, edges, 0, n_bins - 1, closed_right)};
      } else if (high == low) {
        part[i] = {kInfinity, low};
      } else {
        const float edge = edges[low + 1];
        part[i] = {closed_right ? __uint_as_float(__float_as_uint(fabsf(edge)) + 1) : edge, low};
      }
      if (i < parts && high - low > 1) atomicExch(&crowded, 1);
    }
  }
  // Of any number: it must be in range only for the result to mean something.
  __device__ __forceinline__ int find(float x, float parts) const {
    const Part p = part[min(uint32_t(__float2int_rz(x * parts)), uint32_t(parts))];
    return p.below + (x >= p.edge);
  }
};

}  // namespace pyfastcal::cuda
