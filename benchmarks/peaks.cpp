// What this processor does at best, all threads at the same time: products and sums of fp32, products of bf16 where it
// has instructions for them, and reading. Compiled for it and run by peaks.py; prints a line "name rate", per second,
// for each.
//
//   peaks THREADS
//
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <thread>
#include <vector>
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
typedef float Vector __attribute__((vector_size(kVectorBytes)));
constexpr int kLanes = kVectorBytes / 4, kChains = 12;  // more than two units times their latency
volatile float sink;

// In a register, whatever that is here: the compiler may not shorten the chain.
#if defined(__AVX512F__)
#define KEPT(x) "+v"(x)
#elif defined(__x86_64__)
#define KEPT(x) "+x"(x)
#else
#define KEPT(x) "+w"(x)
#endif

// The processor's time that this thread was given: what else runs on the machine does not count.
double now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// The rate of work(thread), which gives how much it did, of all threads together: the best of several spells.
template <class Work>
double best_rate(int threads, const Work& work) {
  constexpr int kSpells = 12;
  std::vector<double> rates(size_t(threads), 0.0);
  double best = 0;
  for (int spell = 0; spell < kSpells; ++spell) {
    std::atomic<int> ready{0};
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t)
      team.emplace_back([&, t] {
        ++ready;
        while (ready < threads) std::this_thread::yield();
        const double begin = now(), amount = work(t);
        rates[size_t(t)] = amount / (now() - begin);
      });
    for (auto& thread : team) thread.join();
    best = std::max(best, std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return best;
}

double multiply_fp32() {
  constexpr int kTimes = 4'000'000;
  Vector sum[kChains], factor;
  for (int l = 0; l < kLanes; ++l) factor[l] = 0.999f;
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sum[c] = factor * float(c);
  for (int i = 0; i < kTimes; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sum[c] = sum[c] * factor + factor;
      asm volatile("" : KEPT(sum[c]));
    }
  float total = 0;
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) total += sum[c][0];
  sink = total;
  return 2.0 * kLanes * kChains * kTimes;
}

#if defined(__AVX512BF16__)
double multiply_bf16() {
  constexpr int kTimes = 4'000'000;
  __m512 sum[kChains];
  const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f80);
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_setzero_ps();
  for (int i = 0; i < kTimes; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sum[c] = _mm512_dpbf16_ps(sum[c], x, x);
      asm volatile("" : KEPT(sum[c]));
    }
  float total = 0;
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) total += sum[c][0];
  sink = total;
  return 2.0 * 32 * kChains * kTimes;
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
double multiply_bf16() {
  constexpr int kTimes = 4'000'000;
  float32x4_t sum[kChains];
  const bfloat16x8_t x = vreinterpretq_bf16_u16(vdupq_n_u16(0x3f80));
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sum[c] = vdupq_n_f32(0);
  for (int i = 0; i < kTimes; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      sum[c] = vbfmmlaq_f32(sum[c], x, x);
      asm volatile("" : KEPT(sum[c]));
    }
  sink = vgetq_lane_f32(sum[0], 0);
  return 2.0 * 16 * kChains * kTimes;
}
#endif

#if defined(__AMX_BF16__) && defined(__linux__)
bool ask_for_tiles() { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0; }

double multiply_tiles() {
  constexpr int kTimes = 400'000;
  alignas(64) uint8_t configuration[64] = {1};
  for (int tile = 0; tile < 8; ++tile) {
    configuration[16 + 2 * tile] = 64;  // bytes of a row
    configuration[48 + tile] = 16;      // rows
  }
  _tile_loadconfig(configuration);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(6);
  _tile_zero(7);
  for (int i = 0; i < kTimes; ++i) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
  }
  _tile_release();
  return 2.0 * 4 * 16 * 16 * 32 * kTimes;
}
#endif

// Reads `bytes` of each thread's own memory, `times` times.
double read(const std::vector<uint64_t>& memory, int times) {
  typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
  constexpr size_t kWords = kVectorBytes / 8;
  Words sum[8] = {};
  for (int i = 0; i < times; ++i)
    for (size_t at = 0; at + 8 * kWords <= memory.size(); at += 8 * kWords) {
#pragma GCC unroll 8
      for (size_t c = 0; c < 8; ++c) {
        Words x;
        memcpy(&x, memory.data() + at + c * kWords, sizeof x);
        sum[c] ^= x;
      }
      asm volatile("" ::: "memory");
    }
  uint64_t total = 0;
  for (const auto& s : sum) total ^= s[0];
  sink = float(total);
  return double(memory.size() / (8 * kWords) * (8 * kWords)) * 8 * times;
}

double reading(int threads, size_t bytes_each, int times) {
  std::vector<std::vector<uint64_t>> memory(static_cast<size_t>(threads), std::vector<uint64_t>(bytes_each / 8, 1));
  return best_rate(threads, [&](int t) { return read(memory[size_t(t)], times); });
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : 1;
  if (threads < 1) return 2;
  printf("fp32 %g\n", best_rate(threads, [](int) { return multiply_fp32(); }));
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  printf("bf16 %g\n", best_rate(threads, [](int) { return multiply_bf16(); }));
#endif
#if defined(__AMX_BF16__) && defined(__linux__)
  if (ask_for_tiles()) printf("amx %g\n", best_rate(threads, [](int) { return multiply_tiles(); }));
#endif
  printf("cache %g\n", reading(threads, 256 << 10, 400));
  printf("memory %g\n", reading(threads, size_t(1 << 30) / size_t(threads) / 4, 1));
}
