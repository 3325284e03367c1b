// From a row's sums to the mean negative log-likelihood of softmax(beta * logits) and its derivatives by beta.
// Both halves (CPU, CUDA) include it; how they sum is their own affair.
//
// The sums run over p = 2^t, t = beta2 * x - shift, with beta2 = fp32(beta log2 e) and the shift near the largest
// beta2 * x. Neither the shift nor its rounding matters: it adds to all t alike, the label's too. In t nothing has a
// scale, so nothing overflows, whatever the logits and beta are. That beta2 was rounded is taken back at the end.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace pyfastcal {

struct Powers {
  double sum, first, second;  // of p, p t, p t^2 over a row
};

struct NllTotals {
  double value = 0, slope = 0, curvature = 0;  // in bits, by log beta; value lacks the log2 of each row's sum
};

PYFASTCAL_HOST_DEVICE static inline void add_row(const Powers& row, double label_t, NllTotals& totals) {
  const double mean = row.first / row.sum, variance = row.second / row.sum - mean * mean;
  totals.value -= label_t;
  totals.slope += mean - label_t;
  totals.curvature += variance < 0 ? 0 : variance;  // but not where it is NaN
}

struct Nll {
  double value, slope, curvature;  // the mean, in nats, and its first and second derivative by beta
};

PYFASTCAL_HOST_DEVICE static inline Nll mean_nll(const NllTotals& totals, int64_t rows, double beta, float beta2) {
  const double bit = 0.6931471805599453, used = double(beta2) * bit, change = beta / used - 1, n = double(rows);
  const double by_log = totals.slope * bit / n, by_log_twice = totals.curvature * bit * bit / n;
  return {totals.value * bit / n + by_log * change, (by_log + by_log_twice * change) / used,
          by_log_twice / (used * used)};
}

}  // namespace pyfastcal
