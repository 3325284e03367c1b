// Of the model itself: that its operations compute what CUDA's do.
#include <set>

#include "cuda/runtime/launch.cuh"
#include "testing.h"

namespace prim = pyfastcal::cuda::prim;
using cuda_model::settings;

static __global__ void exchange(int* out) {
  const int t = int(threadIdx.x), lane = t % 32;
  int* row = out + t * 13;
  row[0] = __shfl_sync(~0u, t, 3);
  row[1] = __shfl_xor_sync(~0u, t, 16);
  row[2] = __shfl_up_sync(~0u, t, 1);
  row[3] = __shfl_down_sync(~0u, t, 2, 8);
  row[4] = int(__ballot_sync(~0u, lane % 3 == 0));
  row[5] = int(__match_any_sync(~0u, lane / 8));
  row[6] = __reduce_add_sync(~0u, -lane);
  row[7] = lane < 5 ? __shfl_sync(0x1fu, t, lane + 1 < 5 ? lane + 1 : 0) : -1;
  row[8] = __syncthreads_count(t % 2);
  row[9] = __syncthreads_or(t == 40);
  row[10] = __syncthreads_and(t != 40);
  row[11] = __reduce_max_sync(~0u, lane - 7);
  row[12] = int(__reduce_min_sync(~0u, 7u - unsigned(lane)));
}

TEST(model_warp_operations) {
  DeviceArray<int> out(64 * 13);
  CHECK(PYFASTCAL_LAUNCH(exchange, 1, 64, 0, nullptr, out.data()) == cudaSuccess);
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, warp = t - lane, *row = out.data() + t * 13;
    CHECK_EQUAL(row[0], warp + 3);
    CHECK_EQUAL(row[1], t ^ 16);
    CHECK_EQUAL(row[2], lane ? t - 1 : t);
    CHECK_EQUAL(row[3], lane % 8 < 6 ? t + 2 : t);
    CHECK_EQUAL(unsigned(row[4]), 0x49249249u);
    CHECK_EQUAL(unsigned(row[5]), 0xffu << lane / 8 * 8);
    CHECK_EQUAL(row[6], -496);
    CHECK_EQUAL(row[7], lane < 5 ? warp + (lane + 1) % 5 : -1);
    CHECK_EQUAL(row[8], 32);
    CHECK_EQUAL(row[9], 1);
    CHECK_EQUAL(row[10], 0);
    CHECK_EQUAL(row[11], 24);
    CHECK_EQUAL(row[12], 0);
  }
  record(out);
}

static __global__ void number_threads(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned id = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[id] = int(id);
}

TEST(model_grid) {
  DeviceArray<int> out(24 * 30);
  CHECK(PYFASTCAL_LAUNCH(number_threads, dim3(2, 3, 4), dim3(5, 3, 2), 0, nullptr, out.data()) == cudaSuccess);
  for (int i = 0; i < 24 * 30; ++i) CHECK_EQUAL(out[i], i);
}

TEST(model_refuses_bad_launches) {
  DeviceArray<int> out(1);
  const auto launch = [&](dim3 grid, dim3 block, size_t shared) {
    return PYFASTCAL_LAUNCH(number_threads, grid, block, shared, nullptr, out.data());
  };
  CHECK(launch(0, 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 0, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 1025, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(dim3(1, 65536), 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 1, 227 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(launch(1, 1, 227 * 1024) == cudaSuccess);
}

// kNumber: kernels apart, each with a limit of its own.
template <int kNumber>
static __global__ void take_shared(int* out) {
  PYFASTCAL_STATIC_SHARED(int[256], fixed);
  fixed[threadIdx.x] = kNumber;
  if (threadIdx.x == 0) *out = fixed[0];
}

template <int kNumber>
static cudaError_t take(size_t dynamic_bytes) {
  DeviceArray<int> out(1);
  return prim::launch(take_shared<kNumber>, 1, 32, dynamic_bytes, nullptr, out.data());
}

template <int kNumber>
static cudaError_t limit(size_t bytes) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(&take_shared<kNumber>),
                              cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
}

TEST(model_limits_shared_memory) {
  constexpr size_t kStatic = 1024, kUnasked = 48 * 1024 - kStatic, kMost = 227 * 1024 - kStatic;
  settings.device = 2 * int(settings.schedule);
  CHECK(take<1>(0) == cudaSuccess);
  CHECK(take<1>(kUnasked) == cudaSuccess);
  CHECK(take<1>(kUnasked + 1) == cudaErrorInvalidValue);
  cudaFuncAttributes attributes;
  CHECK(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&take_shared<1>)) == cudaSuccess);
  CHECK_EQUAL(attributes.sharedSizeBytes, kStatic);
  CHECK(limit<1>(kMost + 1) == cudaErrorInvalidValue);
  CHECK(limit<1>(100000) == cudaSuccess);
  CHECK(take<1>(100000) == cudaSuccess);
  CHECK(take<1>(100001) == cudaErrorInvalidValue);
  CHECK(take<2>(100000) == cudaErrorInvalidValue);  // another kernel
  CHECK(limit<1>(kMost) == cudaSuccess);
  CHECK(take<1>(kMost) == cudaSuccess);
  ++settings.device;  // another device
  CHECK(take<1>(100000) == cudaErrorInvalidValue);
  CHECK(take<1>(kUnasked) == cudaSuccess);
}

