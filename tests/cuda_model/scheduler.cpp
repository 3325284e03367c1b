// The scheduler of the model: fibres, barriers, meetings of lanes, launches.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "fibres.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_model {

Settings settings;
Counters counters;
Fibre host, *current = &host;
int set = 0, n_threads = 0;

namespace {

struct Meeting {
  uint32_t mask, arrived;
  Place place;
};
struct WarpState : Warp {
  Meeting meetings[32];
  int n_meetings;
};

Fibre fibres[kSets][kMaxThreads];
int turn = 0, n_alive = 0;
WarpState warps[kMaxThreads / 32];
std::function<void()> body;

int ready[kMaxThreads], waiting[kMaxThreads];  // ready: a ring, from head to tail
unsigned head = 0, tail = 0;
uint64_t random_state = 1;

int n_waiting = 0, votes[3], vote_result[3];
Place barrier_place{nullptr};
unsigned barrier_number = 0;

// What the thread sanitizer knows orders by; a set's turn begins after its last one has ended.
char begin_tag, end_tag[kSets][2], barrier_tag[kSets][2], warp_tag[kSets][kMaxThreads / 32], fence_tag;

bool same(const Place& a, const Place& b) { return a.file == b.file && a.line == b.line; }

void switch_to(Fibre* to) {
  Fibre* const from = current;
  ++counters.switches;
  current = to;
  __tsan_switch_to_fiber(to->tsan, 1);  // 1: the switch itself orders nothing
  __sanitizer_start_switch_fiber(&from->asan, to->stack, to->stack_size);
  cuda_model_switch(&from->stack_pointer, to->stack_pointer);
  __sanitizer_finish_switch_fiber(from->asan, nullptr, nullptr);
  threadIdx = from->index;
}

int& ready_at(unsigned i) { return ready[i % kMaxThreads]; }

}  // namespace

unsigned random_below(unsigned n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return unsigned(random_state >> 33) % n;
}

void wake(const int* numbers, int n) {
  const bool greedy = settings.schedule == Schedule::kGreedy;
  const unsigned at = greedy ? head -= unsigned(n) : tail;
  for (int i = 0; i < n; ++i)
    ready_at(at + unsigned(i)) = numbers[settings.schedule == Schedule::kReverse ? n - 1 - i : i];
  if (!greedy) tail += unsigned(n);
}

void next() {
  while (head == tail) {
    if (!n_alive) return switch_to(&host);
    if (!land_a_box())
      die("deadlock: a divergent barrier, a lane of a mask that never came, or a phase that never ends");
  }
  if (settings.schedule == Schedule::kShuffle) std::swap(ready_at(head), ready_at(head + random_below(tail - head)));
  Fibre* const to = &fibres[set][ready_at(head++)];
  if (to != current) switch_to(to);
}

namespace {

void open_barrier_if_all_wait() {
  if (n_waiting == 0 || n_waiting != n_alive) return;
  const int results[3] = {votes[int(Vote::kOr)] != 0, votes[int(Vote::kCount)] == n_alive, votes[int(Vote::kCount)]};
  for (int i = 0; i < 3; ++i) {
    vote_result[i] = results[i];
    votes[i] = 0;
  }
  ++barrier_number;
  barrier_place = {nullptr};
  wake(waiting, n_waiting);
  n_waiting = 0;
}

// A fibre's life: one thread of every block (of its set), of every launch.
void run_fibre() {
  const void* stack = nullptr;
  size_t stack_size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &stack_size);
  if (!host.stack) {  // the first switch of all comes from there
    host.stack = stack;
    host.stack_size = stack_size;
  }
  for (;;) {
    threadIdx = current->index;
    __tsan_acquire(&begin_tag);
    __tsan_acquire(&end_tag[set][1 - turn]);
    try {
      body();
    } catch (const std::exception& failure) {  // a test's check within a kernel
      die(failure.what());
    }
    __tsan_release(&end_tag[set][turn]);
    if (current->first_copy != current->last_copy) die("a thread ended without waiting for its asynchronous copies");
    if (products_under_way()) die("a thread ended without waiting for its products");
    current->ended = true;
    if (--n_alive == 0) {
      check_boxes();
      check_barriers();
      check_products();
      check_registers();
    }
    open_barrier_if_all_wait();
    next();
  }
}

