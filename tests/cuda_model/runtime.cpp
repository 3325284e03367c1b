// The scheduler behind runtime.h. Compiled without sanitizers; PYFASTCAL_MODEL_THREAD or PYFASTCAL_MODEL_ADDRESS tells
// which one the rest is compiled with. x86-64 only.
#include "runtime.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "primitives.h"

#if defined(PYFASTCAL_MODEL_THREAD)
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#else
static void* __tsan_create_fiber(unsigned) { return nullptr; }
static void* __tsan_get_current_fiber() { return nullptr; }
static void __tsan_switch_to_fiber(void*, unsigned) {}
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
#endif

#if defined(PYFASTCAL_MODEL_ADDRESS)
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __asan_poison_memory_region(const volatile void* p, size_t size);
void __asan_unpoison_memory_region(const volatile void* p, size_t size);
}
#else
static void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
static void __asan_poison_memory_region(const volatile void*, size_t) {}
static void __asan_unpoison_memory_region(const volatile void*, size_t) {}
#endif

extern "C" void cuda_model_switch(void** save_stack_pointer, void* stack_pointer);
asm(R"(
.text
.globl cuda_model_switch
.type cuda_model_switch,@function
cuda_model_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_model_switch, .-cuda_model_switch
)");

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_model {

Settings settings;
Counters counters;

namespace {

// Nothing here may allocate while fibres run: the thread sanitizer sees malloc and free even from here.
constexpr int kMaxThreads = 1024, kMaxCopies = 256, kMaxStatic = 64;
constexpr size_t kStack = 256 * 1024, kGuard = 4096, kMaxShared = 256 * 1024;
// Under the thread sanitizer the blocks take turns on two sets of threads, which nothing orders but the launch's begin
// and end: so what one block does to the next without an atomic is reported.
#if defined(PYFASTCAL_MODEL_THREAD)
constexpr int kSets = 2;
#else
constexpr int kSets = 1;
#endif

struct PendingCopy {
  Copy copy;
  unsigned group;
};

struct Fibre {
  void* stack_pointer = nullptr;
  const void* stack = nullptr;
  size_t stack_size = 0;
  void* tsan = nullptr;
  void* asan = nullptr;
  int number = 0;
  uint3 index{};
  bool ended = true;
  Place place{"its start"};
  PendingCopy copies[kMaxCopies];
  unsigned first_copy = 0, last_copy = 0, committed = 0;
};

struct Meeting {
  uint32_t mask, arrived;
  Place place;
};
struct WarpState : Warp {
  Meeting meetings[32];
  int n_meetings;
};

struct StaticVariable {
  const void* key;
  size_t offset;
};

Fibre fibres[kSets][kMaxThreads], host;
Fibre* current = &host;
int set = 0, turn = 0, n_threads = 0, n_alive = 0;
WarpState warps[kMaxThreads / 32];
std::function<void()> body;

int ready[kMaxThreads], waiting[kMaxThreads];  // ready: a ring, from head to tail
unsigned head = 0, tail = 0;
uint64_t random_state = 1;

int n_waiting = 0, votes[3], vote_result[3];
Place barrier_place{nullptr};
unsigned barrier_number = 0;

alignas(1024) unsigned char dynamic_area[kSets][kMaxShared], static_area[kSets][kMaxShared];
size_t dynamic_size = 0, static_size = 0;
StaticVariable static_variables[kMaxStatic];
int n_static = 0;

// What the thread sanitizer knows orders by; a set's turn begins after its last one has ended.
char begin_tag, end_tag[kSets][2], barrier_tag[kSets][2], warp_tag[kSets][kMaxThreads / 32], fence_tag;

bool same(const Place& a, const Place& b) { return a.file == b.file && a.line == b.line; }

unsigned random_below(unsigned n) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return unsigned(random_state >> 33) % n;
}

// By an instruction that no sanitizer takes for an access of the current thread.
void fill_with_nan(void* p, size_t size) { asm volatile("rep stosb" : "+D"(p), "+c"(size) : "a"(0xff) : "memory"); }

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

void wake(const int* numbers, int n) {
  const bool greedy = settings.schedule == Schedule::kGreedy;
  const unsigned at = greedy ? head -= unsigned(n) : tail;
  for (int i = 0; i < n; ++i)
    ready_at(at + unsigned(i)) = numbers[settings.schedule == Schedule::kReverse ? n - 1 - i : i];
  if (!greedy) tail += unsigned(n);
}

// Gives the turn to the next fibre that may run; returns when it is the caller's again.
void next() {
  if (head == tail) {
    if (n_alive) die("deadlock: a divergent barrier, or a lane named in a mask that never came");
    switch_to(&host);
    return;
  }
  if (settings.schedule == Schedule::kShuffle) std::swap(ready_at(head), ready_at(head + random_below(tail - head)));
  Fibre* const to = &fibres[set][ready_at(head++)];
  if (to != current) switch_to(to);
}

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
  __sanitizer_finish_switch_fiber(nullptr, &host.stack, &host.stack_size);
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
    current->ended = true;
    --n_alive;
    open_barrier_if_all_wait();
    next();
  }
}

