// The environment's word on the product. pyfastcal/ops/extension.py refuses the same values before, with a ValueError;
// this is for whoever calls torch.ops.pyfastcal directly.
#pragma once
#include <torch/headeronly/util/Exception.h>

#include <cstdlib>
#include <string_view>

#include "product/choice.cuh"

namespace pyfastcal::cuda {

// Read anew at each call, so that a running program can compare them.
inline ProductChoice wanted_product() {
  const char* given = std::getenv("PYFASTCAL_CUDA_PRODUCT");
  const std::string_view wanted = given ? given : "";
  if (wanted.empty() || wanted == "auto") return ProductChoice::kAuto;
  if (wanted == "mma") return ProductChoice::kMma;
  STD_TORCH_CHECK(wanted == "wgmma", "PYFASTCAL_CUDA_PRODUCT must be one of auto, mma, wgmma, got '", given, "'");
  return ProductChoice::kWgmma;
}

}  // namespace pyfastcal::cuda
