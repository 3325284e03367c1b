// Bin edges, ties and fixed point: the one place that decides in which bin a confidence falls and what it adds.
// Both halves (CPU, CUDA) include it, so they cannot disagree.
//
// The bin of a value is the number of interior edges that it reaches: e <= x where bins are half-open [l, u), e < x
// where they are (l, u]. So whatever lies outside the outer edges falls in the first or last bin, and 0 and 1 always
// land in one. Edges are fp32; fp32, fp16 and bf16 values are compared as the fp32 numbers they are, fp64 ones as fp64.
//
// A confidence adds round(confidence * 2^32), ties to even, to an int64: sums cannot depend on the order, and 2^31 of
// them fit.
#pragma once
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace pyfastcal {

PYFASTCAL_HOST_DEVICE inline bool valid_confidence(double x) { return x >= 0.0 && x <= 1.0; }  // false for NaN

PYFASTCAL_HOST_DEVICE inline int64_t fixed_point(double x) {  // of a valid x
  // 1.5 * 2^20 puts the last mantissa bit at 2^-32: the addition rounds there
  const double magic = 1572864.0, shifted = x + magic;
  int64_t a, b;
  memcpy(&a, &shifted, 8);
  memcpy(&b, &magic, 8);
  return a - b;
}

// Number of interior edges (edges[1] .. edges[n_bins - 1]) that x reaches.
template <class T>
PYFASTCAL_HOST_DEVICE inline int64_t find_bin(T x, const float* edges, int64_t n_bins, bool closed_right) {
  int64_t low = 0, high = n_bins - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    const T edge = T(edges[middle + 1]);
    if (closed_right ? edge < x : edge <= x)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace pyfastcal