void prepare(Fibre& fibre) {
  if (fibre.stack) return;
  auto* memory = static_cast<unsigned char*>(
      mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED) die("no memory for the threads' stacks");
  mprotect(memory, kGuard, PROT_NONE);  // overflow faults
  fibre.stack = memory + kGuard;
  fibre.stack_size = kStack;
  // not all at the same place of a page, for the cache's sake
  static size_t number = 0;
  void** const top = reinterpret_cast<void**>(memory + kGuard + kStack - 320 * number++ % 4096);
  top[-2] = reinterpret_cast<void*>(&run_fibre);  // where the first switch returns to, below it six registers
  fibre.stack_pointer = &top[-8];
  fibre.tsan = __tsan_create_fiber(0);
}

void run_block(dim3 block) {
  n_alive = n_threads;
  head = tail = 0;
  n_waiting = 0;
  barrier_place = {nullptr};
  for (int& vote : votes) vote = 0;
  for (WarpState& warp : warps) warp.n_meetings = 0;
  fill_with_nan(dynamic_area[set], dynamic_size);
  fill_with_nan(static_area[set], static_size);
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
  std::fprintf(stderr, "\nCUDA model: %s, in block (%u, %u, %u)\n", why, blockIdx.x, blockIdx.y, blockIdx.z);
  if (current != &host) std::fprintf(stderr, "  said by thread %d\n", current->number);
  int shown = 0;
  for (int i = 0; i < n_threads && shown < 8; ++i)
    if (const Fibre& fibre = fibres[set][i]; !fibre.ended) {
      const Place& p = fibre.place;
      std::fprintf(stderr, "  thread %d at %s %s:%d\n", i, p.what, p.file ? p.file : "", p.line);
      ++shown;
    }
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

void complete_shuffle(Warp& warp, uint32_t mask) {
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) {
      if (!(mask >> warp.argument[l] & 1)) die("a shuffle reads a lane outside its mask");
      warp.result[l] = warp.value[warp.argument[l]];
    }
}

void complete_ballot(Warp& warp, uint32_t mask) {
  uint64_t ballot = 0;
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) ballot |= warp.value[l] << l;
  for (uint64_t& result : warp.result) result = ballot;
}

void complete_match(Warp& warp, uint32_t mask) {
  for (int l = 0; l < 32; ++l) {
    uint64_t equal = 0;
    for (int k = 0; k < 32; ++k)
      if ((mask >> k & 1) && warp.value[k] == warp.value[l]) equal |= uint64_t(1) << k;
    warp.result[l] = equal;
  }
}

void complete_sync(Warp&, uint32_t) {}

template <class T, Reduction R>
void complete_reduce(Warp& warp, uint32_t mask) {
  T total{};
  bool first = true;
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    const T x = T(warp.value[l]);
    if (first)
      total = x;
    else if (R == Reduction::kAdd)
      total = T(unsigned(total) + unsigned(x));
    else if (R == Reduction::kMin)
      total = std::min(total, x);
    else if (R == Reduction::kMax)
      total = std::max(total, x);
    else
      total = R == Reduction::kAnd ? total & x : R == Reduction::kOr ? total | x : total ^ x;
    first = false;
  }
  for (uint64_t& result : warp.result) result = uint64_t(total);
}
#define INSTANTIATE(R)                                               \
  template void complete_reduce<int, Reduction::R>(Warp&, uint32_t); \
  template void complete_reduce<unsigned, Reduction::R>(Warp&, uint32_t)
