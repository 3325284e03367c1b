#include "tensors.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> similarity_confidence_op(const Tensor& image, const Tensor& text, double logit_scale,
                                                           const std::optional<Tensor>& logit_bias,
                                                           const std::optional<Tensor>& class_weight,
                                                           const std::optional<Tensor>& sample_weight, bool normalize) {
  check_similarity_confidence(image, text, logit_bias, class_weight, sample_weight);
  Tensor confidence = new_float(image, {image.size(0)}), prediction = new_long(image, {image.size(0)});
  const OptionalVector bias(logit_bias), per_class(class_weight), per_sample(sample_weight);
  kernels().similarity_confidence(Rows(image), Rows(text), float(logit_scale), bias.get(),
                                  {per_class.get(), per_sample.get()}, normalize, confidence.mutable_data_ptr<float>(),
                                  prediction.mutable_data_ptr<int64_t>());
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("similarity_confidence", TORCH_BOX(&similarity_confidence_op)); }

}  // namespace pyfastcal
