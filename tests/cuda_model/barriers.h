// What the parts of the model that are Hopper's own share.
#pragma once
#include "fibres.h"
#include "warpgroup.h"

namespace cuda_model {

// Who else touches memory, for the thread sanitizer: the copy engine and the tensor cores, which know only what they
// are told.
class AsAgent {
 public:
  explicit AsAgent(void* agent) { __tsan_switch_to_fiber(agent, 1); }
  ~AsAgent() { __tsan_switch_to_fiber(current->tsan, 1); }
  AsAgent(const AsAgent&) = delete;
};
void* tensor_core_agent();  // of the current warp: knows what the barriers tell its lanes
inline constexpr int kCopyAgents = 16;
void* copy_agent(int number);

// barriers.cpp
struct BarrierState {
  uint64_t* at;
  int arrivals, pending;  // of a phase; that are missing
  int64_t bytes;          // that are missing
  unsigned phase;
  int initialised_by;
  bool published;
  unsigned known_to_warp[kMaxThreads / 32];  // phases that its tensor core was told of
  int waiting[kMaxThreads], n_waiting;
};
BarrierState& find_barrier(uint64_t* state, Place place);
char* phase_tag(const BarrierState& barrier, unsigned phase);
void bytes_land(BarrierState& barrier, int bytes);

}  // namespace cuda_model