INSTANTIATE(kAdd);
INSTANTIATE(kMin);
INSTANTIATE(kMax);
INSTANTIATE(kAnd);
INSTANTIATE(kOr);
INSTANTIATE(kXor);
#undef INSTANTIATE

// Adds eight products to each of a row's eight sums, rounding as tensor cores since sm_80 do at worst: the exact
// products and the sum are aligned and cut 24 bits below the largest, added, and the total is cut to fp32.
static void add_products(float (&sums)[8], const float* a, const float (*b)[8]) {
  double terms[9][8], largest[8] = {};
  int32_t total[8] = {};
  for (int k = 0; k < 9; ++k)
    for (int c = 0; c < 8; ++c) {
      terms[k][c] = k < 8 ? double(a[k]) * double(b[k][c]) : double(sums[c]);
      const double size = std::fabs(terms[k][c]);
      largest[c] = size > largest[c] ? size : largest[c];
    }
  constexpr uint64_t kExponent = uint64_t(0x7ff) << 52;
  double quantum[8], inverse[8];
  for (int c = 0; c < 8; ++c) {
    const uint64_t exponent = to_bits(largest[c]) & kExponent;
    quantum[c] = from_bits<double>(exponent - (uint64_t(24) << 52));
    inverse[c] = from_bits<double>((uint64_t(2 * 1023 + 24) << 52) - exponent);
  }
  for (int k = 0; k < 9; ++k)
    for (int c = 0; c < 8; ++c) total[c] += int32_t(terms[k][c] * inverse[c]);
  for (int c = 0; c < 8; ++c) {
    bool finite = true;
    for (int k = 0; k < 9; ++k) finite &= std::isfinite(terms[k][c]);
    if (!finite) {
      for (int k = 0; k < 8; ++k) sums[c] += a[k] * b[k][c];
    } else if (largest[c] > 0) {
      const double exact = double(total[c]) * quantum[c];
      const float rounded = float(exact);
      sums[c] = std::fabs(double(rounded)) > std::fabs(exact) ? std::nextafter(rounded, 0.0f) : rounded;
    }
  }
}

float bfloat16_to_float(uint16_t bits) { return from_bits<float>(uint64_t(bits) << 16); }
float half_to_float(uint16_t bits) { return __half2float(from_bits<__half>(bits)); }

template <float (*ToFloat)(uint16_t)>
void complete_mma(Warp& warp, uint32_t) {
  float a[16][16], b[16][8], d[16][8];
  const auto registers = [&](int l) { return reinterpret_cast<const Registers*>(uintptr_t(warp.value[l])); };
  for (int l = 0; l < 32; ++l) {
    const Registers& r = *registers(l);
    const int group = l / 4, k = l % 4 * 2;
    for (int e = 0; e < 2; ++e) {
      const auto element = [&](uint32_t word) { return ToFloat(uint16_t(word >> 16 * e)); };
      for (int i = 0; i < 4; ++i) a[group + i % 2 * 8][k + i / 2 * 8 + e] = element(r.a[i]);
      for (int i = 0; i < 2; ++i) b[k + i * 8 + e][group] = element(r.b[i]);
      for (int i = 0; i < 2; ++i) d[group + i * 8][k + e] = r.d[2 * i + e];
    }
  }
  bool finite = true;
  for (const auto& row : b)
    for (const float x : row) finite &= std::isfinite(x);
  for (int row = 0; row < 16; ++row)
    for (int half = 0; half < 2; ++half) {
      bool zero = finite;  // then there is nothing to add, as in most rows of small tests
      for (int k = 0; k < 8; ++k) zero &= a[row][8 * half + k] == 0;
      if (!zero) add_products(d[row], a[row] + 8 * half, b + 8 * half);
    }
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) registers(l)->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}
template void complete_mma<bfloat16_to_float>(Warp&, uint32_t);
template void complete_mma<half_to_float>(Warp&, uint32_t);

