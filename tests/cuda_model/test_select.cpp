// select.cuh: the k-th largest key of a block, as sorting finds it. What finds knn too much to compare finds the same
// neighbours, so that only this tells.
#include <algorithm>

#include "cuda/product/knn/select.cuh"
#include "cuda/runtime/launch.cuh"
#include "testing.h"

using namespace pyfastcal;

static __global__ void select_kth(const uint32_t* keys, int n, int k, uint32_t* out) {
  PYFASTCAL_STATIC_SHARED(cuda::Digits, digits);
  const uint32_t kth = cuda::block_kth_largest(k, digits, [&](const auto& visit) {
    for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) visit(keys[i]);
  });
  out[threadIdx.x] = kth;  // all threads get it
}

static uint32_t sorted_kth(std::vector<uint32_t> keys, int k) {
  std::erase(keys, 0u);  // which stand for nothing
  if (int(keys.size()) < k) return 0;
  std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<>());
  return keys[size_t(k - 1)];
}

static void check(const std::vector<uint32_t>& keys, int k) {
  const DeviceArray<uint32_t> on_device(keys);
  DeviceArray<uint32_t> out(128);
  CHECK(PYFASTCAL_LAUNCH(select_kth, 1, 128, 0, nullptr, on_device.data(), int(keys.size()), k, out.data()) ==
        cudaSuccess);
  for (const uint32_t kth : out) CHECK_EQUAL(kth, sorted_kth(keys, k), "of ", keys.size(), " keys, k ", k);
  record(out);
}

TEST(select_kth_largest_of_a_block) {
  std::mt19937 generator(1);
  // keys of all digits, of few, of one leading digit, that differ in the last digit only, and with many zeros
  for (const uint32_t mask : {0xffffffffu, 0x03010000u, 0x00ffffffu, 0x000000ffu, 0x80000001u})
    for (const int n : {1, 5, 127, 128, 1000}) {
      std::vector<uint32_t> keys(size_t(n), 0);
      for (uint32_t& key : keys) key = uint32_t(generator()) & mask;
      for (const int k : {1, 2, 10, n / 2 + 1, n, n + 1}) check(keys, k);
    }
  check({7, 7, 7, 7}, 2);
  check({0, 0, 3}, 2);
  check({}, 1);
}

TEST(select_orders_keys_as_floats) {
  const float inf = __uint_as_float(0x7f800000u);
  const std::vector<float> ascending = {-inf, -3e38f, -1.0f, -1e-45f, 0.0f, 1e-45f, 0.5f, 1.0f, 3e38f, inf};
  for (size_t i = 0; i < ascending.size(); ++i) {
    CHECK_EQUAL(cuda::from_key(cuda::to_key(ascending[i])), ascending[i]);
    CHECK(cuda::to_key(ascending[i]) > (i ? cuda::to_key(ascending[i - 1]) : 0u));
  }
  CHECK_EQUAL(cuda::from_key(0), -inf);
}
