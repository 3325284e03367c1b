// The CPU half's kernels, scalar and on one thread: kScalarKernels of csrc/cpu/kernels.h, as a reference for tests.
#include "cpu/variant_scalar.cpp"

namespace pyfastcal {

int64_t thread_count() { return 1; }

void run_tasks(int64_t n, void (*f)(int64_t task, void* context), void* context) {
  for (int64_t task = 0; task < n; ++task) f(task, context);
}

}  // namespace pyfastcal
