// Of the model itself: that its operations compute what CUDA's do, and that it notices what a kernel does wrong.
#include "cuda/primitives.cuh"
#include "testing.h"

namespace prim = pyfastcal::cuda::prim;

static __global__ void exchange(int* out) {
  const int lane = int(threadIdx.x) % 32, t = int(threadIdx.x);
  int* row = out + t * 12;
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
}

TEST(model_warp_operations) {
  DeviceArray<int> out(64 * 12);
  CHECK(PYFASTCAL_LAUNCH(exchange, 1, 64, 0, nullptr, out.data()) == cudaSuccess);
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, warp = t - lane, *row = out.data() + t * 12;
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
  }
  record(out);
}
