// On the host: whether a kernel takes the product by warpgroups.
#pragma once
#include "../../runtime/launch.cuh"
#include "../choice.cuh"
#include "../operand.cuh"
#include "block.cuh"

namespace pyfastcal::cuda::warpgroups {

// What `auto` takes. A path is chosen where a GPU has run it and found it faster: none has yet.
inline constexpr bool kMeasuredFaster = false;

// more_bytes: of shared memory, that the kernel keeps beside the product's. `can`: what else must hold.
inline bool take(ProductChoice choice, const DeviceLimits& device, int64_t depth, int more_bytes, bool can) {
  const bool possible = can && device.capability == 90 && depth >= kLeastDepth && depth <= INT_MAX / 2 &&
                        device.shared_bytes >= kSharedBytes + more_bytes;
  return possible && (choice == ProductChoice::kWgmma || (choice == ProductChoice::kAuto && kMeasuredFaster));
}

// Boxes of a tile's rows, or columns, of an operand.
template <class T>
cudaError_t make_map(prim::TensorMap* map, const Operand<T>& x, int depth) {
  return prim::make_tensor_map(map, std::is_same_v<T, __half>, x.data, x.rows, depth, x.stride, kTileRows);
}

}  // namespace pyfastcal::cuda::warpgroups
