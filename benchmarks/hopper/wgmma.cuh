// Hopper's own instructions, as PTX: barriers that count bytes, tensor copies (TMA), the product of a warpgroup
// (wgmma).
#pragma once
#include <cuda.h>

#include <cstdint>

namespace pyfastcal::hopper {

__device__ __forceinline__ uint32_t shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// A barrier in shared memory. Its phase ends when all have arrived and all expected bytes have landed; parities of
// phases alternate, from 0. Waiting for parity 1 before the first phase has ended returns at once.
struct Barrier {
  uint32_t address;

  __device__ __forceinline__ void init(int arrivals) const {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(arrivals));
  }
  __device__ __forceinline__ bool try_wait(uint32_t parity) const {
    uint32_t done;
    asm volatile(
        "{\n.reg .pred P1;\nmbarrier.try_wait.parity.shared::cta.b64 P1, [%1], %2;\nselp.b32 %0, 1, 0, P1;\n}\n"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
    return done;
  }
  // What waits for seconds waits for ever: it says where (`code`) and ends the kernel.
  __device__ __forceinline__ void wait(uint32_t parity, volatile int* report, int code) const {
    if (try_wait(parity)) return;
    const long long start = clock64();
    while (!try_wait(parity))
      if (clock64() - start > 3000000000ll) {
        report[0] = code;
        report[1] = int(blockIdx.x);
        report[2] = int(threadIdx.x);
        report[3] = int(parity);
        __threadfence_system();
        asm volatile("trap;");
      }
  }
  __device__ __forceinline__ void arrive_expecting(uint32_t bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory");
  }
  __device__ __forceinline__ void arrive() const {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory");
  }
  // At the same barrier of another block of the cluster.
  __device__ __forceinline__ void arrive_at(uint32_t block) const {
    asm volatile(
        "{\n.reg .b32 r;\nmapa.shared::cluster.u32 r, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [r];\n}\n" ::"r"(address),
        "r"(block)
        : "memory");
  }
};

// Makes barriers that were just initialised known to the cluster and to tensor copies.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ uint32_t rank_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Copies the map's box at column x, row y; what lies outside of the tensor is zero, and counts as landed all the same.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, int x, int y, Barrier landed) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(map), "r"(landed.address), "r"(x), "r"(y)
      : "memory");
}
// The same to each block of `blocks`, at the same address and with the same barrier of its own.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap* map, int x, int y, Barrier landed,
                                         uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
      "l"(map), "r"(landed.address), "h"(blocks), "r"(x), "r"(y)
      : "memory");
}
__device__ __forceinline__ void prefetch_box(const CUtensorMap* map, int x, int y) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global [%0, {%1, %2}];" ::"l"(map), "r"(x), "r"(y) : "memory");
}

// A warpgroup's registers a thread from here on: fewer, so that others can claim them; more, once there are as many.
template <int kCount>
__device__ __forceinline__ void release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void claim_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Products are asynchronous: begin_products, multiply any number of times, end_products makes a group of them; then
// wait until all but the last kGroups have ended. Nothing else may touch their accumulators meanwhile.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroups>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}
// Keeps the compiler from moving what it does with accumulators across this.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Describes 64 or more rows of a chunk (or, advanced by 2 q, their columns from 16 q on): 128 bytes a row, 1024 bytes
// for 8 rows (64 x 16), pieces of 16 bytes permuted by the row's number (layout 1 at bit 62), as tensor copies of
// boxes with CU_TENSOR_MAP_SWIZZLE_128B leave them.
__device__ __forceinline__ uint64_t describe(uint32_t address) {
  return uint64_t((address & 0x3ffff) >> 4) | (uint64_t(1) << 16) | (uint64_t(64) << 32) | (uint64_t(1) << 62);
}

#define PYFASTCAL_ACCUMULATORS_8(d, i)                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define PYFASTCAL_ACCUMULATORS_32(d, i)                                                                    \
  PYFASTCAL_ACCUMULATORS_8(d, i), PYFASTCAL_ACCUMULATORS_8(d, i + 8), PYFASTCAL_ACCUMULATORS_8(d, i + 16), \
      PYFASTCAL_ACCUMULATORS_8(d, i + 24)
#define PYFASTCAL_OPERANDS_0_TO_63                                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
  "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PYFASTCAL_OPERANDS_64_TO_127                                                                       \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "   \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, "     \
  "%103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, " \
  "%120, %121, %122, %123, %124, %125, %126, %127"

// d += 64 rows of a times rows of b, 16 columns of each; without `add` d =. A warp has 16 of the rows: d[4 n + 2 h + e]
// is at row lane / 4 + 8 h of them, column 8 n + lane % 4 * 2 + e.
__device__ __forceinline__ void multiply(float (&d)[64], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{" PYFASTCAL_OPERANDS_0_TO_63 "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : PYFASTCAL_ACCUMULATORS_32(d, 0), PYFASTCAL_ACCUMULATORS_32(d, 32)
      : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void multiply(float (&d)[128], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{" PYFASTCAL_OPERANDS_0_TO_63 ", " PYFASTCAL_OPERANDS_64_TO_127 "}, %128, %129, p, 1, 1, 0, 0;\n}\n"
      : PYFASTCAL_ACCUMULATORS_32(d, 0), PYFASTCAL_ACCUMULATORS_32(d, 32), PYFASTCAL_ACCUMULATORS_32(d, 64),
        PYFASTCAL_ACCUMULATORS_32(d, 96)
      : "l"(a), "l"(b), "r"(add));
}

}  // namespace pyfastcal::hopper
