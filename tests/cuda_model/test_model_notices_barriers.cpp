// That the model notices what small kernels do wrong with Hopper's barriers and registers.
#include "notices.h"
#include "operands.h"

using cuda_model::Schedule;
using cuda_model::settings;

namespace {

// As in test_model_notices_warpgroup.cpp: without the thread sanitizer, which would take long for nothing else.
template <auto Kernel, int Block>
void expect_end(const char* words, bool noticed = !kThread) {
  if (!noticed) return;
  const auto run = [] {
    if (prim::launch(Kernel, 1, Block, 32 * 1024, nullptr) != cudaSuccess) std::abort();
  };
  testing::expect_end(run, words);
}

prim::Barrier* barrier(size_t offset = 0) {
  PYFASTCAL_SHARED(unsigned char, shared);
  return reinterpret_cast<prim::Barrier*>(shared + offset);
}

template <int kOffset, int kArrivals>
__global__ void initialise() {
  prim::init(barrier(kOffset), kArrivals);
}
__global__ void initialise_elsewhere() {
  alignas(8) unsigned char local[8];
  prim::init(reinterpret_cast<prim::Barrier*>(local), 1);
}
__global__ void initialise_twice() {
  prim::init(barrier(8), 1);
  prim::init(barrier(8), 1);
}
__global__ void initialise_none() { prim::arrive(barrier(8)); }

// Nothing orders the barrier's beginning with its use.
__global__ void initialise_alone() {
  if (threadIdx.x == 0) prim::init(barrier(), 32);
  prim::arrive(barrier());
}

template <int kBytes>
__global__ void expect_bytes() {
  prim::init(barrier(), 2);
  prim::arrive_expecting(barrier(), kBytes);
}
__global__ void wait_for_parity_2() {
  prim::init(barrier(), 1);
  prim::wait(barrier(), 2);
}

// Two phases end, and nobody asks whether the other warp has seen the first.
template <int kFirst>
__global__ void overtake() {
  if (threadIdx.x == 0) prim::init(barrier(), 1);
  __syncthreads();
  if (threadIdx.x == kFirst) {
    prim::arrive(barrier());
    prim::arrive(barrier());
  } else if (threadIdx.x == 32 - kFirst) {
    prim::wait(barrier(), 0);
  }
}

__global__ void address_elsewhere() {
  const int local = 0;
  prim::shared_address(&local);
}

// A warp's own part of a warpgroup does not do.
__global__ void multiply_alone() {
  float d[1][16][4];
  const uint64_t rows = describe(barrier());
  prim::begin_products();
  prim::multiply<__half>(d, rows, rows, false);
}

template <int kFew, int kMany>
__global__ void share_out() {
  if (threadIdx.x < 128)
    prim::release_registers<kFew>();
  else
    prim::claim_registers<kMany>();
}
__global__ void release_in_part() {
  if (threadIdx.x < 64) prim::release_registers<40>();
}
__global__ void release_by_half_a_warp() {
  if (threadIdx.x % 32 < 16) prim::release_registers<40>();
}

}  // namespace

TEST(model_notices_a_barrier_that_does_not_begin_well) {
  expect_end<initialise<4, 1>, 1>(kAddress ? "misaligned address" : "init: a barrier that is not 8-byte aligned");
  expect_end<initialise<32 * 1024, 1>, 1>("init: a barrier that is not in shared memory");
  expect_end<initialise_elsewhere, 1>("init: a barrier that is not in shared memory");
  expect_end<initialise<0, 0>, 1>("init: a barrier for too few or too many arrivals");
  expect_end<initialise<0, 1 << 20>, 1>("init: a barrier for too few or too many arrivals");
  expect_end<initialise_twice, 1>("init: a barrier that was initialised before");
  expect_end<initialise_none, 1>("a barrier that was not initialised");
  settings.schedule = Schedule::kReverse;
  expect_end<initialise_alone, 32>("a barrier that was not initialised");
  settings.schedule = Schedule::kForward;
  expect_end<initialise_alone, 32>("data race", kThread);
}

TEST(model_notices_bytes_that_cannot_be) {
  expect_end<expect_bytes<-16>, 1>("arrive_expecting: too few or too many bytes");
  expect_end<expect_bytes<1 << 20>, 1>("arrive_expecting: too few or too many bytes");
  expect_end<expect_bytes<16>, 1>("a block ended with a barrier that still expects bytes");
}

TEST(model_notices_a_wait_that_may_miss_its_phase) {
  expect_end<wait_for_parity_2, 1>("wait: a parity that is neither 0 nor 1");
  settings.schedule = Schedule::kForward;
  expect_end<overtake<32>, 64>("wait: the next phase ended too before this thread saw that the first had");
  expect_end<overtake<0>, 64>("a phase that never ends");
}

TEST(model_notices_addresses_outside_of_shared_memory) {
  expect_end<address_elsewhere, 1>("shared_address: not in dynamic shared memory");
}

TEST(model_notices_parts_of_warpgroups) {
  expect_end<multiply_alone, 96>("multiply: not in a whole warpgroup");
  expect_end<share_out<40, 40>, 96>("registers: not in a whole warpgroup");
  expect_end<release_in_part, 128>("the warps of a warpgroup have different numbers of registers");
  expect_end<release_by_half_a_warp, 128>("deadlock");
}

TEST(model_notices_registers_that_there_are_not) {
  CHECK(prim::launch(share_out<40, 232>, 1, 384, 0, nullptr) == cudaSuccess);
  expect_end<share_out<40, 240>, 384>("a block's threads claimed more registers than it was launched with");
  expect_end<share_out<32, 240>, 384>("a block's threads claimed more registers than it was launched with");
  expect_end<share_out<40, 244>, 384>("registers: not a multiple of 8 from 24 to 256");
  expect_end<share_out<16, 232>, 384>("registers: not a multiple of 8 from 24 to 256");
  expect_end<share_out<40, 160>, 384>("claim_registers: fewer than the warp has");
  expect_end<share_out<176, 176>, 384>("release_registers: more than the warp has");
}
