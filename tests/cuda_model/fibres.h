// What the parts of the model share. Each is compiled without sanitizers, and none may allocate while fibres run: the
// thread sanitizer sees malloc and free even from here.
#pragma once
#include "primitives.h"
#include "runtime.h"
#include "sanitizers.h"

namespace cuda_model {

inline constexpr int kMaxThreads = 1024, kMaxCopies = 256;
// Under the thread sanitizer the blocks take turns on two sets of threads, which nothing orders but the launch's begin
// and end: so what one block does to the next without an atomic is reported.
#if defined(PYFASTCAL_MODEL_THREAD)
inline constexpr int kSets = 2;
#else
inline constexpr int kSets = 1;
#endif

struct PendingCopy {
  Copy copy;
  unsigned group;
};

// A CUDA thread.
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

extern Fibre host, *current;  // host: what launches
extern int set;               // of threads, that the current block has
extern int n_threads;         // of a block

// stacks.cpp: a stack for a fibre that has none, on which the first switch to it calls `life`, which does not return;
// and the switch itself, which saves the stack pointer that a later switch goes back to.
void give_stack(Fibre& fibre, void (*life)());
extern "C" void cuda_model_switch(void** save_stack_pointer, void* stack_pointer);

// cuda_runtime.cpp: what is known of a kernel, and its limit of dynamic shared memory on each device.
inline constexpr size_t kUnaskedShared = 48 * 1024;
inline constexpr int kMaxDevices = 128;
struct Function {
  size_t static_bytes = 0;  // what its blocks have taken so far
  bool asked_for = false;
  size_t limits[kMaxDevices] = {};  // 0: not set

  bool may_have(size_t dynamic_bytes) const;
  void takes_static(size_t bytes);
};
Function& function_of(const void* kernel);
extern Function* running;

// scheduler.cpp: gives the turn to another fibre until the caller is woken; puts fibres among those that may run.
void next();
void wake(const int* numbers, int n);
unsigned random_below(unsigned n);  // of the shuffle's numbers

// barriers.cpp, boxes.cpp, products.cpp, registers.cpp: at a block's begin and end; at a thread's end.
void forget_barriers();
void forget_products();
void forget_registers();
void check_barriers();
void check_boxes();
void check_products();
void check_registers();
bool products_under_way();
bool land_a_box();
void show_barriers();

// memory.cpp: before a launch, and before each of its blocks.
void begin_shared(size_t dynamic_bytes);
void refill_shared();
bool in_dynamic_shared(const void* p, size_t size);

}  // namespace cuda_model
