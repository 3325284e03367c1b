#include "tensors.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> knn_op(const Tensor& queries, const Tensor& bank, int64_t k, bool exclude_self,
                                         bool normalize) {
  check_knn(queries, bank, k, exclude_self);
  Tensor distances = new_float(queries, {queries.size(0), k}), indices = new_long(queries, {queries.size(0), k});
  kernels().knn(Rows(queries), Rows(bank), k, exclude_self, normalize, distances.mutable_data_ptr<float>(),
                indices.mutable_data_ptr<int64_t>());
  return {distances, indices};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("knn", TORCH_BOX(&knn_op)); }

}  // namespace pyfastcal
