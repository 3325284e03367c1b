// predict_by_contrast: ContrastAwareCalibration.predict_features in one call: contrast_distance, the weights and
// similarity_confidence, as they are one by one.
#include "contrast_weights.h"

namespace pyfastcal {

static std::tuple<Tensor, Tensor> predict_by_contrast_op(const Tensor& image, const Tensor& text, const Tensor& image0,
                                                         const Tensor& text0, double logit_scale,
                                                         const std::optional<Tensor>& logit_bias, bool probability,
                                                         bool normalize, const Tensor& alpha, const Tensor& k,
                                                         const Tensor& lambda1, const Tensor& lambda2) {
  const bool one = image.dim() == 1 && image0.dim() == 1;
  const Tensor rows = one ? one_row(image) : image, rows0 = one ? one_row(image0) : image0;
  const CheckedCall call("pyfastcal::predict_by_contrast", rows);
  check_contrast_distance(rows, text, rows0, text0, call.op());
  call.vector("logit_bias", logit_bias, ScalarType::Float, text.size(0));
  const OptionalVector bias(logit_bias);
  call.factor("logit_scale", logit_scale);
  call.bias("logit_bias", logit_bias, bias);
  const ContrastConstants constants(call, alpha, k, lambda1, lambda2);

  const Tensor z = new_float(rows, {rows.size(0)});
  kernels().contrast_distance(Rows(rows), Rows(text), Rows(rows0), Rows(text0), probability, float(logit_scale),
                              normalize, z.mutable_data_ptr<float>());
  const Tensor weight = constants.weights(call, "image_features", z);
  call.factors("sample_weight", weight, OptionalVector(weight));
  auto [confidence, prediction] = new_predictions(rows, one);
  kernels().similarity_confidence(Rows(rows), Rows(text), float(logit_scale), bias.get(),
                                  {nullptr, weight.const_data_ptr<float>()}, normalize,
                                  confidence.mutable_data_ptr<float>(), prediction.mutable_data_ptr<int64_t>());
  call.result("image_features", rows, confidence);
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("predict_by_contrast", TORCH_BOX(&predict_by_contrast_op)); }

}  // namespace pyfastcal
