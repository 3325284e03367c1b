// That the model notices what a kernel does wrong: each of these small kernels holds one mistake.
#include "cuda/runtime/launch.cuh"
#include "notices.h"

namespace prim = pyfastcal::cuda::prim;

// Launches one of the kernels below; where the sanitizer that notices it is not built in (`noticed` is false) it is
// not run.
template <auto Kernel, int Grid, int Block, size_t SharedBytes>
static void expect_end(bool noticed, const char* words) {
  if (!noticed) return;
  const auto run = [] {
    DeviceArray<float> global(64);
    for (float& x : global) x = 0;
    if (PYFASTCAL_LAUNCH(Kernel, Grid, Block, SharedBytes, nullptr, global.data()) != cudaSuccess) std::abort();
  };
  testing::expect_end(run, words);
}

template <bool Right>
static __global__ void forget_a_barrier(float* global) {
  PYFASTCAL_SHARED(float, shared);
  shared[threadIdx.x] = 1;
  if (Right) __syncthreads();
  global[threadIdx.x] = shared[63 - threadIdx.x];
}
TEST(model_notices_a_missing_barrier) {
  expect_end<forget_a_barrier<false>, 1, 64, 256>(kThread, "data race");
  DeviceArray<float> global(64);
  CHECK(PYFASTCAL_LAUNCH(forget_a_barrier<true>, 1, 64, 256, nullptr, global.data()) == cudaSuccess);
}

// The barriers order what comes before with what comes after, not this write with the last step's read.
static __global__ void forget_the_second_barrier(float* global) {
  PYFASTCAL_SHARED(float, shared);
  for (int step = 0; step < 2; ++step) {
    shared[threadIdx.x] = float(step);
    __syncthreads();
    global[threadIdx.x] += shared[63 - threadIdx.x];
  }
}
TEST(model_notices_a_missing_second_barrier) {
  expect_end<forget_the_second_barrier, 1, 64, 256>(kThread, "data race");
}

static __global__ void rely_on_a_shuffle_for_order(float* global) {
  PYFASTCAL_SHARED(float, shared);
  shared[threadIdx.x] = 1;
  const float x = __shfl_xor_sync(~0u, 1.0f, 1);
  global[threadIdx.x] = x + shared[31 - threadIdx.x];
}
TEST(model_notices_a_missing_warp_barrier) {
  expect_end<rely_on_a_shuffle_for_order, 1, 32, 128>(kThread, "data race");
}

static __global__ void add_without_atomics(float* global) {
  __syncthreads();
  if (threadIdx.x == 0) global[0] += 1;
  __syncthreads();
}
TEST(model_notices_blocks_that_collide) { expect_end<add_without_atomics, 2, 32, 0>(kThread, "data race"); }

static __global__ void diverge_at_a_barrier(float* global) {
  if (threadIdx.x < 32) __syncthreads();
  __syncwarp();
  if (threadIdx.x >= 32) __syncthreads();
  global[threadIdx.x] = 1;
}
TEST(model_notices_a_divergent_barrier) {
  expect_end<diverge_at_a_barrier, 1, 64, 0>(true, "threads of one block met different barriers");
}

static __global__ void wait_for_an_absent_lane(float* global) {
  if (threadIdx.x < 16) global[threadIdx.x] = __shfl_sync(~0u, 1.0f, 0);
}
TEST(model_notices_an_absent_lane) { expect_end<wait_for_an_absent_lane, 1, 32, 0>(true, "deadlock"); }

static __global__ void shuffle_from_outside(float* global) {
  if (threadIdx.x < 16) global[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 20);
}
TEST(model_notices_a_shuffle_from_outside_its_mask) {
  expect_end<shuffle_from_outside, 1, 32, 0>(true, "a shuffle reads a lane outside its mask");
}

static __global__ void mix_warp_operations(float* global) {
  if (threadIdx.x < 16)
    global[threadIdx.x] = __shfl_sync(~0u, 1.0f, 0);
  else
    global[threadIdx.x] = float(__ballot_sync(~0u, 1));
}
TEST(model_notices_mixed_warp_operations) {
  expect_end<mix_warp_operations, 1, 32, 0>(true, "lanes of one mask met different warp operations");
}

template <int Shared, int Global, int Bytes = 16>
static __global__ void copy(float* global) {
  PYFASTCAL_SHARED(float, shared);
  prim::copy_async_16(shared + Shared, global + Global, Bytes);
  prim::commit_copies();
  prim::wait_copies<0>();
}
TEST(model_notices_a_misaligned_copy) {
  expect_end<copy<1, 0>, 1, 1, 64>(true, "copy_async_16: address not 16-byte aligned");
  expect_end<copy<0, 2>, 1, 1, 64>(true, "copy_async_16: address not 16-byte aligned");
  expect_end<copy<1, 0, 0>, 1, 1, 64>(true, "copy_async_16: address not 16-byte aligned");
  expect_end<copy<0, 2, 0>, 1, 1, 64>(true, "copy_async_16: address not 16-byte aligned");
  expect_end<copy<16, 0>, 1, 1, 64>(true, "copy_async_16: address not in shared memory");
  expect_end<copy<0, 64>, 1, 1, 64>(kAddress, "heap-buffer-overflow");
}

