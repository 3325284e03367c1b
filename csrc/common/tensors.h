// From torch tensors, of either device, to the kernels' plain arguments.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>

#include "arguments.h"

namespace pyfastcal {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Dtype::kFloat;
    case ScalarType::Half: return Dtype::kHalf;
    case ScalarType::BFloat16: return Dtype::kBFloat16;
    case ScalarType::Double: return Dtype::kDouble;
    default: STD_TORCH_CHECK(false, "pyfastcal: unsupported dtype");
  }
}

// Not through the dispatcher where x is contiguous already: that takes longer than a small op.
inline Tensor as_contiguous(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }

// A 2-d tensor as rows; holds on to a copy where the columns were not adjacent.
struct Rows : Matrix {
  explicit Rows(const Tensor& x) : owner(x.stride(1) == 1 || x.size(1) == 1 ? x : torch::stable::contiguous(x)) {
    data = owner.const_data_ptr();
    dtype = dtype_of(owner);
    rows = owner.size(0);
    cols = owner.size(1);
    stride = owner.stride(0);
  }
  const Tensor owner;
};

// An optional fp32 vector (pyfastcal/ops/ made it so); null where there is none.
struct OptionalVector {
  explicit OptionalVector(const std::optional<Tensor>& x) {
    if (x) owner = as_contiguous(*x);
  }
  const float* get() const { return owner ? owner->const_data_ptr<float>() : nullptr; }
  std::optional<Tensor> owner;
};

// An uninitialised tensor on the device of `like`. On the CPU past the dispatcher, which takes longer than a small op.
inline Tensor new_tensor(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  if (!like.is_cpu()) return torch::stable::new_empty(like, sizes, type);
  int64_t strides[3], stride = 1;
  for (auto i = sizes.size(); i-- > 0; stride *= sizes.begin()[i]) strides[i] = stride;
  AtenTensorHandle made;
  const auto error = aoti_torch_empty_strided(int64_t(sizes.size()), sizes.begin(), strides,
                                              torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
                                              aoti_torch_device_type_cpu(), 0, &made);
  STD_TORCH_CHECK(error == 0, "pyfastcal: no memory for a result");
  return Tensor(made);
}
inline Tensor new_float(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return new_tensor(like, sizes, ScalarType::Float);
}
inline Tensor new_long(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return new_tensor(like, sizes, ScalarType::Long);
}

}  // namespace pyfastcal
