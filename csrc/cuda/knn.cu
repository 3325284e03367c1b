#include "product/knn.cuh"

#include "tensors.cuh"
#include "wanted_product.h"

namespace pyfastcal::cuda {

static std::tuple<Tensor, Tensor> knn_op(const Tensor& queries, const Tensor& bank, int64_t k, bool exclude_self,
                                         bool normalize) {
  check_knn(queries, bank, k, exclude_self);
  const Device device(queries);
  const Rows query_rows(queries), bank_rows(bank);
  STD_TORCH_CHECK(k <= kMostNeighbours && bank_rows.rows < int64_t(1) << 31, "pyfastcal: knn is too large for CUDA");
  Tensor distances = new_float(queries, {query_rows.rows, k}), indices = new_long(queries, {query_rows.rows, k});
  if (query_rows.rows == 0) return {distances, indices};
  knn::Plan plan;
  check(plan_knn(query_rows, bank_rows, k, exclude_self, plan, wanted_product()));
  Tensor workspace = new_workspace(queries, plan.bytes);
  check(launch_knn(query_rows, bank_rows, exclude_self, normalize, distances.mutable_data_ptr<float>(),
                   indices.mutable_data_ptr<int64_t>(), plan, workspace.mutable_data_ptr(), device.stream()));
  return {distances, indices};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("knn", TORCH_BOX(&knn_op)); }

}  // namespace pyfastcal::cuda
