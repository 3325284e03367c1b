// The density of points in the plane under a Gaussian product kernel: the constants that both halves (CPU, CUDA) share.
//
// log density(q) = log(1/n sum_i K((q - x_i) / h)), K((u, v)) = exp(-(u^2 + v^2) / 2) / (2 pi h_u h_v). The powers are
// taken of 2, of exponents t_i = -(k_u (q - x_i)_u^2 + k_v (q - x_i)_v^2), k = log2 e / (2 h^2): each difference is one
// fp32 rounding from exact, so t is good to 4 of them, relative. The powers are added in fp32 over runs of kRun
// points, the runs in double. Below kFaintest a sum comes from powers that fp32 cannot hold well (or from their floor
// of 2^-126, one per point at most): then it is redone in double, relative to its largest term.
#pragma once
#include <cmath>
#include <cstdint>

#include "host_device.h"

namespace pyfastcal {

inline constexpr int64_t kDensityRun = 2048;  // points added in fp32
inline constexpr double kFaintest = 0x1p-40;

PYFASTCAL_HOST_DEVICE static inline double exponent_scale(double bandwidth) {
  return 0.7213475204444817 / (bandwidth * bandwidth);  // log2 e / 2
}

// log2_sum: of the powers of two.
PYFASTCAL_HOST_DEVICE static inline double log_density(double log2_sum, int64_t n, double h_u, double h_v) {
  return log2_sum * 0.6931471805599453 - std::log(6.283185307179586 * h_u * h_v * double(n));
}

}  // namespace pyfastcal
