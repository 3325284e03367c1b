// The kernels' plain arguments, the same for both halves: pointers and sizes, no torch. Arguments were checked in
// pyfastcal/ops/; pointers are to memory of the device that the kernel runs on.
#pragma once
#include <cstdint>

namespace pyfastcal {

enum class Dtype { kFloat, kHalf, kBFloat16, kDouble };  // kDouble: confidences only

// Rows of D numbers each, `stride` elements apart.
struct Matrix {
  const void* data;
  Dtype dtype;
  int64_t rows, cols, stride;
};

// A row's logits are factor * (its logits), factor = class_weight[argmax] * sample_weight[row]; null stands for ones.
struct Factors {
  const float* class_weight;
  const float* sample_weight;
};

struct Bins {
  const float* edges;  // n_bins + 1, ascending; null: equal widths on [0, 1] (in the CUDA half only)
  int64_t n_bins, n_groups;
  bool closed_right;
};

}  // namespace pyfastcal
