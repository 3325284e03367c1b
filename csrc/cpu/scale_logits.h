// scale_logits: each row of logits times one positive factor, in the dtype of the logits, with the row's first maximum
// kept where it was.
#pragma once
#include "confidence.h"
#include "narrow.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

template <class T>
struct Limits {
  static constexpr float kUnit = 0x1p-23f, kLeast = 0x1p-126f;  // of 1 in the last place; the least normal number
};
template <>
struct Limits<BFloat16> {
  static constexpr float kUnit = 0x1p-7f, kLeast = 0x1p-126f;
};
template <>
struct Limits<Half> {
  static constexpr float kUnit = 0x1p-10f, kLeast = 0x1p-14f;
};

inline float rounded(float x, const float*) { return x; }
template <class T>
inline float rounded(float x, const T*) {
  T out;
  round_to(x, out);
  return to_float(out);
}
inline void round_to(float x, float& out) { out = x; }

// Rounding can make an earlier logit equal to the maximum, which would then be the prediction: the maximum is lifted by
// a unit in the last place, or by the least normal number, as calibration/logit_scaling.py does it. Whether it is
// finite.
template <class T>
inline bool lift(float top, T& out) {
  const float unit = std::fabs(top) * Limits<T>::kUnit;
  round_to(top + (unit > Limits<T>::kLeast ? unit : Limits<T>::kLeast), out);
  return std::isfinite(to_float(out));
}

inline bool is_factor(float x) { return x > 0.0f && x < kInfinity; }

// Whether all is finite but for masked logits, before and after, and the factor one that may be.
template <class T>
inline bool scale_row(const T* row, int64_t n, const Peak& peak, float factor, T* out) {
  if (!(is_factor(factor) && peak.max < kInfinity && peak.max > -kInfinity)) return false;
  const float scaled = rounded(peak.max * factor, row);
  const Vec f = set1(factor), masked = set1(-kInfinity), zero = set1(0.0f), top = set1(scaled);
  uint32_t sound = 0xffff;
  int64_t first = -1;  // of what is as large as the maximum: rounding keeps the order, so nothing is larger
  for (int64_t c = 0; c < n; c += kLanes) {
    const int64_t count = min(kLanes, n - c);
    const Vec x = count < kLanes ? load_first(row + c, count, 0.0f) : load(row + c);
    Vec y = x * f;
    T buffer[kLanes];
    T* const to = count < kLanes ? buffer : out + c;
    store(to, y);
    if constexpr (!std::is_same_v<T, float>) y = load(static_cast<const T*>(to));
    if (count < kLanes) std::memcpy(out + c, buffer, sizeof(T) * count);
    if (first < 0)
      if (const uint32_t hit = equal(y, top)) first = c + __builtin_ctz(hit);
    sound &= equal(y - y, zero) | equal(x, masked);  // of numbers that are not finite the difference is NaN
  }
  return sound == 0xffff && (first == peak.index ? std::isfinite(scaled) : lift(scaled, out[peak.index]));
}

// The same of so few classes that lanes would stay empty. factor_of(index of the maximum)
inline constexpr int64_t kShortRow = 4;
template <class F>
inline bool scale_short_row(const float* row, int64_t n, const F& factor_of, float* out) {
  float top = row[0];
  int64_t index = 0;
  for (int64_t c = 1; c < n; ++c) {
    const bool larger = row[c] > top;
    top = larger ? row[c] : top;
    index = larger ? c : index;
  }
  const float factor = factor_of(index), scaled = top * factor;
  bool sound = is_factor(factor) & (top < kInfinity) & (top > -kInfinity);
  int64_t first = 0;
  for (int64_t c = n; c-- > 0;) {
    const float y = row[c] * factor;
    sound &= (y - y == 0.0f) | (row[c] == -kInfinity);
    first = y == scaled ? c : first;
    out[c] = y;
  }
  return (first == index || lift(scaled, out[index])) && sound;
}

// out: as the logits, whose rows lie side by side. Whether all rows are sound. Of factors there is one kind, or
// `factor` is that of every row.
inline bool scale_logits(const Matrix& logits, const Factors& factors, float factor, void* out) {
  int32_t unsound = 0;
  with_type(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    for_each_row(logits.rows, logits.cols, [&](int64_t i) {
      const T* const row = data + i * logits.stride;
      T* const to = static_cast<T*>(out) + i * logits.cols;
      const auto factor_of = [&](int64_t index) {
        return factors.class_weight    ? factors.class_weight[index]
               : factors.sample_weight ? factors.sample_weight[i]
                                       : factor;
      };
      const auto scaled = [&] {
        if constexpr (std::is_same_v<T, float>)
          if (logits.cols <= kShortRow) return scale_short_row(row, logits.cols, factor_of, to);
        const Peak peak = find_peak(row, logits.cols);
        return scale_row(row, logits.cols, peak, factor_of(peak.index), to);
      };
      if (!scaled()) __atomic_store_n(&unsound, 1, __ATOMIC_RELAXED);
    });
  });
  return !unsound;
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