void complete_load_matrix(Warp& warp, uint32_t) {
  const auto at = [&](int l) { return reinterpret_cast<MatrixRow*>(uintptr_t(warp.value[l])); };
  for (int l = 0; l < 32; ++l)
    for (int m = 0; m < 4; ++m) {
      uint32_t word;
      asm volatile("movl %1, %0" : "=r"(word) : "m"(at(m * 8 + l / 4)->bytes[l % 4 * 4]));
      at(l)->r[m] = word;
    }
  for (int m = 0; m < 4; ++m) {  // a matrix per cycle, if its rows lie in eight different groups of four banks
    int rows_in[8] = {}, most = 1;
    for (int row = 0; row < 8; ++row) {
      bool repeated = false;
      for (int k = 0; k < row; ++k) repeated |= at(m * 8 + k)->address == at(m * 8 + row)->address;
      if (!repeated) most = std::max(most, ++rows_in[uintptr_t(at(m * 8 + row)->address) / 16 % 8]);
    }
    counters.matrix_load_conflicts += uint64_t(most - 1);
  }
  ++counters.matrix_loads;
}

float exp2_approx(float x) {
  if (std::fabs(x) < 0x1p-126f) return 1;
  const float exact = std::exp2(x);
  if (exact < 0x1p-126f) return 0;
  if (!std::isfinite(exact)) return exact;
  const int ulps = int(uint32_t(to_bits(x)) * 2654435761u >> 16) % 5 - 2;
  return from_bits<float>(to_bits(exact) + uint64_t(int64_t(ulps)));
}

void issue(const Copy& copy, Place place) {
  if (current->last_copy - current->first_copy == kMaxCopies) die("too many asynchronous copies under way");
  current->place = place;
  current->copies[current->last_copy++ % kMaxCopies] = {copy, current->committed};
  ++counters.async_copies;
}
void commit() { ++current->committed; }
bool next_landed(int groups_left, Copy* copy) {
  if (current->first_copy == current->last_copy) return false;
  const PendingCopy& pending = current->copies[current->first_copy % kMaxCopies];
  if (int(current->committed - pending.group) <= groups_left) return false;
  *copy = pending.copy;
  ++current->first_copy;
  return true;
}

void* dynamic_shared() { return dynamic_area[set]; }

void* static_shared(const void* key, size_t size) {
  for (int i = 0; i < n_static; ++i)
    if (static_variables[i].key == key) return static_area[set] + static_variables[i].offset;
  const size_t offset = (static_size + 31) / 16 * 16;  // a gap before it, for the address sanitizer
  if (n_static == kMaxStatic || offset + size > 48 * 1024) die("too much static shared memory");
  if (dynamic_size + offset + size > settings.shared_per_block) die("too much shared memory");
  static_variables[n_static++] = {key, offset};
  static_size = offset + size;
  for (auto& area : static_area) {
    __asan_unpoison_memory_region(area + offset, size);
    fill_with_nan(area + offset, size);
  }
  return static_area[set] + offset;
}

bool in_shared(const void* p, size_t size) {
  const auto within = [&](const unsigned char* area, size_t n) {
    const uintptr_t offset = uintptr_t(p) - uintptr_t(area);
    return offset < n && offset + size <= n;
  };
  return within(dynamic_area[set], dynamic_size) || within(static_area[set], static_size);
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

cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> thread) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (!threads || threads > kMaxThreads || block.z > 64 || !grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu ||
      grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (shared_bytes > settings.shared_per_block) return cudaErrorInvalidValue;
  ++counters.launches;
  n_threads = int(threads);
  gridDim = grid;
  blockDim = block;
  body = std::move(thread);
  dynamic_size = shared_bytes;
  static_size = 0;
  n_static = 0;
  for (int s = 0; s < kSets; ++s) {
    __asan_poison_memory_region(static_area[s], kMaxShared);
    __asan_poison_memory_region(dynamic_area[s], kMaxShared);
    __asan_unpoison_memory_region(dynamic_area[s], shared_bytes);
    for (int i = 0; i < n_threads; ++i) prepare(fibres[s][i]);
  }
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

extern "C" {

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = cuda_model::settings.multiprocessors; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = int(cuda_model::settings.shared_per_block);
      return cudaSuccess;
    default: return cudaErrorInvalidValue;
  }
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return cudaSuccess;
}

}  // extern "C"
