// What launch functions ask of the device. None of it touches the stream.
#pragma once
#include "primitives.cuh"

namespace pyfastcal::cuda {

// How many blocks the current device runs at the same time.
template <class... Parameters>
cudaError_t resident_blocks(void (*kernel)(Parameters...), int threads, size_t shared_bytes, int64_t* blocks) {
  int device = 0, multiprocessors = 0, per_multiprocessor = 0;
  if (const auto error = cudaGetDevice(&device)) return error;
  if (const auto error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device)) return error;
#if !defined(PYFASTCAL_CUDA_MODEL)
  if (const auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)))
    return error;
#endif
  if (const auto error =
          cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads, shared_bytes))
    return error;
  *blocks = int64_t(multiprocessors) * per_multiprocessor;
  return cudaSuccess;
}

}  // namespace pyfastcal::cuda
