#include "samples/density.cuh"

#include "tensors.cuh"

namespace pyfastcal::cuda {

static Tensor log_density_op(const Tensor& queries, const Tensor& points, const Tensor& bandwidth) {
  check_log_density(queries, points, bandwidth);
  const Device device(queries);
  const Rows q(queries), p(points);
  const Tensor h = torch::stable::contiguous(bandwidth);
  const Tensor workspace = new_workspace(queries, density_workspace(q.rows, p.rows));
  Tensor out = torch::stable::new_empty(queries, {q.rows}, ScalarType::Double);
  check(launch_density(q, p, h.const_data_ptr<double>(), out.mutable_data_ptr<double>(), workspace.mutable_data_ptr(),
                       device.stream()));
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("log_density", TORCH_BOX(&log_density_op)); }

}  // namespace pyfastcal::cuda
