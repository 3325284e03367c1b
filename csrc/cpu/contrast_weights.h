// CAC's weights of contrast distances, in place and to the bits of reference/weights.py: exp is torch's own, whose
// polynomial is nobody else's.
#pragma once
#include <array>

#include "sound.h"

namespace pyfastcal {

inline Tensor exp_of(const Tensor& x) {
  std::array<StableIValue, 1> stack{torch::stable::detail::from(x)};
  const auto error = torch_call_dispatcher("aten::exp", "", stack.data(), TORCH_ABI_VERSION);
  STD_TORCH_CHECK(error == 0, "pyfastcal: torch has no exp");
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// Weights that nobody needs to be told of: none vanishes (NaN would), and the median lies in [0.5, 1.5].
inline bool are_usual(const float* weight, int64_t n) {
  int64_t low = 0, high = 0, vanishing = 0;
  for (int64_t i = 0; i < n; ++i) {
    low += weight[i] < 0.5f;
    high += weight[i] > 1.5f;
    vanishing += !(weight[i] >= 1e-3f);
  }
  const int64_t before = (n - 1) / 2;  // of the lower median, as many are smaller or equal
  return !vanishing && low <= before && n - high > before;
}

// The calibrator's constants, () fp64 each.
class ContrastConstants {
 public:
  ContrastConstants(const CheckedCall& call, const Tensor& alpha, const Tensor& k, const Tensor& lambda1,
                    const Tensor& lambda2)
      : alpha_(number(call, "alpha", alpha)),
        k_(number(call, "k", k)),
        low_(number(call, "lambda1", lambda1)),
        high_(number(call, "lambda2", lambda2)) {}

  // z: (N,) fp32. An error where a weight is one to be told of.
  Tensor weights(const CheckedCall& call, const char* name, const Tensor& z) const {
    const int64_t n = z.size(0);
    float* const exponent = z.mutable_data_ptr<float>();
    for (int64_t i = 0; i < n; ++i) exponent[i] *= -k_;
    const Tensor out = exp_of(z);
    float* const weight = out.mutable_data_ptr<float>();
    for (int64_t i = 0; i < n; ++i) {
      const float x = alpha_ * weight[i];
      weight[i] = x < low_ || x > high_ ? x * x : x;
    }
    call.demand(are_usual(weight, n), name, z, "must give no weight below 0.001 and a median in [0.5, 1.5]");
    return out;
  }

 private:
  // As torch takes a number beside fp32 ones.
  static float number(const CheckedCall& call, const char* name, const Tensor& x) {
    call.demand(x.scalar_type() == ScalarType::Double && x.dim() == 0 && x.is_cpu(), name, x,
                "must be a float64 number on the CPU");
    return float(*x.const_data_ptr<double>());
  }

  const float alpha_, k_, low_, high_;
};

}  // namespace pyfastcal
