// The model's versions of csrc/cuda/runtime/warpgroup.cuh: barriers.cpp, boxes.cpp, products.cpp, registers.cpp.
//
// Stricter than the hardware where that finds mistakes: a copy lands as late as it may or as early, products read their
// operands as late as they may or as early, and between a product's issue and the end of its group's wait its
// accumulators hold NaN.
#pragma once
#include "primitives.h"

namespace cuda_model {

void init_barrier(uint64_t* state, int arrivals, Place place);
void publish_barriers();
void arrive(uint64_t* state, int bytes, Place place);
void wait_for_phase(uint64_t* state, uint32_t parity, Place place);

// A matrix of 16-bit numbers and the height of its boxes.
struct alignas(64) TensorMap {
  const unsigned char* data;
  int64_t rows, cols, stride;  // stride: in bytes
  int box_rows;
};
void copy_box(void* to, const TensorMap* map, int row, int column, uint64_t* barrier, Place place);
void copy_bytes(void* to, const void* from, int bytes, uint64_t* barrier, Place place);

void begin_products(Place place);
void end_products(Place place);
void multiply(float* d, uint64_t a, uint64_t b, bool add, bool half, Place place);
void wait_products(int groups_left, Place place);
void pin(const float* d);

void set_registers(int count, bool claim, Place place);

}  // namespace cuda_model

namespace pyfastcal::cuda::prim {

struct Barrier {
  uint64_t state;
};

inline void init(Barrier* barrier, int arrivals, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::init_barrier(&barrier->state, arrivals, {"init", file, line});
}
inline void publish_barriers() { cuda_model::publish_barriers(); }
inline void arrive(Barrier* barrier, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::arrive(&barrier->state, 0, {"arrive", file, line});
}
inline void arrive_expecting(Barrier* barrier, int bytes, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::arrive(&barrier->state, bytes, {"arrive_expecting", file, line});
}
inline void wait(Barrier* barrier, uint32_t parity, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::wait_for_phase(&barrier->state, parity, {"wait", file, line});
}

using TensorMap = cuda_model::TensorMap;

// What the driver refuses is refused.
inline cudaError_t make_tensor_map(TensorMap* map, bool, const void* data, int64_t rows, int64_t cols, int64_t stride,
                                   int box_rows) {
  constexpr int64_t kMost = int64_t(1) << 32;
  if (uintptr_t(map) % 64 || uintptr_t(data) % 16 || rows < 1 || rows > kMost || cols < 1 || cols > kMost ||
      stride < cols || stride * 2 % 16 || stride * 2 >= int64_t(1) << 40 || box_rows < 1 || box_rows > 256)
    return cudaErrorInvalidValue;
  *map = {static_cast<const unsigned char*>(data), rows, cols, 2 * stride, box_rows};
  return cudaSuccess;
}

inline void copy_box(void* to, const TensorMap* map, int row, int column, Barrier* landed, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::copy_box(to, map, row, column, &landed->state, {"copy_box", file, line});
}

inline void copy_bytes(void* to, const void* from, int bytes, Barrier* landed, CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::copy_bytes(to, from, bytes, &landed->state, {"copy_bytes", file, line});
}

template <int kCount>
inline void release_registers(CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::set_registers(kCount, false, {"release_registers", file, line});
}
template <int kCount>
inline void claim_registers(CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::set_registers(kCount, true, {"claim_registers", file, line});
}

inline void begin_products(CUDA_MODEL_PLACE_ARGUMENTS) { cuda_model::begin_products({"begin_products", file, line}); }
inline void end_products(CUDA_MODEL_PLACE_ARGUMENTS) { cuda_model::end_products({"end_products", file, line}); }
template <int kGroups>
inline void wait_products(CUDA_MODEL_PLACE_ARGUMENTS) {
  cuda_model::wait_products(kGroups, {"wait_products", file, line});
}
template <int kRows, int kCols>
inline void pin(float (&d)[kRows][kCols][4]) {
  cuda_model::pin(&d[0][0][0]);
}

template <class T>
inline void multiply(float (&d)[1][16][4], uint64_t a, uint64_t b, bool add, CUDA_MODEL_PLACE_ARGUMENTS) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  cuda_model::multiply(&d[0][0][0], a, b, add, std::is_same_v<T, __half>, {"multiply", file, line});
}

}  // namespace pyfastcal::cuda::prim
