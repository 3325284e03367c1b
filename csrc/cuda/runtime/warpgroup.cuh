// Hopper's own instructions (PTX ISA, sm_90a): barriers that count arrivals and bytes, the tensor copy engine, and
// wgmma, the product of a warpgroup: four warps whose first one's number is a multiple of four. With
// PYFASTCAL_CUDA_MODEL the same names run on the CPU model of CUDA. What uses them stands in `if constexpr
// (kOnHopper)`.
#pragma once
#include <cuda.h>  // for a type and its constants: nothing is linked to the driver

#include "primitives.cuh"

namespace pyfastcal::cuda::prim {

// Whether this is compiled for what has the instructions below; elsewhere a kernel that needs them is a trap.
#if defined(PYFASTCAL_CUDA_MODEL)
inline constexpr bool kOnHopper = true;
inline void trap() {}
#else
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kOnHopper = true;
#else
inline constexpr bool kOnHopper = false;
#endif
__device__ __forceinline__ void trap() { __trap(); }
#endif

}  // namespace pyfastcal::cuda::prim

#if defined(PYFASTCAL_CUDA_MODEL)
#include "cuda_model/warpgroup.h"
#else

namespace pyfastcal::cuda::prim {

// A barrier in shared memory. Its phase ends when as many threads have arrived as it was made for and all bytes that
// they expect have landed. Phases are numbered from 0; wait() is for the last one of that parity, so that it returns at
// once for parity 1 before phase 0 has ended.
struct Barrier {
  uint64_t state;
};

// By one thread, which then calls publish_barriers() before a barrier of the block.
__device__ __forceinline__ void init(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void arrive_expecting(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void wait(Barrier* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// What the copy engine knows of a matrix: 64-byte aligned, given to a kernel as a __grid_constant__ parameter.
using TensorMap = CUtensorMap;

// On the host. Boxes of box_rows rows by 64 columns, 128 bytes a row in shared memory, of a matrix of 16-bit numbers
// whose rows begin at multiples of 16 bytes; the eight pieces of 16 bytes of a row are permuted by the row's number
// (piece ^ row % 8). What lies outside of the matrix is zero. cudaErrorNotSupported: the driver knows no tensor maps.
inline cudaError_t make_tensor_map(TensorMap* map, bool half, const void* data, int64_t rows, int64_t cols,
                                   int64_t stride, int box_rows) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  const auto error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
  const auto error = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  if (error) return error;
  if (!function || found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {cuuint64_t(cols), cuuint64_t(rows)}, strides[1] = {cuuint64_t(stride) * 2};
  const cuuint32_t box[2] = {64, cuuint32_t(box_rows)}, steps[2] = {1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
      map, half ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes,
      strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// Copies the map's box that begins at (row, column) to shared memory, 1024-byte aligned; its bytes, zeros included,
// count for the barrier.
__device__ __forceinline__ void copy_box(void* to, const TensorMap* map, int row, int column, Barrier* landed) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(landed)), "r"(column), "r"(row)
      : "memory");
}
// The same of `bytes` bytes as they are; addresses and bytes: multiples of 16.
__device__ __forceinline__ void copy_bytes(void* to, const void* from, int bytes, Barrier* landed) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(landed))
               : "memory");
}

// A thread's registers from here on, by a whole warpgroup: fewer, so that others can claim them; more, once there are
// as many. Multiples of 8.
template <int kCount>
__device__ __forceinline__ void release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void claim_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Products are asynchronous: begin_products(), multiply() any number of times, end_products() makes them a group;
// wait_products() waits until all but the last kGroups groups have ended. Meanwhile nothing else may touch their
// accumulators nor overwrite their operands.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroups>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
// Keeps the compiler from moving across this what it does with accumulators.
template <int kRows, int kCols>
__device__ __forceinline__ void pin(float (&d)[kRows][kCols][4]) {
#pragma unroll
  for (auto& row : d)
#pragma unroll
    for (auto& four : row)
#pragma unroll
      for (float& x : four) asm volatile("" : "+f"(x)::"memory");
}

#define PYFASTCAL_FOUR(d, n) "+f"(d[0][n][0]), "+f"(d[0][n][1]), "+f"(d[0][n][2]), "+f"(d[0][n][3])
#define PYFASTCAL_SIXTEEN(d, n) \
  PYFASTCAL_FOUR(d, n), PYFASTCAL_FOUR(d, n + 1), PYFASTCAL_FOUR(d, n + 2), PYFASTCAL_FOUR(d, n + 3)
#define PYFASTCAL_WGMMA(type)                                                                                          \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32." type       \
               "." type                                                                                                \
               " "                                                                                                     \
               "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
               "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "  \
               "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "  \
               "%62, %63}, %64, %65, add, 1, 1, 0, 0;\n}\n"                                                            \
               : PYFASTCAL_SIXTEEN(d, 0), PYFASTCAL_SIXTEEN(d, 4), PYFASTCAL_SIXTEEN(d, 8), PYFASTCAL_SIXTEEN(d, 12)   \
               : "l"(a), "l"(b), "r"(int(add)))

// d += 64 rows of a times 128 rows of b, 16 columns of each; without `add`, d =. a and b: matrix descriptors as the PTX
// ISA lays out. A warp has 16 of the rows; d[0][n][2 * half + e] is at row lane / 4 + 8 half of them, column
// 8 n + lane % 4 * 2 + e.
template <class T>
__device__ __forceinline__ void multiply(float (&d)[1][16][4], uint64_t a, uint64_t b, bool add) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>);
  if constexpr (std::is_same_v<T, __nv_bfloat16>)
    PYFASTCAL_WGMMA("bf16");
  else
    PYFASTCAL_WGMMA("f16");
}
#undef PYFASTCAL_WGMMA
#undef PYFASTCAL_SIXTEEN
#undef PYFASTCAL_FOUR

}  // namespace pyfastcal::cuda::prim
#endif
