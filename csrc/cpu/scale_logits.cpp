#include "sound.h"

namespace pyfastcal {

// Logits (N, C), or (C,) of one image, times class_weight[argmax], sample_weight or 1 / temperature.
static Tensor scale_logits_op(const Tensor& logits, const std::optional<Tensor>& class_weight,
                              const std::optional<Tensor>& sample_weight, const std::optional<Tensor>& temperature) {
  const bool one = logits.dim() == 1;
  const Tensor rows = one ? one_row(logits) : logits;
  const std::optional<Tensor> row_weight = one ? one_row(sample_weight) : sample_weight;
  const CheckedCall call("pyfastcal::scale_logits", rows);
  check_confidence(rows, class_weight, row_weight, call.op());
  call.demand(rows.is_contiguous(), "logits", rows, "must be contiguous");
  call.demand(bool(class_weight) + bool(row_weight) + bool(temperature) == 1, "logits", rows,
              "must come with one kind of factor");
  double factor = 1;
  if (temperature) {
    call.demand(temperature->scalar_type() == ScalarType::Double && temperature->dim() == 0 && temperature->is_cpu(),
                "temperature", *temperature, "must be a float64 number on the CPU");
    factor = 1 / *temperature->const_data_ptr<double>();
    call.factor("1 / temperature", factor);
  }
  const OptionalVector per_class(class_weight), per_row(row_weight);
  const auto dtype = rows.scalar_type();
  const Tensor out =
      one ? new_tensor(rows, {rows.size(1)}, dtype) : new_tensor(rows, {rows.size(0), rows.size(1)}, dtype);
  const bool sound =
      kernels().scale_logits(Rows(rows), {per_class.get(), per_row.get()}, float(factor), out.mutable_data_ptr());
  call.demand(sound, "logits", rows, "must be finite, or -inf where a class is masked, after scaling too");
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("scale_logits", TORCH_BOX(&scale_logits_op)); }

}  // namespace pyfastcal
