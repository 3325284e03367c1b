// The functions of the CUDA runtime that launch code uses.
//
// A kernel's blocks may have 48 KiB of shared memory, static arrays included. Its limit of dynamic shared memory on a
// device may be raised, as far as the device goes less the static arrays; a launch that wants more than the limit is
// refused. To lower a limit ends the program, though CUDA would do it: a launch of another host thread, between its own
// call and its start, would then be refused.
//
// What a kernel's static arrays take is known when it has run. If it is asked for before, the answer is 0, and what
// was made of that answer is corrected then.
#include <map>

#include "fibres.h"

namespace cuda_model {

Function* running = nullptr;

Function& function_of(const void* kernel) {
  static std::map<const void*, Function> functions;
  return functions[kernel];
}

bool Function::may_have(size_t dynamic_bytes) const {
  const size_t limit = limits[settings.device];
  if (limit == 0) return dynamic_bytes + static_bytes <= kUnaskedShared;
  return dynamic_bytes <= limit && dynamic_bytes + static_bytes <= settings.shared_per_block;
}

void Function::takes_static(size_t bytes) {
  if (bytes <= static_bytes) return;
  size_t& limit = limits[settings.device];
  if (limit + bytes > settings.shared_per_block) {
    if (!asked_for) die("a limit of dynamic shared memory that leaves no room for static arrays");
    limit = settings.shared_per_block - bytes;
  }
  static_bytes = bytes;
}

// What may load a kernel, while a graph is captured: CUDA does not say whether it may, so it may not.
static cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
static bool may_load() { return !settings.capturing || capture_mode == cudaStreamCaptureModeRelaxed; }

cudaError_t ask_occupancy(int* blocks, const void* kernel, size_t shared_bytes) {
  const Function& function = function_of(kernel);
  if (!function.asked_for && !may_load()) return cudaErrorStreamCaptureUnsupported;
  const int fit = int(settings.shared_per_block / std::max(shared_bytes + function.static_bytes, size_t(1)));
  *blocks = function.may_have(shared_bytes) ? std::min(fit, settings.blocks_per_multiprocessor) : 0;
  return cudaSuccess;
}

}  // namespace cuda_model

using cuda_model::settings;

extern "C" {

cudaError_t cudaGetDevice(int* device) {
  *device = settings.device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  static size_t shared_bytes[cuda_model::kMaxDevices];
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = settings.multiprocessors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = settings.capability / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = settings.capability % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      if (shared_bytes[device] == 0) shared_bytes[device] = settings.shared_per_block;
      if (shared_bytes[device] != settings.shared_per_block) cuda_model::die("a device whose shared memory changed");
      *value = int(settings.shared_per_block);
      return cudaSuccess;
    default: return cudaErrorInvalidValue;
  }
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  if (!cuda_model::may_load()) return cudaErrorStreamCaptureUnsupported;
  cuda_model::Function& function = cuda_model::function_of(kernel);
  function.asked_for = true;
  *attributes = {};
  attributes->sharedSizeBytes = function.static_bytes;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (!cuda_model::may_load()) return cudaErrorStreamCaptureUnsupported;
  cuda_model::Function& function = cuda_model::function_of(kernel);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      size_t(value) + function.static_bytes > settings.shared_per_block)
    return cudaErrorInvalidValue;
  size_t& limit = function.limits[settings.device];
  const size_t before = limit ? limit : cuda_model::kUnaskedShared - function.static_bytes;
  if (size_t(value) < before) cuda_model::die("a kernel's limit of dynamic shared memory is lowered");
  limit = size_t(value);
  ++cuda_model::counters.limits_set;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(cuda_model::capture_mode, *mode);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}

}  // extern "C"
