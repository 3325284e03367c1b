#include "sound.h"

namespace pyfastcal {

// What is added and multiplied to the scores, one entry for each class or row.
struct PerClassAndRow {
  OptionalVector bias, class_weight, sample_weight;
};

static void fill(const Tensor& image, const Tensor& text, double logit_scale, const PerClassAndRow& per, bool normalize,
                 Tensor& confidence, Tensor& prediction) {
  kernels().similarity_confidence(Rows(image), Rows(text), float(logit_scale), per.bias.get(),
                                  {per.class_weight.get(), per.sample_weight.get()}, normalize,
                                  confidence.mutable_data_ptr<float>(), prediction.mutable_data_ptr<int64_t>());
}

static std::tuple<Tensor, Tensor> similarity_confidence_op(const Tensor& image, const Tensor& text, double logit_scale,
                                                           const std::optional<Tensor>& logit_bias,
                                                           const std::optional<Tensor>& class_weight,
                                                           const std::optional<Tensor>& sample_weight, bool normalize) {
  check_similarity_confidence(image, text, logit_bias, class_weight, sample_weight);
  auto [confidence, prediction] = new_predictions(image, false);
  const PerClassAndRow per{OptionalVector(logit_bias), OptionalVector(class_weight), OptionalVector(sample_weight)};
  fill(image, text, logit_scale, per, normalize, confidence, prediction);
  return {confidence, prediction};
}

static std::tuple<Tensor, Tensor> checked_similarity_confidence_op(
    const Tensor& image, const Tensor& text, double logit_scale, const std::optional<Tensor>& logit_bias,
    const std::optional<Tensor>& class_weight, const std::optional<Tensor>& sample_weight, bool normalize) {
  const bool one = image.dim() == 1;
  const Tensor rows = one ? one_row(image) : image;
  const std::optional<Tensor> row_weight = one ? one_row(sample_weight) : sample_weight;
  const CheckedCall call("pyfastcal::checked_similarity_confidence", rows);
  check_similarity_confidence(rows, text, logit_bias, class_weight, row_weight, call.op());
  const PerClassAndRow per{OptionalVector(logit_bias), OptionalVector(class_weight), OptionalVector(row_weight)};
  call.factor("logit_scale", logit_scale);
  call.bias("logit_bias", logit_bias, per.bias);
  call.factors("class_weight", class_weight, per.class_weight);
  call.factors("sample_weight", row_weight, per.sample_weight);
  auto [confidence, prediction] = new_predictions(rows, one);
  fill(rows, text, logit_scale, per, normalize, confidence, prediction);
  call.result("image_features", rows, confidence);
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) {
  m.impl("similarity_confidence", TORCH_BOX(&similarity_confidence_op));
  m.impl("checked_similarity_confidence", TORCH_BOX(&checked_similarity_confidence_op));
}

}  // namespace pyfastcal
