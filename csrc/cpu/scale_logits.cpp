#include "sound.h"

namespace pyfastcal {

// Logits (N, C), or (C,) of one image, which lie side by side.
struct Logits {
  Logits(const char* op, const Tensor& x) : one(x.dim() == 1), rows(one ? one_row(x) : x), call(op, rows) {
    call.matrix("logits", rows);
    call.demand(rows.is_contiguous(), "logits", rows, "must be contiguous");
  }
  // times a factor of each row, or the same one
  Tensor scaled(const Factors& factors, float factor) const {
    const auto dtype = rows.scalar_type();
    const int64_t n = rows.size(0), cols = rows.size(1);
    const Tensor out = one ? new_tensor(rows, {cols}, dtype) : new_tensor(rows, {n, cols}, dtype);
    const Matrix matrix{rows.const_data_ptr(), dtype_of(rows), n, cols, cols};
    const bool sound = kernels(n * cols).scale_logits(matrix, factors, factor, out.mutable_data_ptr());
    call.demand(sound, "logits", rows, "must be finite, or -inf where a class is masked, after scaling too");
    return out;
  }

  const bool one;
  const Tensor rows;
  const CheckedCall call;
};

static Tensor scale_logits_op(const Tensor& logits, const std::optional<Tensor>& class_weight,
                              const std::optional<Tensor>& sample_weight) {
  const Logits of("pyfastcal::scale_logits", logits);
  const std::optional<Tensor> row_weight = of.one ? one_row(sample_weight) : sample_weight;
  of.call.vector("class_weight", class_weight, ScalarType::Float, of.rows.size(1));
  of.call.vector("sample_weight", row_weight, ScalarType::Float, of.rows.size(0));
  of.call.demand(class_weight.has_value() != row_weight.has_value(), "logits", of.rows,
                 "must come with one kind of factor");
  const OptionalVector per_class(class_weight), per_row(row_weight);
  return of.scaled({per_class.get(), per_row.get()}, 1.0f);
}

static Tensor divide_logits_op(const Tensor& logits, const Tensor& temperature) {
  const Logits of("pyfastcal::divide_logits", logits);
  of.call.demand(temperature.scalar_type() == ScalarType::Double && temperature.dim() == 0 && temperature.is_cpu(),
                 "temperature", temperature, "must be a float64 number on the CPU");
  const double factor = 1 / *temperature.const_data_ptr<double>();
  of.call.factor("1 / temperature", factor);
  return of.scaled({nullptr, nullptr}, float(factor));
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) {
  m.impl("scale_logits", TORCH_BOX(&scale_logits_op));
  m.impl("divide_logits", TORCH_BOX(&divide_logits_op));
}

}  // namespace pyfastcal
