#include "product/similarity_confidence.cuh"

#include "tensors.cuh"
#include "wanted_product.h"

namespace pyfastcal::cuda {

static std::tuple<Tensor, Tensor> similarity_confidence_op(const Tensor& image, const Tensor& text, double logit_scale,
                                                           const std::optional<Tensor>& logit_bias,
                                                           const std::optional<Tensor>& class_weight,
                                                           const std::optional<Tensor>& sample_weight, bool normalize) {
  check_similarity_confidence(image, text, logit_bias, class_weight, sample_weight);
  const Device device(image);
  const Rows images(image), texts(text);
  const OptionalVector bias(logit_bias), per_class(class_weight), per_sample(sample_weight);
  Tensor confidence = new_float(image, {images.rows}), prediction = new_long(image, {images.rows});
  if (images.rows == 0) return {confidence, prediction};
  const SimilarityConfidence arguments{
      images, texts, float(logit_scale), bias.get(), {per_class.get(), per_sample.get()}, normalize};
  SimilarityConfidencePlan plan;
  check(plan.make(arguments, wanted_product()));
  Tensor workspace = new_workspace(image, plan.workspace_bytes());
  check(plan.launch(arguments, confidence.mutable_data_ptr<float>(), prediction.mutable_data_ptr<int64_t>(),
                    workspace.mutable_data_ptr(), device.stream()));
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("similarity_confidence", TORCH_BOX(&similarity_confidence_op)); }

}  // namespace pyfastcal::cuda
