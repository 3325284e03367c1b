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

// One fp32 step above 1, which a softmax may round to: it counts as 1.
inline constexpr float kMostConfidence = 1 + 0x1p-23f;

template <class T>
PYFASTCAL_HOST_DEVICE inline bool valid_confidence(T x) {  // false for NaN
  return x >= T(0) && x <= T(kMostConfidence);
}

// What a valid confidence counts as.
template <class T>
PYFASTCAL_HOST_DEVICE inline T at_most_one(T x) {
  return x < T(1) ? x : T(1);
}

PYFASTCAL_HOST_DEVICE inline int64_t fixed_point(double x) {  // of one from 0 to 1
  // 1.5 * 2^20 puts the last mantissa bit at 2^-32: the addition rounds there
  const double magic = 1572864.0, shifted = x + magic;
  int64_t a, b;
  memcpy(&a, &shifted, 8);
  memcpy(&b, &magic, 8);
  return a - b;
}

// Edge i of n_bins bins of equal width on [0, 1].
PYFASTCAL_HOST_DEVICE inline float uniform_edge(int64_t i, int64_t n_bins) { return float(double(i) / double(n_bins)); }

// Number of interior edges that x reaches, where it is known to lie in [low, high].
template <class T, class Edges, class Index>
PYFASTCAL_HOST_DEVICE inline Index find_bin(T x, const Edges& edges, Index low, Index high, bool closed_right) {
  while (low < high) {
    const Index middle = (low + high) / 2;
    const T edge = T(edges[middle + 1]);
    if (closed_right ? edge < x : edge <= x)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Number of interior edges (edges[1] .. edges[n_bins - 1]) that x reaches: in as many steps for every x, and without a
// branch that a processor would have to guess.
template <class T>
PYFASTCAL_HOST_DEVICE inline int64_t find_bin(T x, const float* edges, int64_t n_bins, bool closed_right) {
  int64_t low = 0;
  for (int64_t left = n_bins; left > 1;) {  // it is one of so many from `low` on
    const int64_t half = left / 2;
    const T edge = T(edges[low + half]);
    low += half & -int64_t(closed_right ? edge < x : edge <= x);
    left -= half;
  }
  return low;
}

}  // namespace pyfastcal
