// A CPU model of CUDA: runs the torch-free sources of csrc/cuda, compiled by g++, where there is no GPU.
//
// One OS thread runs a launch block after block. Every CUDA thread is a fibre that runs until it must wait for others:
// at a barrier, or at a warp-wide operation, which is a meeting of the lanes that its mask names. A meeting that cannot
// take place (a divergent barrier, an absent lane) ends the program with a message. In which order those that may run
// do run is the schedule's choice.
//
// The model itself is compiled without sanitizers, kernels and tests with one or none. Under the thread sanitizer every
// CUDA thread is a thread of its own; only barriers, __syncwarp and fences order memory, so what a kernel leaves
// unordered is reported, between a block's threads and between one block and the next. The copy engine and each warp's
// tensor core are threads of their own too, which know what the barriers tell them. Under the address sanitizer the
// block's shared memory ends where it was asked to.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

namespace cuda_model {

// In which order waiting threads go on: as they are numbered; the other way round; at random, also interrupted at
// atomics; or those that were woken last first, so that one warp runs far ahead of the others.
enum class Schedule { kForward, kReverse, kShuffle, kGreedy };

struct Settings {
  Schedule schedule = Schedule::kForward;
  uint64_t seed = 1;
  bool copies_land_early = false;    // asynchronous copies: when issued, or only when waited for
  bool products_read_early = false;  // asynchronous products, their operands: when issued, or only when waited for
  // The current device, which knows of no kernel's limit before it is set there; and what the kernels' launch code asks
  // of it. Devices whose blocks may have other amounts of shared memory must have other numbers.
  int device = 0;
  bool capturing = false;  // a stream, into a graph
  int multiprocessors = 2, blocks_per_multiprocessor = 1, capability = 90;
  size_t shared_per_block = 227 * 1024;
};
extern Settings settings;

struct Counters {
  uint64_t launches, blocks, switches, async_copies, limits_set;
  uint64_t matrix_loads, matrix_load_conflicts;  // of load_matrix_x4: extra cycles that bank conflicts cost
};
extern Counters counters;

[[noreturn]] void die(const char* why);
int lane();

// Where a thread waits, for messages, and to tell whether those that meet are at the same place.
struct Place {
  const char* what;
  const char* file = nullptr;
  int line = 0;
};
#define CUDA_MODEL_PLACE_ARGUMENTS const char *file = __builtin_FILE(), int line = __builtin_LINE()

enum class Vote { kOr, kAnd, kCount };
int block_barrier(int predicate, Vote vote, Place place);

// A warp-wide operation: the lanes named by `mask` meet, each with a value and an argument; the last to come calls
// `complete`, which turns values into results.
struct Warp {
  uint64_t value[32], result[32];
  int argument[32];
};
using Complete = void (*)(Warp& warp, uint32_t mask);
uint64_t meet(uint32_t mask, uint64_t value, int argument, Complete complete, Place place, bool orders_memory = false);
void complete_shuffle(Warp&, uint32_t);
void complete_ballot(Warp&, uint32_t);
void complete_match(Warp&, uint32_t);
void complete_sync(Warp&, uint32_t);

void* dynamic_shared();
// The block's own copy of a variable, which `key` identifies.
void* static_shared(const void* key, size_t size);
bool in_shared(const void* p, size_t size);
// Where the block's dynamic shared memory begins, and what lies where in it, as the hardware counts.
inline constexpr uint32_t kSharedBegin = 1024;
uint32_t shared_address(const void* p);

void fence();
void at_atomic();

cudaError_t ask_occupancy(int* blocks, const void* kernel, size_t shared_bytes);

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> thread);

template <class T>
uint64_t to_bits(T x) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const void*>(&x), sizeof x);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T x;
  std::memcpy(static_cast<void*>(&x), &bits, sizeof x);
  return x;
}

template <class T>
T shuffle(uint32_t mask, T x, int source, Place place) {
  return from_bits<T>(meet(mask, to_bits(x), source, complete_shuffle, place));
}
// The lanes of a shuffle's segment: [first, first + width).
inline int segment(int width) { return lane() & ~(width - 1); }

enum class Reduction { kAdd, kMin, kMax, kAnd, kOr, kXor };
template <class T, Reduction R>
void complete_reduce(Warp& warp, uint32_t mask);  // for int and unsigned
template <Reduction R, class T>
T reduce(uint32_t mask, T x, Place place) {
  return T(meet(mask, uint64_t(x), 0, complete_reduce<T, R>, place));
}

// Fibres are never interrupted here, so that load and store may be two: the sanitizers see them as atomic.
template <class T, class F>
T read_modify_write(T* p, F f) {
  at_atomic();
  T old, changed;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  changed = f(old);
  __atomic_store(p, &changed, __ATOMIC_RELAXED);
  return old;
}

}  // namespace cuda_model
