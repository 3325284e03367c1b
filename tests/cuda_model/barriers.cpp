// Barriers in shared memory that count arrivals and bytes.
//
// Their truth is here; the eight bytes of shared memory hold a copy of it, by which a barrier that something else
// overwrites is noticed.
#include "barriers.h"

#include <cstdio>

namespace cuda_model {

namespace {

constexpr int kMaxBarriers = 64;
constexpr int64_t kMostArrivals = (1 << 20) - 1, kMostBytes = (1 << 20) - 1;

BarrierState barriers[kMaxBarriers];
int n_barriers = 0;
char phase_tags[kSets][kMaxBarriers][2];
void *tensor_core_agents[kSets][kMaxThreads / 32], *copy_agents[kSets][kCopyAgents];

int index_of(const BarrierState& b) { return int(&b - barriers); }

uint64_t copy_of(const BarrierState& b) {
  return uint64_t(1) << 62 | uint64_t(index_of(b)) << 54 | (uint64_t(b.bytes) & 0x1fffff) << 33 |
         uint64_t(b.pending) << 12 | b.phase % 4096;
}

void end_phase_if_complete(BarrierState& b) {
  if (b.pending == 0 && b.bytes < 0) die("more bytes landed than a barrier's phase expected");
  if (b.pending == 0 && b.bytes == 0) {
    ++b.phase;
    b.pending = b.arrivals;
    wake(b.waiting, b.n_waiting);
    b.n_waiting = 0;
  }
  *b.at = copy_of(b);
}

}  // namespace

char* phase_tag(const BarrierState& b, unsigned phase) { return &phase_tags[set][index_of(b)][phase % 2]; }

BarrierState& find_barrier(uint64_t* state, Place place) {
  current->place = place;
  sanitizer_reads(state, sizeof *state);
  for (int i = 0; i < n_barriers; ++i)
    if (barriers[i].at == state) {
      if (*state != copy_of(barriers[i])) die("a barrier was overwritten");
      return barriers[i];
    }
  die("a barrier that was not initialised");
}

void init_barrier(uint64_t* state, int arrivals, Place place) {
  current->place = place;
  if (uintptr_t(state) % 8) die("init: a barrier that is not 8-byte aligned");
  if (!in_shared(state, sizeof *state)) die("init: a barrier that is not in shared memory");
  if (arrivals < 1 || arrivals > kMostArrivals) die("init: a barrier for too few or too many arrivals");
  for (int i = 0; i < n_barriers; ++i)
    if (barriers[i].at == state) die("init: a barrier that was initialised before");
  if (n_barriers == kMaxBarriers) die("init: too many barriers");
  sanitizer_writes(state, sizeof *state);
  BarrierState& b = barriers[n_barriers++];
  b.at = state;
  b.arrivals = b.pending = arrivals;
  b.bytes = 0;
  b.phase = 0;
  b.initialised_by = current->number;
  b.published = false;
  b.n_waiting = 0;
  for (unsigned& phase : b.known_to_warp) phase = 0;
  *state = copy_of(b);
}

void publish_barriers() {
  for (int i = 0; i < n_barriers; ++i)
    if (barriers[i].initialised_by == current->number) barriers[i].published = true;
}

void arrive(uint64_t* state, int bytes, Place place) {
  current->place = place;
  at_atomic();
  BarrierState& b = find_barrier(state, place);
  if (bytes < 0 || b.bytes + bytes > kMostBytes) die("arrive_expecting: too few or too many bytes");
  if (b.pending == 0) die("more arrivals at a barrier than it was made for");
  b.bytes += bytes;
  --b.pending;
  __tsan_release(phase_tag(b, b.phase));
  end_phase_if_complete(b);
}

void bytes_land(BarrierState& b, int bytes) {
  if (*b.at != copy_of(b)) die("a barrier was overwritten");
  b.bytes -= bytes;
  if (b.bytes < -kMostBytes) die("too many bytes landed before they were expected");
  end_phase_if_complete(b);
}

void wait_for_phase(uint64_t* state, uint32_t parity, Place place) {
  current->place = place;
  if (parity > 1) die("wait: a parity that is neither 0 nor 1");
  at_atomic();
  BarrierState& b = find_barrier(state, place);
  unsigned phase = b.phase;
  if (phase % 2 == parity) {
    current->place = place;
    b.waiting[b.n_waiting++] = current->number;
    next();
    if (b.phase != ++phase) die("wait: the next phase ended too before this thread saw that the first had");
  }
  if (phase == 0) return;
  char* const tag = phase_tag(b, phase - 1);
  __tsan_acquire(tag);
  unsigned& known = b.known_to_warp[current->number / 32];
  if (known == phase) return;
  known = phase;
  const AsAgent agent(tensor_core_agent());
  __tsan_acquire(tag);
}

// Made when first asked for, as if by the host.
static void* made(void*& agent) {
  if (!agent) {
    const AsAgent as_host(host.tsan);
    agent = __tsan_create_fiber(0);
  }
  return agent;
}
void* tensor_core_agent() { return made(tensor_core_agents[set][current->number / 32]); }
void* copy_agent(int number) { return made(copy_agents[set][number]); }

void forget_barriers() { n_barriers = 0; }
void check_barriers() {
  for (int i = 0; i < n_barriers; ++i)
    if (barriers[i].bytes != 0) die("a block ended with a barrier that still expects bytes, or got more than it did");
}

void show_barriers() {
  for (int i = 0; i < n_barriers; ++i) {
    const BarrierState& b = barriers[i];
    std::fprintf(stderr, "  barrier %d: phase %u, %d of %d arrivals and %lld bytes missing, %d threads wait\n", i,
                 b.phase, b.pending, b.arrivals, static_cast<long long>(b.bytes), b.n_waiting);
  }
}

}  // namespace cuda_model