static __global__ void load_misaligned(float* global) {
  const float4 x = *reinterpret_cast<const float4*>(global + 1);
  global[0] = x.x;
}
TEST(model_notices_a_misaligned_load) { expect_end<load_misaligned, 1, 1, 0>(kAddress, "misaligned address"); }

static __global__ void never_wait(float* global) {
  PYFASTCAL_SHARED(float, shared);
  prim::copy_async_16(shared, global);
  prim::commit_copies();
}
// Waits, but for the group before the one that it then reads.
static __global__ void wait_too_little(float* global) {
  PYFASTCAL_SHARED(float, shared);
  for (int i = 0; i < 2; ++i) {
    prim::copy_async_16(shared + 4 * i, global);
    prim::commit_copies();
  }
  prim::wait_copies<1>();
  global[4] = shared[0];
  global[5] = shared[4];
  prim::wait_copies<0>();
}
TEST(model_notices_a_missing_wait) {
  expect_end<never_wait, 1, 1, 64>(true, "ended without waiting for its asynchronous copies");
  DeviceArray<float> global(std::vector<float>(8));
  CHECK(PYFASTCAL_LAUNCH(wait_too_little, 1, 1, 64, nullptr, global.data()) == cudaSuccess);
  CHECK_EQUAL(global[4], 0.0f);
  CHECK(cuda_model::settings.copies_land_early ? global[5] == 0.0f : std::isnan(global[5]));
}

// Begins the next copy while others may still read what it overwrites.
static __global__ void copy_too_soon(float* global) {
  PYFASTCAL_SHARED(float4, shared);
  for (int step = 0; step < 2; ++step) {
    prim::copy_async_16(shared + threadIdx.x, global);
    prim::commit_copies();
    prim::wait_copies<0>();
    __syncthreads();
    atomicAdd(global + 4, shared[31 - threadIdx.x].x);
  }
}
TEST(model_notices_a_copy_that_is_too_soon) { expect_end<copy_too_soon, 1, 32, 512>(kThread, "data race"); }

static __global__ void overrun_shared(float* global) {
  PYFASTCAL_SHARED(float, shared);
  shared[threadIdx.x + 1] = 1;
  global[0] = shared[1];
}
static __global__ void overrun_static_shared(float* global) {
  PYFASTCAL_STATIC_SHARED(float[8], first);
  PYFASTCAL_STATIC_SHARED(float[8], second);
  second[0] = 1;
  float* const p = first;
  p[8 + threadIdx.x] = 1;
  global[0] = second[0];
}
static __global__ void overrun_global(float* global) { global[threadIdx.x + 1] = 1; }
TEST(model_notices_an_overrun) {
  expect_end<overrun_shared, 1, 32, 128>(kAddress, "use-after-poison");
  expect_end<overrun_static_shared, 1, 1, 0>(kAddress, "use-after-poison");
  expect_end<overrun_global, 1, 64, 0>(kAddress, "heap-buffer-overflow");
}

// Launch code's mistakes with a kernel's limit of dynamic shared memory.
static __global__ void take_static(float* global) {
  PYFASTCAL_STATIC_SHARED(float[1024], fixed);
  fixed[threadIdx.x] = 1;
  global[threadIdx.x] = fixed[threadIdx.x];
}
static void limit(size_t bytes) {
  CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(&take_static), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int(bytes)) == cudaSuccess);
}
static void take(size_t dynamic_bytes) {
  DeviceArray<float> global(32);
  CHECK(prim::launch(take_static, 1, 32, dynamic_bytes, nullptr, global.data()) == cudaSuccess);
}
TEST(model_notices_a_limit_that_is_lowered) {
  const char* const words = "a kernel's limit of dynamic shared memory is lowered";
  testing::expect_end([] { limit(2056); }, words);
  testing::expect_end(
      [] {
        limit(100 * 1024);
        limit(100 * 1024);
        limit(100 * 1024 - 1);
      },
      words);
}
TEST(model_notices_that_static_arrays_do_not_fit) {
  testing::expect_end([] { take(45 * 1024); }, "too much shared memory, static arrays included");
  testing::expect_end(
      [] {
        limit(227 * 1024);
        take(0);
      },
      "a limit of dynamic shared memory that leaves no room for static arrays");
}
TEST(model_notices_a_device_that_changes) {
  testing::expect_end(
      [] {
        int bytes = 0;
        for (; bytes == 0; cuda_model::settings.shared_per_block = 99 * 1024)
          CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
      },
      "a device whose shared memory changed");
}
