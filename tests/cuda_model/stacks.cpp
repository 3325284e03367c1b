// The fibres' stacks, and the switch from one to another. x86-64 only.
#include <sys/mman.h>

#include "fibres.h"

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

namespace cuda_model {

static constexpr size_t kStack = 256 * 1024, kGuard = 4096;

void give_stack(Fibre& fibre, void (*life)()) {
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
  top[-2] = reinterpret_cast<void*>(life);  // where the first switch returns to, below it six registers
  fibre.stack_pointer = &top[-8];
  fibre.tsan = __tsan_create_fiber(0);
}

}  // namespace cuda_model
