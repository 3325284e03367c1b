// Runs every test on every variant of the CPU kernels that this processor has; exit status 1 where one failed.
//
//   test_kernels [--filter TEXT] [--bits FILE]
//
// --bits writes what the kernels returned, a line per variant and case, for comparison with another processor's.
#include <algorithm>
#include <cstdlib>

#include "checks.h"
#include "cpu/processor.h"
#include "layer.h"

namespace pyfastcal {

int64_t thread_count() { return tests::schedule.threads; }

void run_tasks(int64_t n, void (*f)(int64_t task, void* context), void* context) {
  for (int64_t i = 0; i < n; ++i) f(tests::schedule.backwards ? n - 1 - i : i, context);
}

namespace tests {

Schedule schedule;
Bits* bits;

static int64_t expectations, failures;
static std::string running;

std::vector<Test>& all_tests() {
  static std::vector<Test> tests;
  return tests;
}

void note_expectation() { ++expectations; }

void note_failure(const std::string& what) {
  ++expectations;
  if (++failures <= 20) std::printf("FAILED %s: %s\n", running.c_str(), what.c_str());
}

struct Variant {
  const Kernels& kernels;
  const Layer& layer;
  bool fused;                   // every multiply-add of fp32 in one rounding
  const char* own = "nothing";  // products of features in bits of their own: where this is part of a case's name

  // Whether other variants return the same bits.
  bool shares(const std::string& what) const {
    const bool of_products = what.starts_with("similarity") || what.starts_with("contrast");
    return fused && !(of_products && what.find(own) != what.npos);
  }
};

static std::vector<Variant> variants() {
#if defined(__x86_64__)
  return {{kScalarKernels, kScalarLayer, false},
          {kAvx2Kernels, kAvx2Layer, true},
          {kAvx512Kernels, kAvx512Layer, true},
#if defined(__linux__)
          {kAmxBf16Kernels, kAmxBf16Layer, true, " "},
#endif
          {kAvx512Bf16Kernels, kAvx512Bf16Layer, true, " bf16 "}};
#elif defined(__aarch64__)
  return {{kScalarKernels, kScalarLayer, false},
          {kNeonKernels, kNeonLayer, true},
          {kNeonBf16Kernels, kNeonBf16Layer, true, " bf16 "}};
#else
  return {{kScalarKernels, kScalarLayer, false}};
#endif
}

const Layer& layer_of(const char* variant) {
  for (const Variant& v : variants())
    if (std::strcmp(v.kernels.name, variant) == 0) return v.layer;
  std::abort();
}

static int run(const char* filter, const char* bits_file) {
  std::map<std::string, Bits> found;
  const std::string* fused = nullptr;
  for (const Variant& v : variants()) {
    if (!runs(v.kernels)) {
      std::printf("%s: not on this processor\n", v.kernels.name);
      continue;
    }
    auto& mine = *found.emplace(v.kernels.name, Bits()).first;
    bits = &mine.second;
    const int64_t before = expectations;
    for (const Test& test : all_tests()) {
      if (filter && !std::strstr(test.name, filter)) continue;
      running = mine.first + " " + test.name;
      test.run(v.kernels);
    }
    if (v.fused && !fused) fused = &mine.first;
    for (const auto& [what, hash] : mine.second)
      if (v.shares(what)) EXPECT(hash == found[*fused][what], mine.first + ", " + what + ": other bits than " + *fused);
    std::printf("%s: %ld expectations\n", v.kernels.name, long(expectations - before));
  }
  if (bits_file) {
    std::FILE* file = std::fopen(bits_file, "w");
    if (!file) return 2;
    for (const auto& [variant, cases] : found)
      for (const auto& [what, hash] : cases)
        std::fprintf(file, "%s %s %016llx\n", variant.c_str(), what.c_str(), (unsigned long long)hash);
    std::fclose(file);
  }
  std::printf("%ld failures\n", long(failures));
  return failures || !expectations ? 1 : 0;
}

}  // namespace tests
}  // namespace pyfastcal

int main(int argc, char** argv) {
  const char *filter = nullptr, *bits_file = nullptr;
  for (int i = 1; i + 1 < argc; i += 2) (std::strcmp(argv[i], "--bits") ? filter : bits_file) = argv[i + 1];
  return pyfastcal::tests::run(filter, bits_file);
}
