// Which variant runs, and on what threads.
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>

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

struct Selected {
  std::atomic<const Kernels*> table, few;  // few: for few numbers
};
static Selected& selected() {
  static Selected tables = [] {
    const Kernels* const wanted = find(std::getenv("PYFASTCAL_CPU_CAPABILITY"));
    const Kernels* const best = wanted ? wanted : find(nullptr);
    const Kernels* few = best;
#if defined(__x86_64__)
    // What follows 512-bit instructions, Python for one, is slower for a while, which takes longer than they save.
    if (!std::getenv("PYFASTCAL_CPU_CAPABILITY") && best != &kScalarKernels) few = &kAvx2Kernels;
#endif
    return Selected{best, few};
  }();
  return tables;
}

const Kernels& kernels() { return *selected().table; }

const Kernels& kernels(int64_t numbers) {
  constexpr int64_t kFew = 1 << 11;
  return numbers > kFew ? kernels() : *selected().few;
}

bool select_kernels(const char* name) {
  const Kernels* k = find(name);
  if (k) selected().table = selected().few = k;
  return k != nullptr;
}

int64_t thread_count() { return torch::stable::get_num_threads(); }

void run_tasks(int64_t n, void (*f)(int64_t task, void* context), void* context) {
  if (n <= 1) {  // no other thread is asked, nor torch how many there are
    if (n == 1) f(0, context);
    return;
  }
  const int64_t threads = n < thread_count() ? n : thread_count();
  // Each thread begins with a share of its own, the same one in every call: what it read or wrote there before, for
  // another op perhaps, may be in its cache. Then it helps the others.
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  const auto shares = std::make_unique<Share[]>(size_t(threads));
  for (int64_t i = 0; i < threads; ++i) {
    shares[i].next.store(n * i / threads, std::memory_order_relaxed);
    shares[i].end = n * (i + 1) / threads;
  }
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t) {
    for (int64_t i = 0; i < threads; ++i) {
      Share& share = shares[(begin + i) % threads];
      for (int64_t task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) f(task, context);
    }
  });
}

}  // namespace pyfastcal
