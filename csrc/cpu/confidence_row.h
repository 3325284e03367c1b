// The confidence of one row: softmax(factor * logits) at its maximum, with the factor that the predicted class picks.
// One pass over memory: the row is read once, then twice more out of L1.
#pragma once
#include "rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kSmallestExponent = -126.0f;  // of 2: below lie the denormals, which exp2 does not make

struct Range {
  float max, min;
};

// NaN where it stands last in its lane only: what goes on with the row's values finds the others.
// `next`, if any, is what to bring into cache meanwhile.
template <class T>
inline Range find_range(const T* row, int64_t n, const T* next = nullptr) {
  Vec hi[2] = {set1(-kInfinity), set1(-kInfinity)}, lo[2] = {set1(kInfinity), set1(kInfinity)};
  int64_t c = 0;
  for (; c + 2 * kLanes <= n; c += 2 * kLanes)
    for (int j = 0; j < 2; ++j) {
      if (next) __builtin_prefetch(next + c + j * kLanes);
      const Vec x = load(row + c + j * kLanes);
      hi[j] = max(hi[j], x);
      lo[j] = min(lo[j], x);
    }
  for (; c + kLanes <= n; c += kLanes) {
    const Vec x = load(row + c);
    hi[0] = max(hi[0], x);
    lo[0] = min(lo[0], x);
  }
  if (c < n) {
    hi[0] = max(hi[0], load_first(row + c, n - c, -kInfinity));
    lo[0] = min(lo[0], load_first(row + c, n - c, kInfinity));
  }
  return {reduce_max(max(hi[0], hi[1])), reduce_min(min(lo[0], lo[1]))};
}

struct Peak : Range {
  int64_t index;  // of the first maximum
};

// Where x stands first; 0 where it does not.
template <class T>
inline int64_t find_first(const T* row, int64_t n, float x) {
  const Vec wanted = set1(x);
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes)
    if (const uint32_t hit = equal(load(row + c), wanted)) return c + __builtin_ctz(hit);
  for (; c < n; ++c)
    if (to_float(row[c]) == x) return c;
  return 0;
}

inline constexpr int64_t kPiece = 1 << 13;  // of a row, that a cache near the core holds

template <class T>
inline Peak find_peak(const T* row, int64_t n) {
  Peak peak{find_range(row, min(n, kPiece)), 0};
  peak.index = find_first(row, min(n, kPiece), peak.max);
  for (int64_t begin = kPiece; begin < n; begin += kPiece) {  // each is read again while it is in cache, if at all
    const int64_t length = min(kPiece, n - begin);
    const Range piece = find_range(row + begin, length);
    if (piece.min < peak.min) peak.min = piece.min;
    if (piece.max > peak.max) {
      peak.max = piece.max;
      peak.index = begin + find_first(row + begin, length, piece.max);
    }
  }
  return peak;
}

// Sum of 2^(factor2 * row - shift); `next`, if any, is the row to bring into cache meanwhile. Runs of kRun are added in
// fp32, the runs in double: the error does not grow with the number of classes.
template <bool Clamp, class T>
inline double sum_powers(const T* row, int64_t n, float factor2, float shift, const T* next) {
  constexpr int64_t kRun = 2048;
  const Exp2 exp2;
  const Vec g = constant(factor2), minus_shift = constant(-shift), low = set1(kSmallestExponent);
  const auto exponent = [&](Vec x) {
    const Vec t = fma(x, g, minus_shift);
    return Clamp ? max(low, t) : t;
  };
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = min(begin + kRun, n);
    Vec sum = set1(0.0f);
    int64_t c = begin;
    for (; c + kLanes <= end; c += kLanes) {
      if (next) __builtin_prefetch(next + c);
      sum = exp2.add_to(sum, exponent(load(row + c)));
    }
    if (c < end) sum = sum + keep_first(exp2(exponent(load_first(row + c, end - c, 0.0f))), end - c);
    total += reduce_add(sum);
  }
  return total;
}

// Sum of 2^(factor2 * (row - max)), max and min being the row's; min only has to be a lower bound.
template <class T>
inline double sum_relative_powers(const T* row, int64_t n, float max_value, float min_value, float factor2,
                                  const T* next) {
  // One multiply-add per exponent, factor2 * x - shift. That the shift was rounded multiplies every term alike, that of
  // the maximum (2^residual) too, so it cancels.
  const float shift = max_value * factor2;
  if (!(std::fabs(shift) < 0x1p20f))  // the residual is no small number: subtract first, in double; such rows are rare
    return accumulate_in_lanes(n, [=](int64_t i, double sum) {
      return sum + std::exp2((double(to_float(row[i])) - double(max_value)) * double(factor2));
    });
  const double residual = double(max_value) * double(factor2) - double(shift);
  const bool clamp = !((min_value - max_value) * factor2 > kSmallestExponent + 1);
  return (clamp ? sum_powers<true>(row, n, factor2, shift, next) : sum_powers<false>(row, n, factor2, shift, next)) *
         std::exp2(-residual);
}

// What the logits of row i are multiplied by where class `top` is predicted.
inline float class_factor(const Factors& factors, int64_t top, int64_t i, float scale = 1.0f) {
  if (factors.class_weight) scale *= factors.class_weight[top];
  if (factors.sample_weight) scale *= factors.sample_weight[i];
  return scale;
}

// The confidence of one row of scores whose logits are scale * factor * score, scale > 0.
template <class T>
inline void row_confidence(const T* row, int64_t n, float scale, const Factors& factors, int64_t i, const T* next,
                           float& confidence, int64_t& prediction) {
  const Peak peak = find_peak(row, n);
  prediction = peak.index;
  if (!(peak.max < kInfinity && peak.max > -kInfinity)) {
    confidence = kNaN;
    return;
  }
  scale = class_factor(factors, peak.index, i, scale);
  confidence = float(1 / sum_relative_powers(row, n, peak.max, peak.min, scale * kLog2E, next));
}

// Rows of as many logits that a task takes: 128 KiB or so, for less is not worth another thread. A row has work of its
// own, as much as that of 32 logits.
inline int64_t rows_of_task(int64_t cols) { return 1 + (1 << 15) / (cols + 32); }

// f(i) for n rows.
template <class F>
inline void for_each_row(int64_t n, int64_t cols, const F& f) {
  const int64_t rows = rows_of_task(cols);
  parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
    for (int64_t i = task * rows; i < min((task + 1) * rows, n); ++i) f(i);
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
