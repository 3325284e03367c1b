// similarity_confidence on the product by warpgroups, against the definition in fp64 and against the other product.
#include "cuda/product/similarity_confidence.cuh"
#include "features.h"

using namespace pyfastcal;

namespace {

TEST(first) {
  const Features<__nv_bfloat16> image(130, 512, 1), text(131, 512, 2);
  DeviceArray<float> confidence[2] = {DeviceArray<float>(130), DeviceArray<float>(130)};
  DeviceArray<int64_t> prediction[2] = {DeviceArray<int64_t>(130), DeviceArray<int64_t>(130)};
  cuda_model::settings.multiprocessors = 1;
  for (int c = 0; c < 2; ++c) {
    const cuda::SimilarityConfidence arguments{image.matrix(), text.matrix(), 20, nullptr, {}, true};
    cuda::SimilarityConfidencePlan plan;
    CHECK(plan.make(arguments, c ? cuda::ProductChoice::kWgmma : cuda::ProductChoice::kMma) == cudaSuccess);
    DeviceArray<char> workspace(size_t(plan.workspace_bytes()));
    CHECK(plan.launch(arguments, confidence[c].data(), prediction[c].data(), workspace.data(), nullptr) == cudaSuccess);
  }
  for (int i = 0; i < 130; ++i) {
    CHECK_EQUAL(prediction[1][i], prediction[0][i], i);
    CHECK_NEAR(confidence[1][i], confidence[0][i], 1e-5 * confidence[0][i], i);
  }
  record(confidence[1]);
}

}  // namespace
