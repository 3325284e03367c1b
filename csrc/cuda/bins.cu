#include "samples/bins.cuh"

#include "tensors.cuh"

namespace pyfastcal::cuda {

static std::tuple<Tensor, Tensor> bin_counts_op(const Tensor& confidence, const Tensor& correct,
                                                const std::optional<Tensor>& edges, int64_t n_bins,
                                                const std::optional<Tensor>& group, int64_t n_groups,
                                                bool closed_right) {
  check_bin_counts(confidence, correct, edges, n_bins, group, n_groups);
  const Device device(confidence);
  const Tensor c = torch::stable::contiguous(confidence), ok = torch::stable::contiguous(correct);
  std::optional<Tensor> g;
  if (group) g = torch::stable::contiguous(*group);
  const OptionalVector e(edges);
  const Bins bins{e.get(), n_bins, n_groups, closed_right};
  const Tensor workspace = new_workspace(c, bins_workspace(bins));
  Tensor totals = new_long(c, {3, n_groups, n_bins}), invalid = new_long(c, {});
  check(launch_bins(c.const_data_ptr(), dtype_of(c), ok.const_data_ptr<bool>(),
                    g ? g->const_data_ptr<int64_t>() : nullptr, c.size(0), bins, totals.mutable_data_ptr<int64_t>(),
                    invalid.mutable_data_ptr<int64_t>(), workspace.mutable_data_ptr(), device.stream()));
  return {totals, invalid};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("bin_counts", TORCH_BOX(&bin_counts_op)); }

}  // namespace pyfastcal::cuda
