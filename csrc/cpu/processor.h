// Which variants of the kernels this processor runs.
#pragma once
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

#include "kernels.h"

namespace pyfastcal {

#if defined(__x86_64__)
inline bool has_bit(unsigned leaf, unsigned subleaf, int word, int bit) {
  unsigned words[4] = {};
  return __get_cpuid_count(leaf, subleaf, &words[0], &words[1], &words[2], &words[3]) && words[word] >> bit & 1;
}
inline bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
inline bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
inline bool has_avx512_bf16() { return has_avx512() && has_bit(7, 1, 0, 5); }
#if defined(__linux__)
// The kernel saves tiles for those processes only that have asked for them, once.
inline bool has_amx_bf16() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool has = has_avx512_bf16() && has_bit(7, 0, 3, 24) && has_bit(7, 0, 3, 25) && has_bit(7, 0, 3, 22) &&
                          syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return has;
}
#endif
inline bool runs(const Kernels& k) {
  if (&k == &kAvx2Kernels) return has_avx2();
  if (&k == &kAvx512Kernels) return has_avx512();
  if (&k == &kAvx512Bf16Kernels) return has_avx512_bf16();
#if defined(__linux__)
  if (&k == &kAmxBf16Kernels) return has_amx_bf16();
#endif
  return true;
}
#elif defined(__aarch64__)
inline bool has_neon_bf16() {  // NEON itself is part of the architecture
#if defined(__linux__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which old headers do not have
  return getauxval(AT_HWCAP2) & kBf16;
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof(has);
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has;
#else
  return false;
#endif
}
inline bool runs(const Kernels& k) { return &k != &kNeonBf16Kernels || has_neon_bf16(); }
#else
inline bool runs(const Kernels&) { return true; }
#endif

}  // namespace pyfastcal
