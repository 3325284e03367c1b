// A small test framework for kernels on the CPU model of CUDA. A test file holds
//
//   TEST(confidence_of_tails) {
//     DeviceArray<float> logits(random_normal(rows * classes, seed)), confidence(rows);
//     CHECK(launch_confidence(logits.data(), ..., nullptr) == cudaSuccess);
//     CHECK_NEAR(confidence[0], expected, 1e-6);
//     record(confidence);
//   }
//
// main.cpp runs every test under every schedule, and some with asynchronous copies landing early too where there are
// any; what a test records must have the same bits each time.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_model/runtime.h"

namespace testing {

struct Test {
  const char* name;
  void (*run)();
};
std::vector<Test>& tests();
struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};
#define TEST(name)                                                         \
  static void test_##name();                                               \
  static const testing::Registration register_##name(#name, &test_##name); \
  static void test_##name()

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
[[noreturn]] void fail(const char* file, int line, const Parts&... parts) {
  std::ostringstream message;
  message.precision(9);
  message << file << ':' << line << ": ";
  (message << ... << parts);
  throw Failure(message.str());
}
#define CHECK(condition)                                             \
  do {                                                               \
    if (!(condition)) testing::fail(__FILE__, __LINE__, #condition); \
  } while (0)
// The remaining arguments, if any, are printed with the failure: where in a loop it was.
#define CHECK_EQUAL(actual, expected, ...)                                   \
  do {                                                                       \
    const auto a_ = (actual);                                                \
    const auto e_ = (expected);                                              \
    if (!(a_ == e_))                                                         \
      testing::fail(__FILE__, __LINE__, #actual, " is ", a_, ", should be ", \
                    e_ __VA_OPT__(, " (", ) __VA_ARGS__ __VA_OPT__(, ")"));  \
  } while (0)
#define CHECK_NEAR(actual, expected, tolerance, ...)                                                                   \
  do {                                                                                                                 \
    const double a_ = double(actual), e_ = double(expected), t_ = double(tolerance);                                   \
    if (!(std::fabs(a_ - e_) <= t_))                                                                                   \
      testing::fail(__FILE__, __LINE__, #actual, " is ", a_, ", should be ", e_, ", by ", a_ - e_, " off, may be by ", \
                    t_ __VA_OPT__(, " (", ) __VA_ARGS__ __VA_OPT__(, ")"));                                            \
  } while (0)

// Memory as the device gives it: 256-byte aligned, of exactly n elements, NaN (all bits set) until written. `offset`
// elements more lie before it, so that it can begin where vector loads may not.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n, size_t offset = 0) : n_(n), offset_(offset) {
    if (posix_memalign(reinterpret_cast<void**>(&memory_), 256, sizeof(T) * (n + offset) + (n + offset == 0)))
      throw std::bad_alloc();
    std::memset(static_cast<void*>(memory_), 0xff, sizeof(T) * (n + offset));
  }
  template <class U>
  explicit DeviceArray(const std::vector<U>& values, size_t offset = 0) : DeviceArray(values.size(), offset) {
    for (size_t i = 0; i < n_; ++i) data()[i] = T(values[i]);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), n_(other.n_), offset_(other.offset_) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() { std::free(memory_); }

  T* data() { return memory_ + offset_; }
  const T* data() const { return memory_ + offset_; }
  size_t size() const { return n_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + n_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + n_; }

 private:
  T* memory_ = nullptr;
  size_t n_, offset_;
};

void record_bytes(const void* data, size_t size);
template <class T>
void record(const DeviceArray<T>& values) {
  record_bytes(values.data(), values.size() * sizeof(T));
}

inline std::vector<float> random_normal(size_t n, uint32_t seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& x : values) x = normal(generator);
  return values;
}

// What becomes of f() in a process of its own.
struct Outcome {
  bool died;
  std::string said;  // on standard error
};
Outcome run_apart(void (*f)());

}  // namespace testing

using testing::DeviceArray;
using testing::record;
