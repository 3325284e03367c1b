// A workspace's parts, each aligned to 256 bytes. On a null base the pointers mean nothing, but bytes() is what all of
// them take.
#pragma once
#include <cstdint>

namespace pyfastcal::cuda {

class Workspace {
 public:
  explicit Workspace(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  template <class T>
  T* take(int64_t n) {
    const uintptr_t at = base_ + uintptr_t(bytes_);
    bytes_ += (n * int64_t(sizeof(T)) + 255) / 256 * 256;
    return reinterpret_cast<T*>(at);
  }
  int64_t bytes() const { return bytes_; }

 private:
  uintptr_t base_;
  int64_t bytes_ = 0;
};

}  // namespace pyfastcal::cuda
