#include "sound.h"

namespace pyfastcal {

static void fill(const Tensor& logits, const OptionalVector& per_class, const OptionalVector& per_row,
                 Tensor& confidence, Tensor& prediction) {
  kernels(logits.numel())
      .confidence(Rows(logits), {per_class.get(), per_row.get()}, confidence.mutable_data_ptr<float>(),
                  prediction.mutable_data_ptr<int64_t>());
}

static std::tuple<Tensor, Tensor> confidence_op(const Tensor& logits, const std::optional<Tensor>& class_weight,
                                                const std::optional<Tensor>& sample_weight) {
  check_confidence(logits, class_weight, sample_weight);
  auto [confidence, prediction] = new_predictions(logits, false);
  fill(logits, OptionalVector(class_weight), OptionalVector(sample_weight), confidence, prediction);
  return {confidence, prediction};
}

static std::tuple<Tensor, Tensor> checked_confidence_op(const Tensor& logits, const std::optional<Tensor>& class_weight,
                                                        const std::optional<Tensor>& sample_weight) {
  const bool one = logits.dim() == 1;
  const Tensor rows = one ? one_row(logits) : logits;
  const std::optional<Tensor> row_weight = one ? one_row(sample_weight) : sample_weight;
  const CheckedCall call("pyfastcal::checked_confidence", rows);
  check_confidence(rows, class_weight, row_weight, call.op());
  const OptionalVector per_class(class_weight), per_row(row_weight);
  call.factors("class_weight", class_weight, per_class);
  call.factors("sample_weight", row_weight, per_row);
  auto [confidence, prediction] = new_predictions(rows, one);
  fill(rows, per_class, per_row, confidence, prediction);
  call.result("logits", rows, confidence);
  return {confidence, prediction};
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) {
  m.impl("confidence", TORCH_BOX(&confidence_op));
  m.impl("checked_confidence", TORCH_BOX(&checked_confidence_op));
}

}  // namespace pyfastcal
