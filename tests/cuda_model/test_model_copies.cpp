// Of the model itself: the copy engine and barriers of Hopper do what they should.
#include "operands.h"

namespace {

// Copies a box and shows what is then in shared memory, its rows' pieces where they would be without permutation.
__global__ void show_box(const __grid_constant__ prim::TensorMap map, int row, int column, int box_rows, float* out) {
  PYFASTCAL_SHARED(unsigned char, shared);
  unsigned char* const box = shared + 1024;
  auto* const barrier = reinterpret_cast<prim::Barrier*>(shared);
  if (threadIdx.x == 0) {
    prim::init(barrier, 1);
    prim::publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    prim::copy_box(box, &map, row, column, barrier);
    prim::arrive_expecting(barrier, box_rows * kRowBytes);
  }
  prim::wait(barrier, 0);
  for (int i = int(threadIdx.x); i < box_rows * kChunk; i += int(blockDim.x)) {
    const int r = i / kChunk, k = i % kChunk;
    out[i] = reinterpret_cast<const __half*>(box)[r * kChunk + ((k / 8) ^ (r % 8)) * 8 + k % 8];
  }
}

// Copies bytes as they are and shows them.
__global__ void show_bytes(const unsigned char* from, int bytes, unsigned char* out) {
  PYFASTCAL_SHARED(unsigned char, shared);
  auto* const barrier = reinterpret_cast<prim::Barrier*>(shared);
  if (threadIdx.x == 0) {
    prim::init(barrier, 1);
    prim::publish_barriers();
    prim::copy_bytes(shared + 16, from, bytes, barrier);
    prim::arrive_expecting(barrier, bytes);
  }
  __syncthreads();
  prim::wait(barrier, 0);
  for (int i = int(threadIdx.x); i < bytes; i += int(blockDim.x)) out[i] = shared[16 + i];
}

}  // namespace

TEST(model_copies_bytes) {
  DeviceArray<unsigned char> from(256), out(256);
  for (size_t i = 0; i < 256; ++i) from[i] = static_cast<unsigned char>(i * 37);
  for (const int bytes : {16, 256}) {
    CHECK(PYFASTCAL_LAUNCH(show_bytes, 1, 64, size_t(16 + bytes), nullptr, from.data(), bytes, out.data()) ==
          cudaSuccess);
    for (int i = 0; i < bytes; ++i) CHECK_EQUAL(out[size_t(i)], from[size_t(i)], i);
  }
}

TEST(model_copies_boxes) {
  for (const int box_rows : {128, 64, 7})
    for (const int padding : {0, 8}) {
      Rows<__half> rows(150, 70, box_rows, padding);
      float next = 0;
      rows.fill([&] { return next = std::fmod(next + 1, 2039.0f); });
      DeviceArray<float> out(size_t(box_rows * kChunk));
      for (const int row : {0, 100, 149, 150, -3, -200})
        for (const int column : {0, 64, 8, 3, 69, 70, -5, -64}) {
          CHECK(PYFASTCAL_LAUNCH(show_box, 1, 64, size_t(1024 + box_rows * kRowBytes), nullptr, rows.map, row, column,
                                 box_rows, out.data()) == cudaSuccess);
          for (int r = 0; r < box_rows; ++r)
            for (int k = 0; k < kChunk; ++k)
              CHECK_EQUAL(out[size_t(r * kChunk + k)], rows.at(row + r, column + k), row, '+', r, ' ', column, '+', k);
          record(out);
        }
    }
}

TEST(model_makes_tensor_maps_as_the_driver_does) {
  DeviceArray<__half> data(64);
  prim::TensorMap map;
  const auto make = [&](const __half* from, int64_t rows, int64_t cols, int64_t stride, int box_rows) {
    return prim::make_tensor_map(&map, true, from, rows, cols, stride, box_rows);
  };
  CHECK(make(data.data(), 2, 30, 32, 256) == cudaSuccess);
  CHECK(make(data.data() + 8, 1, 1, 8, 1) == cudaSuccess);
  CHECK(make(data.data() + 4, 2, 30, 32, 64) == cudaErrorInvalidValue);
  CHECK(make(data.data(), 2, 30, 31, 64) == cudaErrorInvalidValue);
  CHECK(make(data.data(), 2, 30, 24, 64) == cudaErrorInvalidValue);
  CHECK(make(data.data(), 0, 30, 32, 64) == cudaErrorInvalidValue);
  CHECK(make(data.data(), 2, 0, 32, 64) == cudaErrorInvalidValue);
  CHECK(make(data.data(), 2, 30, 32, 0) == cudaErrorInvalidValue);
  CHECK(make(data.data(), 2, 30, 32, 257) == cudaErrorInvalidValue);
}

namespace {

// A warp hands numbers to another, one by one, by nothing but two barriers.
__global__ void hand_over(int* sums) {
  PYFASTCAL_STATIC_SHARED(prim::Barrier, written);
  PYFASTCAL_STATIC_SHARED(prim::Barrier, read);
  PYFASTCAL_STATIC_SHARED(int, number);
  if (threadIdx.x == 40) {
    prim::init(&written, 1);
    prim::init(&read, 32);
  }
  __syncthreads();
  int sum = 0;
  for (int step = 0; step < 7; ++step)
    if (threadIdx.x >= 32) {
      prim::wait(&written, uint32_t(step % 2));
      sum = 10 * sum + number;
      prim::arrive(&read);
    } else if (threadIdx.x == 0) {
      prim::wait(&read, uint32_t(step % 2 ^ 1));
      number = step + 1;
      prim::arrive(&written);
    }
  if (threadIdx.x >= 32) sums[blockIdx.x * 32 + threadIdx.x - 32] = sum;
}

}  // namespace

TEST(model_barriers_order_memory) {
  DeviceArray<int> sums(64);
  CHECK(PYFASTCAL_LAUNCH(hand_over, 2, 64, 0, nullptr, sums.data()) == cudaSuccess);
  for (const int sum : sums) CHECK_EQUAL(sum, 1234567);
}
