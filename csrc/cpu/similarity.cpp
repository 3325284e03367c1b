#include "tensors.h"

namespace pyfastcal {

static Tensor similarity_op(const Tensor& image, const Tensor& text, bool normalize) {
  check_similarity(image, text);
  Tensor out = new_float(image, {image.size(0), text.size(0)});
  kernels().similarity(Rows(image), Rows(text), normalize, out.mutable_data_ptr<float>());
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("similarity", TORCH_BOX(&similarity_op)); }

}  // namespace pyfastcal
