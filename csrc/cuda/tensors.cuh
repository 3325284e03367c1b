// From torch tensors to the CUDA kernels. An op opens a Device for its first tensor, allocates outputs and workspace
// with the functions of common/tensors.h and new_workspace (torch's allocator, on the current stream, so that all of it
// may be captured in a CUDA graph), and passes what its launch function returns to check().
#pragma once
#ifndef USE_CUDA
#define USE_CUDA  // makes the stable ABI declare its CUDA functions
#endif
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../common/shapes.h"

namespace pyfastcal::cuda {

// Makes the device of a tensor the current one for as long as it lives; its stream is torch's current stream there.
class Device {
 public:
  explicit Device(const Tensor& x) : guard_(x.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

inline void check(cudaError_t error) { STD_CUDA_CHECK(error); }

// Uninitialised device memory for as long as the op runs, aligned to at least 256 bytes.
inline Tensor new_workspace(const Tensor& like, int64_t bytes) {
  return torch::stable::new_empty(like, {bytes}, ScalarType::Byte);
}

}  // namespace pyfastcal::cuda
