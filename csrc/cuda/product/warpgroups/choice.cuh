// On the host: whether a kernel takes the product by warpgroups.
#pragma once
#include "../../runtime/launch.cuh"
#include "../choice.cuh"
#include "../operand.cuh"
#include "block.cuh"

namespace pyfastcal::cuda::warpgroups {

// What `auto` takes it for: where a GPU has run this very kernel and found it faster (docs/kernels.md).
struct MeasuredFaster {
  static constexpr bool similarity_confidence = true, similarity = false, contrast = false, knn = false;
};

// Whether the copy engine can read the rows, or the copy that is made of them: its rows may not overlap.
inline bool mappable(const Matrix& m) {
  return !readable_in_place(m) || m.rows == 1 || (m.stride >= m.cols && m.stride < int64_t(1) << 39);
}

// faster: of MeasuredFaster. bytes: of shared memory. `can`: what else must hold.
inline bool take(ProductChoice choice, bool faster, const DeviceLimits& device, int64_t depth, int bytes, bool can) {
  const bool possible =
      can && device.capability == 90 && depth >= kLeastDepth && depth <= INT_MAX / 2 && device.shared_bytes >= bytes;
  return possible && (choice == ProductChoice::kWgmma || (choice == ProductChoice::kAuto && faster));
}

// Boxes of a tile's rows, or columns, of an operand.
template <class T>
cudaError_t make_map(prim::TensorMap* map, const Operand<T>& x, int depth) {
  const int64_t stride = x.rows > 1 ? x.stride : (depth + 7) / 8 * 8;  // of one row it may be anything
  return prim::make_tensor_map(map, std::is_same_v<T, __half>, x.data, x.rows, depth, stride, kTileRows);
}

}  // namespace pyfastcal::cuda::warpgroups
