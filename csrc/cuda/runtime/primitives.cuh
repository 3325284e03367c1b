// What kernels may use beyond plain CUDA C++: shared memory and a few PTX instructions; and prim::launch, for
// launch.cuh. Compiled with PYFASTCAL_CUDA_MODEL (by g++, for tests/cuda_model) the same names run on the CPU model of
// CUDA instead.
//
//   PYFASTCAL_SHARED(T, name)          T* name: the block's dynamic shared memory, 1024-byte aligned
//   PYFASTCAL_STATIC_SHARED(T, name)   T name, in the block's shared memory (T may be an array type); stands for
//                                      __shared__, which the model cannot tell apart by block
#pragma once
#include <cstdint>
#include <type_traits>

#if defined(PYFASTCAL_CUDA_MODEL)
#include "cuda_model/primitives.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define PYFASTCAL_SHARED(T, name)                                   \
  extern __shared__ __align__(1024) unsigned char dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(dynamic_shared)

#define PYFASTCAL_STATIC_SHARED(T, name) __shared__ std::type_identity_t<T> name

namespace pyfastcal::cuda::prim {

template <class... Parameters, class... Arguments>
inline cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                          cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return uint32_t(__cvta_generic_to_shared(shared));
}

// d += a * b of one warp: m16n8k16, a row-major, b column-major, fp32 accumulators; fragments as the PTX ISA lays out.
template <class T>
__device__ __forceinline__ void mma_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit numbers; lane l gives the address of row l % 8 of matrix l / 8, 16-byte aligned.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// 16 bytes to shared memory, past L1, of which the first `bytes` (0 to 16) are copied and the others become zeros. Both
// addresses must be 16-byte aligned, also where nothing is copied.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the last N groups that this thread committed are still under way.
template <int N>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Where the condition holds x, else y; x is made in any case: the compiler would make it a branch.
__device__ __forceinline__ float select(bool condition, float x, float y) {
  float out;
  asm("{.reg .pred p; setp.ne.u32 p, %1, 0; selp.f32 %0, %2, %3, p;}"
      : "=f"(out)
      : "r"(uint32_t(condition)), "f"(x), "f"(y));
  return out;
}

// 2^x within 2 ulp; denormals count as zero, as argument and as result.
__device__ __forceinline__ float exp2_approx(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

}  // namespace pyfastcal::cuda::prim
#endif
