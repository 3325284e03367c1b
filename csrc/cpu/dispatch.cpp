// Which variant runs, and on what threads.
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "processor.h"

namespace pyfastcal {

#if defined(__x86_64__)
// Intel's vdpbf16ps starts half as often as fp32 multiply-adds do, so that it gains nothing there.
static bool is_intel() {
  __builtin_cpu_init();
  return __builtin_cpu_is("intel");
}
static const Kernels* const kAll[] = {
#if defined(__linux__)
    &kAmxBf16Kernels,
#endif
    is_intel() ? &kAvx512Kernels : &kAvx512Bf16Kernels, is_intel() ? &kAvx512Bf16Kernels : &kAvx512Kernels,
    &kAvx2Kernels, &kScalarKernels};
#elif defined(__aarch64__)
static const Kernels* const kAll[] = {&kNeonBf16Kernels, &kNeonKernels, &kScalarKernels};
#else
static const Kernels* const kAll[] = {&kScalarKernels};
#endif

const char* const* supported_kernels() {
  static const char* names[sizeof(kAll) / sizeof(*kAll) + 1] = {};
  if (!names[0]) {
    int64_t n = 0;
    for (const Kernels* k : kAll)
      if (runs(*k)) names[n++] = k->name;
  }
  return names;
}

static const Kernels* find(const char* name) {
  for (const Kernels* k : kAll)
    if (runs(*k) && (!name || std::strcmp(k->name, name) == 0)) return k;
  return nullptr;
}

static std::atomic<const Kernels*>& selected() {
  static std::atomic<const Kernels*> table = [] {
    const Kernels* wanted = find(std::getenv("PYFASTCAL_CPU_CAPABILITY"));
    return wanted ? wanted : find(nullptr);
  }();
  return table;
}

const Kernels& kernels() { return *selected(); }

bool select_kernels(const char* name) {
  const Kernels* k = find(name);
  if (k) selected() = k;
  return k != nullptr;
}

int64_t thread_count() { return torch::stable::get_num_threads(); }

void run_tasks(int64_t n, void (*f)(int64_t task, void* context), void* context) {
  if (n <= 1) {  // no other thread is asked, nor torch how many there are
    if (n == 1) f(0, context);
    return;
  }
  std::atomic<int64_t> next{0};
  const int64_t threads = n < thread_count() ? n : thread_count();
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < n;) f(task, context);
  });
}

}  // namespace pyfastcal
