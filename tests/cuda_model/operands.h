// For the tests of the model's products of warpgroups: matrices, their maps, and operands in shared memory.
#pragma once
#include "cuda/runtime/launch.cuh"
#include "cuda/runtime/warpgroup.cuh"
#include "testing.h"

namespace prim = pyfastcal::cuda::prim;

inline constexpr int kChunk = 64, kTile = 128, kRowBytes = 128, kBoxBytes = kTile * kRowBytes;

// 64 or 128 rows of a chunk as an operand; with 2 q added, their columns from 16 q on.
inline uint64_t describe(const void* chunk) {
  const uint32_t address = prim::shared_address(chunk);
  return uint64_t(address >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}

// Where the calling thread's accumulators d[0][i / 4][i % 4] are, of its warpgroup's 64 x 128.
inline int row_of(int i) { return int(threadIdx.x) / 32 % 4 * 16 + int(threadIdx.x) % 32 / 4 + i / 2 % 2 * 8; }
inline int column_of(int i) { return i / 4 * 8 + int(threadIdx.x) % 4 * 2 + i % 2; }

// `rows` rows of `cols` numbers, with a tensor map.
template <class T>
struct Rows {
  DeviceArray<T> data;
  int rows, cols, stride;
  prim::TensorMap map;

  // padding: elements behind each row, all that its alignment needs at least
  Rows(int rows, int cols, int box_rows = kTile, int padding = 0)
      : data(size_t(rows * ((cols + 7) / 8 * 8 + padding))),
        rows(rows),
        cols(cols),
        stride((cols + 7) / 8 * 8 + padding) {
    CHECK(prim::make_tensor_map(&map, std::is_same_v<T, __half>, data.data(), rows, cols, stride, box_rows) ==
          cudaSuccess);
  }
  template <class F>
  void fill(F f) {
    for (int i = 0; i < rows; ++i)
      for (int k = 0; k < cols; ++k) data[size_t(i * stride + k)] = T(f());
  }
  // Small ones: any sum of products is exact.
  void fill_with_integers(uint32_t seed) {
    std::mt19937 generator(seed);
    fill([&] { return float(int(generator() % 9) - 4); });
  }
  float at(int i, int k) const {
    return i >= 0 && i < rows && k >= 0 && k < cols ? float(data[size_t(i * stride + k)]) : 0;
  }
};
