// Division by a number that the host knows, in three instructions.
#pragma once
#include <cstdint>

#include "../../common/host_device.h"

namespace pyfastcal::cuda {

class Divisor {
 public:
  Divisor() = default;
  // With 2^(shift - 1) < d <= 2^shift, ceil(2^(31 + shift) / d) fits in 32 bits and gives exact quotients below 2^31
  // (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994).
  explicit Divisor(int d) : d_(d) {
    while ((int64_t(1) << shift_) < d) ++shift_;
    factor_ = uint32_t(((uint64_t(1) << (31 + shift_)) + uint32_t(d) - 1) / uint32_t(d));
  }
  // n = quotient * d + remainder, 0 <= n < 2^31
  PYFASTCAL_HOST_DEVICE int quotient(int n) const { return int(uint64_t(uint32_t(n)) * factor_ >> (31 + shift_)); }
  PYFASTCAL_HOST_DEVICE int remainder(int n) const { return n - quotient(n) * d_; }
  PYFASTCAL_HOST_DEVICE int divisor() const { return d_; }

 private:
  int d_ = 1, shift_ = 0;
  uint32_t factor_ = uint32_t(1) << 31;
};

}  // namespace pyfastcal::cuda
