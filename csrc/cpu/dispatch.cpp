// Which variant runs, and on what threads.
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace pyfastcal {

#if defined(__x86_64__)
static bool runs(const Kernels& k) {
  __builtin_cpu_init();
  if (&k == &kAvx2Kernels || &k == &kAvx512Kernels) {
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (&k == &kAvx2Kernels) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  }
  return true;
}
static const Kernels* const kAll[] = {&kAvx512Kernels, &kAvx2Kernels, &kScalarKernels};
#else
static bool runs(const Kernels&) { return true; }
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
