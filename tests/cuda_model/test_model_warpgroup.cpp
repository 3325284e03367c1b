// Of the model itself: that Hopper's own instructions compute what they should, from copies to products.
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/warpgroup.cuh"
#include "testing.h"

namespace prim = pyfastcal::cuda::prim;
using cuda_model::counters;
using cuda_model::settings;

namespace {

constexpr int kChunk = 64, kTile = 128, kBoxBytes = kTile * 128;

// A chunk of rows as an operand, or the columns from 16 q on of it where 2 q is added.
uint64_t describe(const void* chunk) {
  const uint32_t address = prim::shared_address(chunk);
  return uint64_t(address >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}

// All tiles of a product: a warpgroup copies chunks of rows and columns through a ring, two multiply.
constexpr int kRing = 3;
struct Ring {
  unsigned char slots[kRing][2][kBoxBytes];
  prim::Barrier landed[kRing], free[kRing];
};
struct Slot {
  int number = 0;
  uint32_t parity = 0;
  void next() {
    if (++number == kRing) {
      number = 0;
      parity ^= 1;
    }
  }
};

template <class T>
__global__ void multiply_all(const __grid_constant__ prim::TensorMap a, const __grid_constant__ prim::TensorMap b,
                             int rows, int cols, int depth, float* out) {
  PYFASTCAL_SHARED(Ring, ring);
  const int thread = int(threadIdx.x), warpgroup = thread / 128, chunks = (depth + kChunk - 1) / kChunk;
  if (thread == 0) {
    for (int s = 0; s < kRing; ++s) {
      prim::init(&ring->landed[s], 1);
      prim::init(&ring->free[s], 8);
    }
    prim::publish_barriers();
  }
  __syncthreads();
  Slot slot;
  if (warpgroup == 0) {
    prim::release_registers<40>();
    if (thread != 0) return;
    for (int row = int(blockIdx.x) * kTile; row < rows; row += int(gridDim.x) * kTile)
      for (int col = 0; col < cols; col += kTile)
        for (int k = 0; k < chunks; ++k, slot.next()) {
          prim::Barrier* const landed = &ring->landed[slot.number];
          prim::wait(&ring->free[slot.number], slot.parity ^ 1);
          prim::arrive_expecting(landed, 2 * kBoxBytes);
          prim::copy_box(ring->slots[slot.number][0], &a, row, k * kChunk, landed);
          prim::copy_box(ring->slots[slot.number][1], &b, col, k * kChunk, landed);
        }
    return;
  }
  prim::claim_registers<232>();
  for (int row = int(blockIdx.x) * kTile; row < rows; row += int(gridDim.x) * kTile)
    for (int col = 0; col < cols; col += kTile) {
      float d[1][16][4];
      for (int k = 0; k < chunks; ++k, slot.next()) {
        prim::wait(&ring->landed[slot.number], slot.parity);
        const uint64_t of_a = describe(ring->slots[slot.number][0] + (warpgroup - 1) * 64 * 128),
                       of_b = describe(ring->slots[slot.number][1]);
        prim::begin_products();
        for (int q = 0; q < 4; ++q) prim::multiply<T>(d, of_a + 2 * q, of_b + 2 * q, k > 0 || q > 0);
        prim::end_products();
        if (k == 0) continue;
        prim::wait_products<1>();
        if (thread % 32 == 0) prim::arrive(&ring->free[(slot.number + kRing - 1) % kRing]);
      }
      prim::wait_products<0>();
      prim::pin(d);
      if (thread % 32 == 0) prim::arrive(&ring->free[(slot.number + kRing - 1) % kRing]);
      for (int n = 0; n < 16; ++n)
        for (int i = 0; i < 4; ++i) {
          const int r = row + thread / 32 % 4 * 16 + (warpgroup - 1) * 64 + thread % 32 / 4 + i / 2 * 8,
                    c = col + 8 * n + thread % 4 * 2 + i % 2;
          if (r < rows && c < cols)
            out[r * cols + c] = d[0][n][i];
          else
            CHECK_EQUAL(d[0][n][i], 0.0f);
        }
    }
}

// Small integers: any sum of products is exact.
template <class T>
DeviceArray<T> random_integers(size_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  DeviceArray<T> values(n);
  for (T& x : values) x = T(float(int(generator() % 9) - 4));
  return values;
}

template <class T>
void check_ring(int rows, int cols, int depth, int blocks) {
  const int stride = (depth + 7) / 8 * 8;
  const DeviceArray<T> a = random_integers<T>(size_t(rows * stride), 1),
                       b = random_integers<T>(size_t(cols * stride), 2);
  DeviceArray<float> out(size_t(rows * cols));
  prim::TensorMap map_a, map_b;
  CHECK(prim::make_tensor_map(&map_a, std::is_same_v<T, __half>, a.data(), rows, depth, stride, kTile) == cudaSuccess);
  CHECK(prim::make_tensor_map(&map_b, std::is_same_v<T, __half>, b.data(), cols, depth, stride, kTile) == cudaSuccess);
  CHECK(PYFASTCAL_LAUNCH(multiply_all<T>, dim3(unsigned(blocks)), 384, sizeof(Ring), nullptr, map_a, map_b, rows, cols,
                         depth, out.data()) == cudaSuccess);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < cols; ++j) {
      float exact = 0;
      for (int k = 0; k < depth; ++k) exact += float(a[size_t(i * stride + k)]) * float(b[size_t(j * stride + k)]);
      CHECK_EQUAL(out[size_t(i * cols + j)], exact, i, ' ', j);
    }
  record(out);
}

}  // namespace

TEST(model_warpgroups_multiply) {
  check_ring<__nv_bfloat16>(128, 128, 512, 1);
  check_ring<__nv_bfloat16>(300, 200, 200, 2);
  check_ring<__half>(5, 130, 70, 1);
}
