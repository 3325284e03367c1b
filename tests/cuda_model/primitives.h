// The model's versions of csrc/cuda/runtime/primitives.cuh.
#pragma once
#include "runtime.h"

#define PYFASTCAL_SHARED(T, name) T* const name = reinterpret_cast<T*>(cuda_model::dynamic_shared())
#define PYFASTCAL_STATIC_SHARED(T, name) \
  static const char name##_key = 0;      \
  auto& name = *reinterpret_cast<std::type_identity_t<T>*>(cuda_model::static_shared(&name##_key, sizeof(T)))

namespace cuda_model {

struct Registers {
  float* d;
  const uint32_t *a, *b;
};
template <class T>
void complete_mma(Warp& warp, uint32_t mask);

// Off by as much as the instruction may be, now to this side, now to that.
float exp2_approx(float x);

struct MatrixRow {
  uint32_t* r;
  const void* address;
  unsigned char bytes[16];
};
void complete_load_matrix(Warp& warp, uint32_t mask);

// The asynchronous copies of the calling thread. A copy itself is made here, in code that the sanitizers watch.
struct Copy {
  void* shared;
  const void* global;
  int bytes;
};
inline void land(const Copy& copy) {
  std::memset(copy.shared, 0, 16);
  if (copy.bytes) std::memcpy(copy.shared, copy.global, size_t(copy.bytes));
}
void issue(const Copy& copy, Place place);
void commit();
bool next_landed(int groups_left, Copy* copy);  // a copy that must have landed once only `groups_left` are under way

}  // namespace cuda_model

namespace pyfastcal::cuda::prim {

template <class... Parameters, class... Arguments>
inline cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
                          const Arguments&... arguments) {
  // By reference, for it returns when all blocks have ended; and GCC 12, which clears the padding of what is captured
  // (-ftrivial-auto-var-init), takes the place of padding behind an array of structures to be another.
  return cuda_model::launch(reinterpret_cast<const void*>(kernel), grid, block, shared_bytes,
                            [&] { kernel(arguments...); });
}

inline uint32_t shared_address(const void* shared) { return cuda_model::shared_address(shared); }

template <class T>
inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], CUDA_MODEL_PLACE_ARGUMENTS) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  const cuda_model::Registers registers{d, a, b};
  cuda_model::meet(~0u, uint64_t(uintptr_t(&registers)), 0, cuda_model::complete_mma<T>, {"mma_16816", file, line});
}

inline void load_matrix_x4(uint32_t (&r)[4], const void* row, CUDA_MODEL_PLACE_ARGUMENTS) {
  if (uintptr_t(row) % 16) cuda_model::die("load_matrix_x4: address not 16-byte aligned");
  if (!cuda_model::in_shared(row, 16)) cuda_model::die("load_matrix_x4: address not in shared memory");
  cuda_model::MatrixRow lane{r, row, {}};
  std::memcpy(lane.bytes, row, 16);
  cuda_model::meet(~0u, uint64_t(uintptr_t(&lane)), 0, cuda_model::complete_load_matrix,
                   {"load_matrix_x4", file, line});
}

inline void copy_async_16(void* shared, const void* global, int bytes = 16, CUDA_MODEL_PLACE_ARGUMENTS) {
  if (uintptr_t(shared) % 16 || uintptr_t(global) % 16) cuda_model::die("copy_async_16: address not 16-byte aligned");
  if (!cuda_model::in_shared(shared, 16)) cuda_model::die("copy_async_16: address not in shared memory");
  if (bytes < 0 || bytes > 16) cuda_model::die("copy_async_16: more bytes than 16");
  if (cuda_model::settings.copies_land_early) cuda_model::land({shared, global, bytes});
  cuda_model::issue({shared, global, bytes}, {"copy_async_16", file, line});
}
inline void commit_copies() { cuda_model::commit(); }
template <int N>
inline void wait_copies() {
  for (cuda_model::Copy copy; cuda_model::next_landed(N, &copy);)
    if (!cuda_model::settings.copies_land_early) cuda_model::land(copy);
}

inline float select(bool condition, float x, float y) { return condition ? x : y; }
inline float exp2_approx(float x) { return cuda_model::exp2_approx(x); }

}  // namespace pyfastcal::cuda::prim
