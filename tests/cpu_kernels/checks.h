// What the tests of the CPU kernels share: a registry of tests, expectations, and the bits of what a kernel returned.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace pyfastcal::tests {

struct Test {
  const char* name;
  void (*run)(const Kernels& kernels);
};
std::vector<Test>& all_tests();
struct Registration {
  Registration(const char* name, void (*run)(const Kernels&)) { all_tests().push_back({name, run}); }
};
#define PYFASTCAL_TEST(name)                              \
  static void name(const Kernels&);                       \
  static const Registration register_##name{#name, name}; \
  static void name([[maybe_unused]] const Kernels& kernels)

// Notes an expectation, and where it does not hold says of which case, `what`, which is made only then.
void note_expectation();
void note_failure(const std::string& what);
#define EXPECT(holds, what) ((holds) ? note_expectation() : note_failure(what))

// |got - want| <= tolerance, or both NaN, or the same infinity.
inline bool close(double got, double want, double tolerance) {
  if (std::isnan(want) || std::isinf(want)) return std::isnan(want) ? std::isnan(got) : got == want;
  return std::fabs(got - want) <= tolerance;
}
inline std::string how_far(double got, double want, double tolerance) {
  return ": got " + std::to_string(got) + ", want " + std::to_string(want) + ", off by " +
         std::to_string(std::fabs(got - want) / tolerance) + " tolerances";
}
#define EXPECT_CLOSE(got, want, tolerance, what) \
  EXPECT(close(got, want, tolerance), (what) + how_far(got, want, tolerance))

// How run_tasks() goes about it: with how many threads the kernels reckon, and in which order their tasks come.
struct Schedule {
  int64_t threads = 1;
  bool backwards = false;
};
extern Schedule schedule;

// The bits that kernels returned, by case: the variants that fuse their multiply-adds must agree on them.
using Bits = std::map<std::string, uint64_t>;
extern Bits* bits;

inline uint64_t hash(uint64_t h, uint64_t word) { return (h ^ word) * 0x100000001b3u; }
inline uint64_t hash(uint64_t h, float x) {
  uint32_t word = 0x7fc00000u;  // any NaN is one
  if (x == x) std::memcpy(&word, &x, 4);
  return hash(h, uint64_t(word));
}
// A double to the bits of fp32: the last of its own are the C library's affair.
inline uint64_t hash(uint64_t h, double x) { return hash(h, float(x)); }
inline uint64_t hash(uint64_t h, int64_t x) { return hash(h, uint64_t(x)); }

// make(), which is the same for every variant of the kernels and takes a while, kept under its name.
template <class F>
const auto& once(const std::string& name, const F& make) {
  static std::map<std::string, decltype(make())> kept;
  const auto found = kept.find(name);
  return found == kept.end() ? kept.emplace(name, make()).first->second : found->second;
}

// Runs f(output) for n outputs of type T under two schedules, which may make no difference; the bits are kept.
template <class T, class F>
std::vector<T> outputs(int64_t n, const std::string& what, const F& f) {
  std::vector<T> first(n), second(n);
  schedule = {1, false};
  f(first.data());
  schedule = {3, true};
  f(second.data());
  EXPECT(n == 0 || std::memcmp(first.data(), second.data(), sizeof(T) * n) == 0,
         what + ": other bits on other threads");
  uint64_t h = 0xcbf29ce484222325u;
  for (const T& x : first) h = hash(h, x);
  (*bits)[what] = h;
  return first;
}

}  // namespace pyfastcal::tests
