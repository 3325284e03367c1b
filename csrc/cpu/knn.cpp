#include "sound.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> knn_op(const Tensor& queries, const Tensor& bank, int64_t k, bool exclude_self,
                                         bool normalize) {
  check_knn(queries, bank, k, exclude_self);
  Tensor distances = new_float(queries, {queries.size(0), k}), indices = new_long(queries, {queries.size(0), k});
  kernels().knn(Rows(queries), Rows(bank), k, exclude_self, normalize, distances.mutable_data_ptr<float>(),
                indices.mutable_data_ptr<int64_t>());
  return {distances, indices};
}

static std::tuple<Tensor, Tensor> checked_knn_op(const Tensor& queries, const Tensor& bank, int64_t k,
                                                 bool exclude_self, bool normalize) {
  const bool one = queries.dim() == 1;
  const Tensor rows = one ? one_row(queries) : queries;
  const CheckedCall call("pyfastcal::checked_knn", rows);
  check_knn(rows, bank, k, exclude_self, call.op());
  Tensor distances = one ? new_float(rows, {k}) : new_float(rows, {rows.size(0), k});
  Tensor indices = one ? new_long(rows, {k}) : new_long(rows, {rows.size(0), k});
  kernels().knn(Rows(rows), Rows(bank), k, exclude_self, normalize, distances.mutable_data_ptr<float>(),
                indices.mutable_data_ptr<int64_t>());
  call.result("queries", rows, distances);
  return {distances, indices};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) {
  m.impl("knn", TORCH_BOX(&knn_op));
  m.impl("checked_knn", TORCH_BOX(&checked_knn_op));
}

}  // namespace pyfastcal
