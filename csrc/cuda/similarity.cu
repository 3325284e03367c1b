#include "product/similarity.cuh"

#include "tensors.cuh"
#include "wanted_product.h"

namespace pyfastcal::cuda {

static Tensor similarity_op(const Tensor& image, const Tensor& text, bool normalize) {
  check_similarity(image, text);
  const Device device(image);
  const Rows images(image), texts(text);
  Tensor out = new_float(image, {images.rows, texts.rows});
  if (images.rows == 0) return out;
  SimilarityPlan plan;
  check(plan.make(images, texts, wanted_product()));
  Tensor workspace = new_workspace(image, plan.workspace_bytes());
  check(plan.launch(images, texts, normalize, out.mutable_data_ptr<float>(), workspace.mutable_data_ptr(),
                    device.stream()));
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CUDA, m) { m.impl("similarity", TORCH_BOX(&similarity_op)); }

}  // namespace pyfastcal::cuda
