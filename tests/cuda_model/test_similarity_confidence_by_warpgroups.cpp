// similarity_confidence on the product by warpgroups, against the definition in fp64 and against the other product.
#include "cuda/product/similarity_confidence.cuh"
#include "features.h"

using namespace pyfastcal;

namespace {

TEST(first) {
  const Features<__nv_bfloat16> image(130, 512, 1), text(1031, 512, 2);
  for (int distinct : {0, 1, 2, 3, 50}) {
    DeviceArray<float> weights(1031);
    for (size_t c = 0; c < 1031; ++c) weights[c] = 0.75f + 0.125f * float((c * 7 + 3) % size_t(std::max(distinct, 1)));
    DeviceArray<float> confidence[3] = {DeviceArray<float>(130), DeviceArray<float>(130), DeviceArray<float>(130)};
    DeviceArray<int64_t> prediction[3] = {DeviceArray<int64_t>(130), DeviceArray<int64_t>(130), DeviceArray<int64_t>(130)};
    for (int c = 0; c < 3; ++c) {
      cuda_model::settings.multiprocessors = c == 2 ? 7 : 1;
      const cuda::SimilarityConfidence arguments{image.matrix(), text.matrix(), 20, nullptr, {distinct ? weights.data() : nullptr, nullptr}, true};
      cuda::SimilarityConfidencePlan plan;
      CHECK(plan.make(arguments, c ? cuda::ProductChoice::kWgmma : cuda::ProductChoice::kMma) == cudaSuccess);
      DeviceArray<char> workspace(size_t(plan.workspace_bytes()));
      CHECK(plan.launch(arguments, confidence[c].data(), prediction[c].data(), workspace.data(), nullptr) == cudaSuccess);
    }
    for (int i = 0; i < 130; ++i) {
      CHECK_EQUAL(prediction[1][i], prediction[0][i], i);
      CHECK_NEAR(confidence[1][i], confidence[0][i], 1e-5 * confidence[0][i], i);
      CHECK_EQUAL(prediction[1][i], prediction[2][i], i);
      CHECK_EQUAL(confidence[1][i], confidence[2][i], i, ' ', distinct);
    }
    record(confidence[1]);
  }
}

}  // namespace
