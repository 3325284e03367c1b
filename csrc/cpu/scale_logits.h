// scale_logits: each row of logits times one positive factor, with the row's first maximum kept where it was.
#pragma once
#include "confidence.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Rounding can make an earlier logit equal to the maximum, which would then be the prediction: the maximum is lifted by
// a unit in the last place, or by the least normal number, as calibration/logit_scaling.py does it.
inline float lifted(float top) {
  const float unit = std::fabs(top) * std::numeric_limits<float>::epsilon();
  const float least = std::numeric_limits<float>::min();
  return top + (unit > least ? unit : least);
}

// Whether all is finite but for masked logits, before and after, and the factor one that may be.
inline bool scale_row(const float* row, int64_t n, const Peak& peak, float factor, float* out) {
  const bool positive = factor > 0.0f && factor < kInfinity;
  if (!(positive && peak.max < kInfinity && peak.max > -kInfinity)) return false;
  const float scaled = peak.max * factor;
  const Vec f = set1(factor), masked = set1(-kInfinity), zero = set1(0.0f), top = set1(scaled);
  uint32_t sound = 0xffff;
  int64_t first = -1;  // of what is as large as the maximum: rounding keeps the order, so nothing is larger
  for (int64_t c = 0; c < n; c += kLanes) {
    const int64_t count = min(kLanes, n - c);
    const Vec x = count < kLanes ? load_first(row + c, count, 0.0f) : load(row + c), y = x * f;
    if (first < 0)
      if (const uint32_t hit = equal(y, top)) first = c + __builtin_ctz(hit);
    sound &= equal(y - y, zero) | equal(x, masked);  // of numbers that are not finite the difference is NaN
    if (count < kLanes) {
      float buffer[kLanes];
      store(buffer, y);
      std::memcpy(out + c, buffer, sizeof(float) * count);
    } else {
      store(out + c, y);
    }
  }
  if (first != peak.index) out[peak.index] = lifted(scaled);
  return sound == 0xffff && std::isfinite(out[peak.index]);
}

// out: as the logits, whose rows lie side by side. Whether all rows are sound. Of factors there is one kind, or
// `factor` is that of every row.
inline bool scale_logits(const Matrix& logits, const Factors& factors, float factor, float* out) {
  const float* const data = static_cast<const float*>(logits.data);
  int32_t unsound = 0;
  for_each_row(logits.rows, logits.cols, [&](int64_t i) {
    const float* const row = data + i * logits.stride;
    const Peak peak = find_peak(row, logits.cols);
    const float own = factors.class_weight    ? factors.class_weight[peak.index]
                      : factors.sample_weight ? factors.sample_weight[i]
                                              : factor;
    if (!scale_row(row, logits.cols, peak, own, out + i * logits.cols)) __atomic_store_n(&unsound, 1, __ATOMIC_RELAXED);
  });
  return !unsound;
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
