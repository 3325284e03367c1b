#include "tensors.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> bin_counts(const Tensor& confidence, const Tensor& correct, const Tensor& edges,
                                             const std::optional<Tensor>& group, int64_t n_groups, bool closed_right) {
  const Tensor c = torch::stable::contiguous(confidence), ok = torch::stable::contiguous(correct),
               e = torch::stable::contiguous(edges);
  std::optional<Tensor> g;
  if (group) g = torch::stable::contiguous(*group);
  const Bins bins{e.const_data_ptr<float>(), e.size(0) - 1, n_groups, closed_right};
  Tensor totals = new_long(c, {3, n_groups, bins.n_bins}), invalid = new_long(c, {});
  torch::stable::zero_(totals);
  torch::stable::zero_(invalid);
  kernels().bin_counts(c.const_data_ptr(), dtype_of(c), ok.const_data_ptr<bool>(),
                       g ? g->const_data_ptr<int64_t>() : nullptr, c.size(0), bins, totals.mutable_data_ptr<int64_t>(),
                       invalid.mutable_data_ptr<int64_t>());
  return {totals, invalid};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("bin_counts", TORCH_BOX(&bin_counts)); }

}  // namespace pyfastcal
