// Launches, and what launch functions ask of the device.
//
//   PYFASTCAL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)   launches and gives the cudaError_t; parenthesise
//                                      a kernel whose template arguments hold commas
#pragma once
#include <atomic>

#include "primitives.cuh"

#define PYFASTCAL_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::pyfastcal::cuda::launch<(kernel)>(grid, block, shared_bytes, stream, __VA_ARGS__)

namespace pyfastcal::cuda {

struct DeviceLimits {
  int multiprocessors = 0, shared_bytes = 0;  // of shared memory, the most that a block may have
  int capability = 0;                         // 90 for 9.0
};

// Of the current device.
inline cudaError_t ask_device(DeviceLimits* limits) {
  int device = 0;
  if (const auto error = cudaGetDevice(&device)) return error;
  if (const auto error = cudaDeviceGetAttribute(&limits->multiprocessors, cudaDevAttrMultiProcessorCount, device))
    return error;
  if (const auto error = cudaDeviceGetAttribute(&limits->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
    return error;
  int major = 0, minor = 0;
  if (const auto error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) return error;
  if (const auto error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) return error;
  limits->capability = 10 * major + minor;
  return cudaSuccess;
}

// While it lives, a stream capture that this thread or another has begun forbids this thread nothing: what is done here
// is no part of any graph.
class OutsideCapture {
 public:
  OutsideCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~OutsideCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  OutsideCapture(const OutsideCapture&) = delete;
  OutsideCapture& operator=(const OutsideCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // then the thread's own
};

// Lets a kernel have all the shared memory that a block of the current device can have. The limit is the kernel's, not
// the launch's: it is set once per device, always to the same, so that no call and no other host thread ever lowers
// what a launch relies on.
//
// The first call may come while a graph is captured. Neither function is among those that a capture forbids; but they
// load the kernel if that was not done yet (CUDA_MODULE_LOADING=LAZY), and what that needs of the driver is its affair:
// hence OutsideCapture.
template <auto kKernel>
cudaError_t raise_shared_limit() {
  static std::atomic<uint64_t> raised{0};  // bit d: on device d
  int device = 0;
  if (const auto error = cudaGetDevice(&device)) return error;
  const uint64_t bit = device < 64 ? uint64_t(1) << device : 0;  // more devices: each time anew
  if (raised.load(std::memory_order_acquire) & bit) return cudaSuccess;
  const OutsideCapture outside;
  const void* const kernel = reinterpret_cast<const void*>(kKernel);
  DeviceLimits limits;
  cudaFuncAttributes attributes{};
  if (const auto error = ask_device(&limits)) return error;
  if (const auto error = cudaFuncGetAttributes(&attributes, kernel)) return error;
  if (const auto error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              limits.shared_bytes - int(attributes.sharedSizeBytes)))
    return error;
  raised.fetch_or(bit, std::memory_order_release);
  return cudaSuccess;
}

// Up to 48 KiB, static arrays included (none of ours take 16), a block may have without asking.
inline constexpr size_t kUnasked = 32 * 1024;

template <auto kKernel, class... Arguments>
cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, const Arguments&... arguments) {
  if (shared_bytes > kUnasked)
    if (const auto error = raise_shared_limit<kKernel>()) return error;
  return prim::launch(kKernel, grid, block, shared_bytes, stream, arguments...);
}

// How many blocks the current device runs at the same time. Does not touch the stream.
template <auto kKernel>
cudaError_t resident_blocks(int threads, size_t shared_bytes, int64_t* blocks) {
  DeviceLimits device;
  int per_multiprocessor = 0;
  if (const auto error = ask_device(&device)) return error;
  if (const auto error = raise_shared_limit<kKernel>()) return error;
  if (const auto error =
          cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kKernel, threads, shared_bytes))
    return error;
  *blocks = int64_t(device.multiprocessors) * per_multiprocessor;
  return cudaSuccess;
}

}  // namespace pyfastcal::cuda
