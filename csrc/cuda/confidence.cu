#include "rows/confidence.cuh"

#include "tensors.cuh"

namespace pyfastcal::cuda {

static std::tuple<Tensor, Tensor> confidence_op(const Tensor& logits, const std::optional<Tensor>& class_weight,
                                                const std::optional<Tensor>& sample_weight) {
  check_confidence(logits, class_weight, sample_weight);
  const Device device(logits);
  const Rows rows(logits);
  Tensor confidence = new_float(logits, {rows.rows}), prediction = new_long(logits, {rows.rows});
  const OptionalVector per_class(class_weight), per_sample(sample_weight);
  check(launch_confidence(rows, {per_class.get(), per_sample.get()}, confidence.mutable_data_ptr<float>(),
                          prediction.mutable_data_ptr<int64_t>(), device.stream()));
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("confidence", TORCH_BOX(&confidence_op)); }

}  // namespace pyfastcal::cuda
