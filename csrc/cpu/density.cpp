#include "tensors.h"

namespace pyfastcal {

static Tensor log_density_op(const Tensor& queries, const Tensor& points, const Tensor& bandwidth) {
  check_log_density(queries, points, bandwidth);
  const Tensor h = torch::stable::contiguous(bandwidth);
  Tensor out = torch::stable::new_empty(queries, {queries.size(0)}, ScalarType::Double);
  kernels().log_density(Rows(queries), Rows(points), h.const_data_ptr<double>(), out.mutable_data_ptr<double>());
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("log_density", TORCH_BOX(&log_density_op)); }

}  // namespace pyfastcal
