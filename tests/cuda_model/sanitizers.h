// What the model tells the sanitizers: which fibre runs, which memory may be read, what orders memory, what
// it reads and writes itself. Without sanitizer, nothing.
#pragma once
#include <cstddef>

#if defined(PYFASTCAL_MODEL_THREAD)
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long size);
void __tsan_write_range(void* address, unsigned long size);
}
#else
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void __tsan_switch_to_fiber(void*, unsigned) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
inline void __tsan_read_range(void*, unsigned long) {}
inline void __tsan_write_range(void*, unsigned long) {}
#endif

#if defined(PYFASTCAL_MODEL_ADDRESS)
extern "C" {
void __sanitizer_start_switch_fiber(void** save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* save, const void** bottom, size_t* size);
void __asan_poison_memory_region(const volatile void* p, size_t size);
void __asan_unpoison_memory_region(const volatile void* p, size_t size);
void* __asan_region_is_poisoned(void* begin, size_t size);
void __asan_loadN(void* address, size_t size);
void __asan_storeN(void* address, size_t size);
}
#else
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
inline void* __asan_region_is_poisoned(void*, size_t) { return nullptr; }
inline void __asan_poison_memory_region(const volatile void*, size_t) {}
inline void __asan_unpoison_memory_region(const volatile void*, size_t) {}
inline void __asan_loadN(void*, size_t) {}
inline void __asan_storeN(void*, size_t) {}
#endif

// What the model reads and writes for a kernel, by code that is not watched itself. The address sanitizer is shown the
// first byte that may not be touched: of a piece that only ends there it would say "unknown crash".
inline void sanitizer_reads(const void* p, size_t size) {
  void* const begin = const_cast<void*>(p);
  __tsan_read_range(begin, size);
  if (void* const bad = __asan_region_is_poisoned(begin, size)) __asan_loadN(bad, 1);
}
inline void sanitizer_writes(void* p, size_t size) {
  __tsan_write_range(p, size);
  if (void* const bad = __asan_region_is_poisoned(p, size)) __asan_storeN(bad, 1);
}
