// What launch functions ask of the device. None of it touches the stream.
#pragma once
#include "primitives.cuh"

namespace pyfastcal::cuda {

struct DeviceLimits {
  int multiprocessors = 0, shared_bytes = 0;  // of shared memory, the most that a block may have
};

// Of the current device.
inline cudaError_t ask_device(DeviceLimits* limits) {
  int device = 0;
  if (const auto error = cudaGetDevice(&device)) return error;
  if (const auto error = cudaDeviceGetAttribute(&limits->multiprocessors, cudaDevAttrMultiProcessorCount, device))
    return error;
  return cudaDeviceGetAttribute(&limits->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

// How many blocks the current device runs at the same time.
template <class... Parameters>
cudaError_t resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes, int64_t* blocks) {
  DeviceLimits device;
  int per_multiprocessor = 0;
  if (const auto error = ask_device(&device)) return error;
#if !defined(PYFASTCAL_CUDA_MODEL)
  if (const auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)))
    return error;
#endif
  if (const auto error =
          cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads, shared_bytes))
    return error;
  *blocks = int64_t(device.multiprocessors) * per_multiprocessor;
  return cudaSuccess;
}

}  // namespace pyfastcal::cuda