// Everything that orders memory, used as it should be: no sanitizer may complain.
static __global__ void reduce_blocks(const int* values, int n, int* partial, unsigned* done, int* total) {
  PYFASTCAL_SHARED(int, sums);
  PYFASTCAL_STATIC_SHARED(int[32], row);
  PYFASTCAL_STATIC_SHARED(bool, last);
  const int t = int(threadIdx.x), lane = t % 32;
  int sum = 0;
  for (int i = int(blockIdx.x) * 64 + t; i < n; i += int(gridDim.x) * 64) sum += values[i];
  sums[t] = sum;
  __syncthreads();
  for (int half = 32; half >= 32; half /= 2) {
    if (t < half) sums[t] += sums[t + half];
    __syncthreads();
  }
  if (t < 32) {
    row[lane] = sums[lane];
    __syncwarp();
    for (int half = 16; half; half /= 2) {
      if (lane < half) row[lane] += row[lane + half];
      __syncwarp();
    }
  }
  if (t == 0) {
    partial[blockIdx.x] = row[0];
    __threadfence();
    last = atomicAdd(done, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && t == 0) {
    __threadfence();
    *total = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) *total += partial[b];
  }
}

TEST(model_orders_memory) {
  DeviceArray<int> values(1000), partial(5), total(1);
  DeviceArray<unsigned> done(1);
  for (int i = 0; i < 1000; ++i) values[i] = i;
  for (int repeat = 0; repeat < 2; ++repeat) {
    done[0] = 0;
    CHECK(PYFASTCAL_LAUNCH(reduce_blocks, 5, 64, 64 * sizeof(int), nullptr, values.data(), 1000, partial.data(),
                           done.data(), total.data()) == cudaSuccess);
    CHECK_EQUAL(total[0], 499500);
  }
}

static __global__ void read_uninitialised(float* out) {
  PYFASTCAL_SHARED(float, dynamic);
  PYFASTCAL_STATIC_SHARED(float[32], fixed);
  const int t = int(threadIdx.x);
  out[blockIdx.x * 32 + threadIdx.x] = dynamic[t] + fixed[t];
  dynamic[t] = fixed[t] = 1;
}

TEST(model_forgets_shared_memory) {
  DeviceArray<float> out(3 * 32);
  for (float& x : out) x = 0;
  CHECK(PYFASTCAL_LAUNCH(read_uninitialised, 3, 32, 32 * sizeof(float), nullptr, out.data()) == cudaSuccess);
  for (const float x : out) CHECK(std::isnan(x));
}