void run_block(dim3 block) {
  n_alive = n_threads;
  head = tail = 0;
  n_waiting = 0;
  barrier_place = {nullptr};
  for (int& vote : votes) vote = 0;
  for (WarpState& warp : warps) warp.n_meetings = 0;
  refill_shared();
  forget_barriers();
  forget_products();
  forget_registers();
  int numbers[kMaxThreads];
  for (int i = 0; i < n_threads; ++i) {
    Fibre& fibre = fibres[set][i];
    const unsigned u = unsigned(i);
    fibre.number = numbers[i] = i;
    fibre.index = {u % block.x, u / block.x % block.y, u / (block.x * block.y)};
    fibre.ended = false;
    fibre.place = {"its start"};
    fibre.first_copy = fibre.last_copy = fibre.committed = 0;
  }
  wake(numbers, n_threads);
  ++counters.blocks;
  next();
}

}  // namespace

void die(const char* why) {
  std::fprintf(stderr, "\nCUDA model: %s", why);
  if (current != &host)
    std::fprintf(stderr, ", in block (%u, %u, %u)\n  said by thread %d", blockIdx.x, blockIdx.y, blockIdx.z,
                 current->number);
  std::fprintf(stderr, "\n");
  const Fibre* const all = fibres[set];
  for (int i = 0, end, shown = 0; i < n_threads && shown < 16; i = end) {
    const Place& p = all[i].place;
    for (end = i + 1; end < n_threads && same(all[end].place, p) && all[end].ended == all[i].ended;) ++end;
    if (all[i].ended) continue;
    std::fprintf(stderr, "  threads %d to %d at %s %s:%d\n", i, end - 1, p.what, p.file ? p.file : "", p.line);
    ++shown;
  }
  show_barriers();
  std::abort();
}

int lane() { return current->number % 32; }

int block_barrier(int predicate, Vote vote, Place place) {
  current->place = place;
  if (barrier_place.what && !same(barrier_place, place)) die("threads of one block met different barriers");
  barrier_place = place;
  votes[int(Vote::kOr)] += predicate != 0;
  votes[int(Vote::kCount)] += predicate != 0;
  waiting[n_waiting++] = current->number;
  char* const tag = &barrier_tag[set][barrier_number % 2];
  __tsan_release(tag);
  open_barrier_if_all_wait();
  next();
  __tsan_acquire(tag);
  return vote_result[int(vote)];
}

uint64_t meet(uint32_t mask, uint64_t value, int argument, Complete complete, Place place, bool orders_memory) {
  WarpState& warp = warps[current->number / 32];
  char* const tag = &warp_tag[set][current->number / 32];
  const int self = lane();
  current->place = place;
  if (!(mask >> self & 1)) die("a lane is not in its own mask");
  warp.value[self] = value;
  warp.argument[self] = argument;
  Meeting* meeting = warp.meetings;
  Meeting* const end = meeting + warp.n_meetings;
  while (meeting < end && !(meeting->mask & mask)) ++meeting;
  if (meeting == end) {
    *meeting = {mask, 0, place};
    ++warp.n_meetings;
  }
  if (meeting->mask != mask || !same(meeting->place, place)) die("lanes of one mask met different warp operations");
  meeting->arrived |= 1u << self;
  if (orders_memory) __tsan_release(tag);
  if (meeting->arrived != mask) {
    next();
  } else {
    *meeting = warp.meetings[--warp.n_meetings];
    complete(warp, mask);
    int numbers[32], n = 0;
    for (int l = 0; l < 32; ++l)
      if ((mask >> l & 1) && l != self) numbers[n++] = current->number - self + l;
    wake(numbers, n);
  }
  if (orders_memory) __tsan_acquire(tag);
  return warp.result[self];
}

void fence() {
  __tsan_acquire(&fence_tag);
  __tsan_release(&fence_tag);
}

void at_atomic() {
  if (settings.schedule != Schedule::kShuffle || current == &host || random_below(4)) return;
  ready_at(tail++) = current->number;
  next();
}

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> thread) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (!threads || threads > kMaxThreads || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  running = &function_of(kernel);
  if (!running->may_have(shared_bytes)) return cudaErrorInvalidValue;
  ++counters.launches;
  n_threads = int(threads);
  gridDim = grid;
  blockDim = block;
  body = std::move(thread);
  begin_shared(shared_bytes);
  for (auto& of_set : fibres)
    for (int i = 0; i < n_threads; ++i) give_stack(of_set[i], &run_fibre);
  random_state = settings.seed;
  host.tsan = __tsan_get_current_fiber();
  __tsan_release(&begin_tag);
  set = 0;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(block);
        if (++set == kSets) {
          set = 0;
          turn = 1 - turn;
        }
      }
  n_threads = 0;
  for (auto& tags : end_tag)
    for (char& tag : tags) __tsan_acquire(&tag);
  body = nullptr;
  return cudaSuccess;
}

}  // namespace cuda_model
