#include "product/contrast.cuh"

#include "tensors.cuh"
#include "wanted_product.h"

namespace pyfastcal::cuda {

static Tensor contrast_distance_op(const Tensor& image, const Tensor& text, const Tensor& image0, const Tensor& text0,
                                   bool probability, double logit_scale, bool normalize) {
  check_contrast_distance(image, text, image0, text0);
  const Device device(image);
  const Rows images(image), texts(text), images0(image0), texts0(text0);
  Tensor z = new_float(image, {images.rows});
  if (images.rows == 0) return z;
  const Contrast arguments{images, texts, images0, texts0, probability, float(logit_scale), normalize};
  ContrastPlan plan;
  check(plan.make(arguments, wanted_product()));
  Tensor workspace = new_workspace(image, plan.workspace_bytes());
  check(plan.launch(arguments, z.mutable_data_ptr<float>(), workspace.mutable_data_ptr(), device.stream()));
  return z;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("contrast_distance", TORCH_BOX(&contrast_distance_op)); }

}  // namespace pyfastcal::cuda