// One warp: d = a * b, a (16, 16) and b (8, 16) both with the products' index running fastest. Row r of a tile lies at
// r * stride bytes.
template <class T>
static __global__ void multiply(const T* a, const T* b, float* d, int valid_bytes, int stride) {
  PYFASTCAL_SHARED(char, tiles);
  const int lane = int(threadIdx.x);
  char* const tile_b = tiles + 16 * stride;
  for (int i = lane; i < 32; i += 32) prim::copy_async_16(tiles + i / 2 * stride + i % 2 * 16, a + i * 8);
  prim::commit_copies();
  if (lane < 16) prim::copy_async_16(tile_b + lane / 2 * stride + lane % 2 * 16, b + lane * 8, valid_bytes);
  prim::commit_copies();
  prim::wait_copies<1>();
  __syncwarp();
  uint32_t fragment_a[4], fragment_b[4];
  prim::load_matrix_x4(fragment_a, tiles + lane % 16 * stride + lane / 16 * 16);
  prim::wait_copies<0>();
  __syncwarp();
  prim::load_matrix_x4(fragment_b, tile_b + lane % 8 * stride + lane / 8 % 2 * 16);
  float sum[4] = {};
  prim::mma_16816<T>(sum, fragment_a, {fragment_b[0], fragment_b[1]});
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

template <class T>
static void check_multiply() {
  std::mt19937 generator(7);
  std::vector<float> a(256), b(128);
  for (float& x : a) x = float(int(generator() % 17)) - 8;
  for (float& x : b) x = float(int(generator() % 17)) - 8;
  const DeviceArray<T> device_a(a), device_b(b);
  for (const int valid_bytes : {16, 6, 0}) {
    DeviceArray<float> d(128);
    for (const int stride : {32, 48}) {
      cuda_model::counters.matrix_load_conflicts = 0;
      CHECK(PYFASTCAL_LAUNCH(multiply<T>, 1, 32, size_t(24 * stride), nullptr, device_a.data(), device_b.data(),
                             d.data(), valid_bytes, stride) == cudaSuccess);
      // rows 32 bytes apart come two to a group of banks, rows 48 bytes apart do not
      CHECK_EQUAL(cuda_model::counters.matrix_load_conflicts, stride == 32 ? 8u : 0u);
      for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 8; ++column) {
          float expected = 0;
          for (int k = 0; k < 16; ++k)
            if (k % 8 * 2 < valid_bytes) expected += a[row * 16 + k] * b[column * 16 + k];
          CHECK_EQUAL(d[row * 8 + column], expected, "row ", row, " column ", column);
        }
    }
    record(d);
  }
}

TEST(model_tensor_core_bfloat16) { check_multiply<__nv_bfloat16>(); }
TEST(model_tensor_core_half) { check_multiply<__half>(); }

static __global__ void sum_products(const __nv_bfloat16* a, const __nv_bfloat16* b, float start, float* d) {
  const int k = int(threadIdx.x) % 4 * 2;
  uint32_t fragment_a[4], fragment_b[2];
  for (int i = 0; i < 4; ++i) std::memcpy(&fragment_a[i], a + k + i / 2 * 8, 4);
  for (int i = 0; i < 2; ++i) std::memcpy(&fragment_b[i], b + k + i * 8, 4);
  float sum[4] = {start, start, start, start};
  prim::mma_16816<__nv_bfloat16>(sum, fragment_a, fragment_b);
  if (threadIdx.x == 0) d[0] = sum[0];
}

TEST(model_tensor_core_cuts_what_is_small) {
  const auto sum = [](float start, float first, float second) {
    std::vector<float> a(16), ones(16, 1.0f);
    a[0] = first;
    a[1] = second;
    const DeviceArray<__nv_bfloat16> device_a(a), device_b(ones);
    DeviceArray<float> d(1);
    CHECK(PYFASTCAL_LAUNCH(sum_products, 1, 32, 0, nullptr, device_a.data(), device_b.data(), start, d.data()) ==
          cudaSuccess);
    return d[0];
  };
  CHECK_EQUAL(sum(1, 0x1p-24f, 0x1p-24f), 1 + 0x1p-23f);
  CHECK_EQUAL(sum(1, 0x1p-25f, 0x1p-25f), 1.0f);     // cut one by one
  CHECK_EQUAL(sum(1, 0x1.8p-23f, 0), 1 + 0x1p-23f);  // not to nearest, but towards zero
  CHECK_EQUAL(sum(-1, -0x1.8p-23f, 0), -1 - 0x1p-23f);
  CHECK(std::isinf(sum(0, INFINITY, 1)));
  CHECK(std::isnan(sum(0, NAN, 1)));
}

TEST(model_exp2_is_approximate) {
  std::set<int> errors;
  for (float x = -20; x < 20; x += 0.37f) {
    const float exact = std::exp2(x);
    errors.insert(cuda_model::from_bits<int>(cuda_model::to_bits(prim::exp2_approx(x))) -
                  cuda_model::from_bits<int>(cuda_model::to_bits(exact)));
  }
  CHECK(*errors.begin() == -2 && *errors.rbegin() == 2);
  CHECK_EQUAL(prim::exp2_approx(0), 1.0f);
  CHECK_EQUAL(prim::exp2_approx(1e-40f), 1.0f);
  CHECK_EQUAL(prim::exp2_approx(-127), 0.0f);
  CHECK_EQUAL(prim::exp2_approx(-INFINITY), 0.0f);
  CHECK(std::isinf(prim::exp2_approx(200)));
  CHECK(std::isnan(prim::exp2_approx(NAN)));
}
