// A block's shared memory, and a thread's asynchronous copies to it.
#include "fibres.h"

namespace cuda_model {

namespace {

constexpr int kMaxStatic = 64;
constexpr size_t kMaxShared = 256 * 1024;

struct StaticVariable {
  const void* key;
  size_t offset;
};

alignas(1024) unsigned char dynamic_area[kSets][kMaxShared], static_area[kSets][kMaxShared];
size_t dynamic_size = 0, static_size = 0, static_gaps = 0;
StaticVariable static_variables[kMaxStatic];
int n_static = 0;

// By an instruction that no sanitizer takes for an access of the current thread.
void fill_with_nan(void* p, size_t size) { asm volatile("rep stosb" : "+D"(p), "+c"(size) : "a"(0xff) : "memory"); }

}  // namespace

void begin_shared(size_t dynamic_bytes) {
  dynamic_size = dynamic_bytes;
  static_size = static_gaps = 0;
  n_static = 0;
  for (int s = 0; s < kSets; ++s) {
    __asan_poison_memory_region(static_area[s], kMaxShared);
    __asan_poison_memory_region(dynamic_area[s], kMaxShared);
    __asan_unpoison_memory_region(dynamic_area[s], dynamic_bytes);
  }
}

void refill_shared() {
  fill_with_nan(dynamic_area[set], dynamic_size);
  fill_with_nan(static_area[set], static_size);
}

void* dynamic_shared() { return dynamic_area[set]; }

void* static_shared(const void* key, size_t size) {
  for (int i = 0; i < n_static; ++i)
    if (static_variables[i].key == key) return static_area[set] + static_variables[i].offset;
  static_gaps += 16;
  const size_t offset = (static_size + 15) / 16 * 16 + 16;  // a gap before it, for the address sanitizer
  if (n_static == kMaxStatic || offset + size > kUnaskedShared) die("too much static shared memory");
  static_variables[n_static++] = {key, offset};
  static_size = offset + size;
  running->takes_static(static_size - static_gaps);
  if (!running->may_have(dynamic_size)) die("too much shared memory, static arrays included");
  for (auto& area : static_area) {
    __asan_unpoison_memory_region(area + offset, size);
    fill_with_nan(area + offset, size);
  }
  return static_area[set] + offset;
}

static bool within(const unsigned char* area, size_t n, const void* p, size_t size) {
  const uintptr_t offset = uintptr_t(p) - uintptr_t(area);
  return offset < n && offset + size <= n;
}
bool in_dynamic_shared(const void* p, size_t size) { return within(dynamic_area[set], dynamic_size, p, size); }
bool in_shared(const void* p, size_t size) {
  return in_dynamic_shared(p, size) || within(static_area[set], static_size, p, size);
}

uint32_t shared_address(const void* p) {
  if (!in_dynamic_shared(p, 1)) die("shared_address: not in dynamic shared memory");
  return uint32_t(uintptr_t(p) - uintptr_t(dynamic_area[set])) + kSharedBegin;
}

void issue(const Copy& copy, Place place) {
  if (current->last_copy - current->first_copy == kMaxCopies) die("too many asynchronous copies under way");
  current->place = place;
  current->copies[current->last_copy++ % kMaxCopies] = {copy, current->committed};
  ++counters.async_copies;
}
void commit() { ++current->committed; }
bool next_landed(int groups_left, Copy* copy) {
  if (current->first_copy == current->last_copy) return false;
  const PendingCopy& pending = current->copies[current->first_copy % kMaxCopies];
  if (int(current->committed - pending.group) <= groups_left) return false;
  *copy = pending.copy;
  ++current->first_copy;
  return true;
}

}  // namespace cuda_model
