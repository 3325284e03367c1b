// scale_by_contrast: what ContrastAwareCalibration.forward defines in torch operations, in one call and to the bit. The
// sum over the classes is torch's own, whose order of additions is nobody else's.
#include "contrast_weights.h"

namespace pyfastcal {

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
  const ContrastConstants constants(call, alpha, k, lambda1, lambda2);
  const int64_t n = rows.size(0), cols = rows.size(1), last[] = {1};

  const Tensor distance = new_tensor(rows, {n, cols}, ScalarType::Float);
  kernels().absolute_difference(Rows(rows), Rows(rows0), distance.mutable_data_ptr<float>());
  const Tensor z = torch::stable::sum(distance, torch::headeronly::IntHeaderOnlyArrayRef(last, 1));
  float* const mean = z.mutable_data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) mean[i] = mean[i] / float(cols) / float(logit_scale);
  const Tensor weight = constants.weights(call, "logits", z);

  const auto dtype = rows.scalar_type();
  const Tensor out = one ? new_tensor(rows, {cols}, dtype) : new_tensor(rows, {n, cols}, dtype);
  const bool sound =
      kernels().scale_logits(Rows(rows), {nullptr, weight.const_data_ptr<float>()}, 1.0f, out.mutable_data_ptr());
  call.demand(sound, "logits", rows, "must be finite, and so small that the result is");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("scale_by_contrast", TORCH_BOX(&scale_by_contrast_op)); }

}  // namespace pyfastcal
