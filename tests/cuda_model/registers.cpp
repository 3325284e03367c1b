// How many registers each warp has, once a kernel shares them out itself.
#include "barriers.h"

namespace cuda_model {

namespace {

constexpr int kRegisters = 64 * 1024;

int of_warp[kMaxThreads / 32];  // a thread
int at_first = 0;               // of the block: others never become its own
bool shared_out = false;

template <bool kClaim>
void complete(Warp& warp, uint32_t) {
  int& registers = of_warp[current->number / 32];
  const int count = int(warp.value[0]);
  for (const uint64_t value : warp.value)
    if (int(value) != count) die("the lanes of a warp want different numbers of registers");
  if (kClaim ? count < registers : count > registers)
    die(kClaim ? "claim_registers: fewer than the warp has" : "release_registers: more than the warp has");
  registers = count;
  shared_out = true;
}

}  // namespace

void set_registers(int count, bool claim, Place place) {
  if (count % 8 || count < 24 || count > 256) die("registers: not a multiple of 8 from 24 to 256");
  if ((current->number / 128 + 1) * 128 > n_threads) die("registers: not in a whole warpgroup");
  meet(~0u, uint64_t(count), 0, claim ? complete<true> : complete<false>, place);
}

// At first as many as the block's threads can have.
void forget_registers() {
  const int warps = (n_threads + 31) / 32;
  shared_out = false;
  for (int i = 0; i < warps; ++i) of_warp[i] = std::min(kRegisters / (32 * warps) / 8 * 8, 256);
  at_first = 32 * warps * of_warp[0];
}

void check_registers() {
  if (!shared_out) return;
  int total = 0;
  for (int i = 0; 32 * i < n_threads; ++i) {
    total += 32 * of_warp[i];
    if (of_warp[i] != of_warp[i / 4 * 4]) die("the warps of a warpgroup have different numbers of registers");
  }
  if (total > at_first) die("a block's threads claimed more registers than it was launched with");
}

}  // namespace cuda_model
