// scale_by_contrast: what ContrastAwareCalibration.forward defines in torch operations, in one call and to the bit. The
// sum over the classes and exp are torch's own, whose order of additions and whose polynomial are nobody else's.
#include <array>
#include <cmath>

#include "sound.h"

namespace pyfastcal {

static Tensor exp_of(const Tensor& x) {
  std::array<StableIValue, 1> stack{torch::stable::detail::from(x)};
  const auto error = torch_call_dispatcher("aten::exp", "", stack.data(), TORCH_ABI_VERSION);
  STD_TORCH_CHECK(error == 0, "pyfastcal: torch has no exp");
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// As torch takes a number beside fp32 ones.
static float constant_of(const CheckedCall& call, const char* name, const Tensor& x) {
  call.demand(x.scalar_type() == ScalarType::Double && x.dim() == 0 && x.is_cpu(), name, x,
              "must be a float64 number on the CPU");
  return float(*x.const_data_ptr<double>());
}

// Weights that nobody needs to be told of: none vanishes (NaN would), and the median lies in [0.5, 1.5].
static bool are_usual(const float* weight, int64_t n) {
  int64_t low = 0, high = 0, vanishing = 0;
  for (int64_t i = 0; i < n; ++i) {
    low += weight[i] < 0.5f;
    high += weight[i] > 1.5f;
    vanishing += !(weight[i] >= 1e-3f);
  }
  const int64_t before = (n - 1) / 2;  // of the lower median, as many are smaller or equal
  return !vanishing && low <= before && n - high > before;
}

static Tensor scale_by_contrast_op(const Tensor& logits, const Tensor& zeroshot_logits, double logit_scale,
                                   const Tensor& alpha, const Tensor& k, const Tensor& lambda1, const Tensor& lambda2) {
  const bool one = logits.dim() == 1 && zeroshot_logits.dim() == 1;
  const Tensor rows = one ? one_row(logits) : logits, rows0 = one ? one_row(zeroshot_logits) : zeroshot_logits;
  const CheckedCall call("pyfastcal::scale_by_contrast", rows);
  call.matrix("logits", rows);
  call.not_empty("logits", rows);
  call.matrix("zeroshot_logits", rows0, rows.size(1), rows.size(0));
  call.demand(rows.is_contiguous() && rows0.is_contiguous(), "logits", rows, "and zeroshot_logits must be contiguous");
  STD_TORCH_CHECK(logit_scale >= 1e-30 && logit_scale <= 1e20, call.op(),
                  ": logit_scale must lie in [1e-30, 1e20], got ", logit_scale);
  const float a = constant_of(call, "alpha", alpha), minus_k = -constant_of(call, "k", k);
  const float low = constant_of(call, "lambda1", lambda1), high = constant_of(call, "lambda2", lambda2);
  const int64_t n = rows.size(0), cols = rows.size(1), last[] = {1};

  const Tensor distance = new_tensor(rows, {n, cols}, ScalarType::Float);
  kernels().absolute_difference(Rows(rows), Rows(rows0), distance.mutable_data_ptr<float>());
  const Tensor z = torch::stable::sum(distance, torch::headeronly::IntHeaderOnlyArrayRef(last, 1));
  float* const exponent = z.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) exponent[i] = minus_k * (exponent[i] / float(cols) / float(logit_scale));
  const Tensor weight = exp_of(z);
  float* const gamma = weight.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) {
    const float x = a * gamma[i];
    gamma[i] = x < low || x > high ? x * x : x;
  }
  call.demand(are_usual(gamma, n), "logits", rows, "must give no weight below 0.001 and a median in [0.5, 1.5]");

  const auto dtype = rows.scalar_type();
  const Tensor out = one ? new_tensor(rows, {cols}, dtype) : new_tensor(rows, {n, cols}, dtype);
  const bool sound = kernels().scale_logits(Rows(rows), {nullptr, gamma}, 1.0f, out.mutable_data_ptr());
  call.demand(sound, "logits", rows, "must be finite, and so small that the result is");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("scale_by_contrast", TORCH_BOX(&scale_by_contrast_op)); }

}  // namespace pyfastcal
