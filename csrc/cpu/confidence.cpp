#include "tensors.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> confidence_op(const Tensor& logits, const std::optional<Tensor>& class_weight,
                                                const std::optional<Tensor>& sample_weight) {
  check_confidence(logits, class_weight, sample_weight);
  Tensor confidence = new_float(logits, {logits.size(0)}), prediction = new_long(logits, {logits.size(0)});
  const OptionalVector per_class(class_weight), per_sample(sample_weight);
  kernels().confidence(Rows(logits), {per_class.get(), per_sample.get()}, confidence.mutable_data_ptr<float>(),
                       prediction.mutable_data_ptr<int64_t>());
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("confidence", TORCH_BOX(&confidence_op)); }

}  // namespace pyfastcal
