#include "tensors.h"

namespace pyfastcal {

static Tensor nll_op(const Tensor& logits, const Tensor& labels, double beta) {
  check_nll(logits, labels);
  const Tensor y = torch::stable::contiguous(labels);
  Tensor out = torch::stable::new_empty(logits, {3}, ScalarType::Double);
  const Nll result = kernels().nll(Rows(logits), y.const_data_ptr<int64_t>(), beta);
  double* values = out.mutable_data_ptr<double>();
  values[0] = result.value;
  values[1] = result.slope;
  values[2] = result.curvature;
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("nll", TORCH_BOX(&nll_op)); }

}  // namespace pyfastcal
