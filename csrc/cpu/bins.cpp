#include <vector>

#include "../common/bins.h"
#include "tensors.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> bin_counts_op(const Tensor& confidence, const Tensor& correct,
                                                const std::optional<Tensor>& edges, int64_t n_bins,
                                                const std::optional<Tensor>& group, int64_t n_groups,
                                                bool closed_right) {
  check_bin_counts(confidence, correct, edges, n_bins, group, n_groups);
  const Tensor c = torch::stable::contiguous(confidence), ok = torch::stable::contiguous(correct);
  std::optional<Tensor> g;
  if (group) g = torch::stable::contiguous(*group);
  const OptionalVector given(edges);
  std::vector<float> uniform;
  if (!given.get())
    for (int64_t i = 0; i <= n_bins; ++i) uniform.push_back(uniform_edge(i, n_bins));
  const Bins bins{given.get() ? given.get() : uniform.data(), n_bins, n_groups, closed_right};
  Tensor totals = new_long(c, {3, n_groups, n_bins}), invalid = new_long(c, {});
  torch::stable::zero_(totals);
  torch::stable::zero_(invalid);
  kernels().bin_counts(c.const_data_ptr(), dtype_of(c), ok.const_data_ptr<bool>(),
                       g ? g->const_data_ptr<int64_t>() : nullptr, c.size(0), bins, totals.mutable_data_ptr<int64_t>(),
                       invalid.mutable_data_ptr<int64_t>());
  return {totals, invalid};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("bin_counts", TORCH_BOX(&bin_counts_op)); }

}  // namespace pyfastcal
