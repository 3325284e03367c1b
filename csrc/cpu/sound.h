// The entries' checks of values, for small calls: a checked_* op looks at its factors and its result in the call itself
// and raises where it cannot tell that all is sound. It is cautious: what it refuses the entry in pyfastcal/ops/ looks
// at once more, to do it or to say in its own words what is wrong.
#pragma once
#include <cstring>
#include <limits>

#include "tensors.h"

namespace pyfastcal {

inline int32_t bits_of(float x) {
  int32_t out;
  std::memcpy(&out, &x, 4);
  return out;
}

// Whether all of x lies in [low, high], both positive: their bits are in the order of the numbers, those of NaN and of
// negative numbers lie outside. No branch, so that it vectorises.
inline bool all_within(const float* x, int64_t n, float low, float high) {
  const int32_t first = bits_of(low), last = bits_of(high);
  int32_t outside = 0;
  for (int64_t i = 0; i < n; ++i) outside |= (bits_of(x[i]) < first) | (bits_of(x[i]) > last);
  return !outside;
}

// Whether all magnitudes are below the limit: false for NaN.
inline bool all_below(const float* x, int64_t n, float limit) {
  const int32_t magnitude = 0x7fffffff, end = bits_of(limit);
  int32_t outside = 0;
  for (int64_t i = 0; i < n; ++i) outside |= (bits_of(x[i]) & magnitude) >= end;
  return !outside;
}

// A call whose values are looked at too.
class CheckedCall : public Call {
 public:
  using Call::Call;

  // Factors in a range so narrow that a product of three is in that of each (arguments/ranges.py).
  static constexpr float kLow = 1e-10f, kHigh = 1e6f;
  void factors(const char* name, const std::optional<Tensor>& x, const OptionalVector& values) const {
    if (x) demand(all_within(values.get(), x->size(0), kLow, kHigh), name, *x, "must lie in [1e-10, 1e6]");
  }
  void factor(const char* name, double x) const {
    STD_TORCH_CHECK(x >= kLow && x <= kHigh, op(), ": ", name, " must lie in [1e-10, 1e6], got ", x);
  }
  void bias(const char* name, const std::optional<Tensor>& x, const OptionalVector& values) const {
    if (x) demand(all_below(values.get(), x->size(0), 1e30f), name, *x, "must lie in [-1e30, 1e30]");
  }
  void result(const char* name, const Tensor& of, const Tensor& result) const {
    const bool finite =
        all_below(result.const_data_ptr<float>(), result.numel(), std::numeric_limits<float>::infinity());
    demand(finite, name, of, "must be finite, and so small that the result is");
  }
};

// A row of numbers as a matrix of one row, and a number as a vector of one: what else comes is none of one image.
inline Tensor one_row(const Tensor& x) { return torch::stable::unsqueeze(x, 0); }
inline std::optional<Tensor> one_row(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(one_row(*x)) : std::nullopt;
}

// Confidence and prediction, to be filled: a number each of `one` image.
inline std::tuple<Tensor, Tensor> new_predictions(const Tensor& rows, bool one) {
  if (one) return {new_float(rows, {}), new_long(rows, {})};
  return {new_float(rows, {rows.size(0)}), new_long(rows, {rows.size(0)})};
}

}  // namespace pyfastcal
