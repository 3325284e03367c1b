#include "rows/nll.cuh"

#include "tensors.cuh"

namespace pyfastcal::cuda {

static Tensor nll_op(const Tensor& logits, const Tensor& labels, double beta) {
  check_nll(logits, labels);
  const Device device(logits);
  const Rows rows(logits);
  const Tensor y = torch::stable::contiguous(labels);
  const Tensor workspace = new_workspace(logits, nll_workspace(rows));
  Tensor out = torch::stable::new_empty(logits, {3}, ScalarType::Double);
  check(launch_nll(rows, y.const_data_ptr<int64_t>(), beta, out.mutable_data_ptr<double>(),
                   workspace.mutable_data_ptr(), device.stream()));
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("nll", TORCH_BOX(&nll_op)); }

}  // namespace pyfastcal::cuda
