#include "tensors.h"

namespace pyfastcal {

static Tensor contrast_distance_op(const Tensor& image, const Tensor& text, const Tensor& image0, const Tensor& text0,
                                   bool probability, double logit_scale, bool normalize) {
  check_contrast_distance(image, text, image0, text0);
  Tensor z = new_float(image, {image.size(0)});
  kernels().contrast_distance(Rows(image), Rows(text), Rows(image0), Rows(text0), probability, float(logit_scale),
                              normalize, z.mutable_data_ptr<float>());
  return z;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("contrast_distance", TORCH_BOX(&contrast_distance_op)); }

}  // namespace pyfastcal
