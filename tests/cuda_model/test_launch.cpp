// How kernels are launched: with as much shared memory as the device gives, whatever was launched before.
#include "cuda/runtime/launch.cuh"
#include "testing.h"

using cuda_model::counters;
using cuda_model::settings;
namespace cuda = pyfastcal::cuda;

namespace {

constexpr size_t kStaticBytes = 4096, kMost = 227 * 1024 - kStaticBytes;

// kNumber: one kernel for each test, of which nothing is known before.
template <int kNumber>
__global__ void fill(char* out, size_t bytes) {
  PYFASTCAL_SHARED(char, shared);
  PYFASTCAL_STATIC_SHARED(char[kStaticBytes], fixed);
  for (size_t i = threadIdx.x; i < bytes; i += blockDim.x) shared[i] = 1;
  for (size_t i = threadIdx.x; i < kStaticBytes; i += blockDim.x) fixed[i] = 2;
  __syncthreads();
  if (threadIdx.x == 0) out[0] = char(fixed[kStaticBytes - 1] + (bytes ? shared[bytes - 1] : 1));
}

template <int kNumber>
cudaError_t launch(size_t bytes) {
  DeviceArray<char> out(1);
  const cudaError_t error = PYFASTCAL_LAUNCH(fill<kNumber>, 1, 32, bytes, nullptr, out.data(), bytes);
  if (error == cudaSuccess) CHECK_EQUAL(int(out[0]), 3);
  return error;
}

// Every schedule is to find the kernels as the first did: on a device of its own.
int schedules_device() { return 8 * int(settings.schedule); }

}  // namespace

TEST(launches_of_any_order) {
  settings.device = schedules_device();
  for (const size_t bytes :
       {size_t(0), kMost, size_t(1), size_t(48 * 1024), size_t(33 * 1024), kMost, size_t(48 * 1024) - kStaticBytes + 1})
    CHECK(launch<0>(bytes) == cudaSuccess);
  CHECK(launch<0>(kMost + 1) == cudaErrorInvalidValue);
  CHECK(launch<0>(kMost) == cudaSuccess);
}

TEST(limits_of_shared_memory_are_set_once_for_a_kernel_and_device) {
  const uint64_t before = counters.limits_set;
  for (int i = 0; i < 2; ++i) {
    for (const int device : {1, 2}) {
      settings.device = schedules_device() + device;
      for (int repeat = 0; repeat < 2; ++repeat) {
        CHECK(launch<1>(40 * 1024) == cudaSuccess);
        CHECK(launch<2>(kMost) == cudaSuccess);
      }
    }
    CHECK_EQUAL(counters.limits_set - before, 4u);
  }
}

// Of these it is not remembered: 70 must not be taken for 6.
TEST(devices_beyond_the_64th) {
  for (const int device : {6, 70, 70, 102, 6}) {
    settings.device = device;
    CHECK(launch<3>(kMost) == cudaSuccess);
  }
}

TEST(small_launches_set_no_limit) {
  const uint64_t before = counters.limits_set;
  settings.device = schedules_device() + 3;
  CHECK(launch<4>(0) == cudaSuccess);
  CHECK(launch<4>(32 * 1024) == cudaSuccess);
  CHECK_EQUAL(counters.limits_set, before);
  CHECK(launch<5>(48 * 1024 - kStaticBytes + 1) == cudaSuccess);
  CHECK_EQUAL(counters.limits_set, before + 1);
}

TEST(resident_blocks_count_what_a_launch_takes) {
  settings.device = schedules_device() + 4;
  settings.multiprocessors = 10;
  settings.blocks_per_multiprocessor = 8;
  for (const auto& [bytes, expected] :
       {std::pair{size_t(0), 80}, {size_t(70 * 1024), 30}, {kMost, 10}, {size_t(1), 80}}) {
    int64_t blocks = 0;
    CHECK(cuda::resident_blocks<fill<6>>(32, bytes, &blocks) == cudaSuccess);
    CHECK_EQUAL(blocks, expected, bytes);
    CHECK(launch<6>(bytes) == cudaSuccess);
  }
}

// The first launch of all may be one that a graph captures; what that sets is given back.
TEST(first_launches_may_be_captured) {
  settings.capturing = true;
  for (const cudaStreamCaptureMode of_thread : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal}) {
    settings.device = schedules_device() + 5 + int(of_thread);
    cudaStreamCaptureMode mode = of_thread;
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess);
    int64_t blocks = 0;
    CHECK(cuda::resident_blocks<fill<7>>(32, 1024, &blocks) == cudaSuccess);
    CHECK(launch<8>(kMost) == cudaSuccess);
    mode = cudaStreamCaptureModeGlobal;
    CHECK(cudaThreadExchangeStreamCaptureMode(&mode) == cudaSuccess);
    CHECK(mode == of_thread);
  }
}
