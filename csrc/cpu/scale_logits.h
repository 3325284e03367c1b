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

// The same by a factor that is known before the row is seen, in one pass: the largest number and what comes next to it
// are found on the way. Whether that was all; it is not where a logit is not finite, masked ones included, nor where
// rounding may have made another as large as the maximum.
template <class T>
inline bool scale_at_sight(const T* row, int64_t n, float factor, T* out) {
  const Vec f = set1(factor), zero = set1(0.0f), none = set1(-kInfinity);
  struct Seen {
    Vec top, next, sum;  // of zeros: NaN where one was multiplied by what is not finite
    void see(Vec x) {
      next = max(next, min(top, x));
      top = max(top, x);
    }
  } seen[2] = {{none, none, zero}, {none, none, zero}};
  const auto scale = [&](Vec x, T* to, Vec& sum) {
    Vec y = x * f;
    store(to, y);
    if constexpr (!std::is_same_v<T, float>) y = load(static_cast<const T*>(to));
    sum = fma(y, zero, sum);
  };
  int64_t c = 0;
  const auto take = [&](int j) {
    const Vec x = load(row + c);
    scale(x, out + c, seen[j].sum);
    seen[j].see(x);
    c += kLanes;
  };
  while (c + 2 * kLanes <= n) take(0), take(1);
  if (c + kLanes <= n) take(0);
  if (c < n) {
    if (n < kLanes) {
      T buffer[kLanes];
      scale(load_first(row, n, 0.0f), buffer, seen[1].sum);
      std::memcpy(out, buffer, sizeof(T) * n);
    } else {
      scale(load(row + n - kLanes), out + n - kLanes, seen[1].sum);  // some of them once more
    }
    seen[1].see(load_first(row + c, n - c, -kInfinity));
  }
  const Vec top = max(seen[0].top, seen[1].top), sum = seen[0].sum + seen[1].sum;
  const Vec next = max(max(seen[0].next, seen[1].next), min(seen[0].top, seen[1].top));
  const float scaled = rounded(reduce_max(top) * factor, row);
  const auto as_large = [&](Vec x) {
    T y[kLanes];
    store(y, x * f);
    return equal(load(static_cast<const T*>(y)), set1(scaled));
  };
  const uint32_t first = as_large(top);
  return is_factor(factor) && equal(sum, zero) == 0xffff && !(first & (first - 1)) && !as_large(next);
}

// The same of so few classes that lanes would stay empty. factor_of(index of the maximum)
inline constexpr int64_t kShortRow = 4;
template <class T, class F>
inline bool scale_short_row(const T* row, int64_t n, const F& factor_of, T* out) {
  float top = to_float(row[0]);
  int64_t index = 0;
  for (int64_t c = 1; c < n; ++c) {
    const float x = to_float(row[c]);
    const bool larger = x > top;
    top = larger ? x : top;
    index = larger ? c : index;
  }
  const float factor = factor_of(index), scaled = rounded(top * factor, row);
  bool sound = is_factor(factor) & (top < kInfinity) & (top > -kInfinity);
  int64_t first = 0;
  for (int64_t c = n; c-- > 0;) {
    const float x = to_float(row[c]);
    round_to(x * factor, out[c]);
    const float y = to_float(out[c]);
    sound &= (y - y == 0.0f) | (x == -kInfinity);
    first = y == scaled ? c : first;
  }
  return (first == index || lift(scaled, out[index])) && sound;
}

// Such rows of one factor, side by side: lanes go across them. A row with two numbers alike has each looked at once
// more, one of those that are not finite all of its block. Whether all are sound.
template <int64_t Cols, class T>
inline bool scale_short_rows(const T* rows, int64_t n, float factor, T* out) {
  constexpr int64_t kRows = 128 * kLanes / Cols;  // of a block
  const Vec f = set1(factor), zero = set1(0.0f);
  bool sound = is_factor(factor);
  for (int64_t begin = 0; begin < n; begin += kRows) {
    const int64_t count = min(kRows, n - begin), size = count * Cols;
    const T* const from = rows + begin * Cols;
    T* const to = out + begin * Cols;
    const auto again = [&](int64_t i) {
      sound &= scale_short_row(from + i * Cols, Cols, [=](int64_t) { return factor; }, to + i * Cols);
    };
    Vec sum = zero;  // of zeros: NaN where one was multiplied by what is not finite
    int64_t done = 0;
    for (; done + kLanes <= size; done += kLanes) {
      Vec y = load(from + done) * f;
      store(to + done, y);
      if constexpr (!std::is_same_v<T, float>) y = load(static_cast<const T*>(to + done));
      sum = fma(y, zero, sum);
    }
    int64_t seen = 0;
    for (; equal(sum, zero) == 0xffff && seen + kLanes + Cols - 1 <= done; seen += kLanes) {
      const Vec y = load(static_cast<const T*>(to + seen));
      uint32_t alike = 0;
      PYFASTCAL_UNROLL
      for (int64_t d = 1; d < Cols; ++d) alike |= equal(y, load(static_cast<const T*>(to + seen + d)));
      for (; alike; alike &= alike - 1) again((seen + __builtin_ctz(alike)) / Cols);
    }
    for (int64_t i = seen / Cols; i < count; ++i) again(i);
  }
  return sound;
}

// Of such rows a task takes more than rows_of_task: they are done sooner than another thread is woken.
inline int64_t rows_of_short_task(bool by_row) { return by_row ? 1 << 12 : 1 << 14; }

// f(the number of columns as a constant)
template <class F>
inline bool with_short_row(int64_t cols, const F& f) {
  switch (cols) {
    case 1: return f(std::integral_constant<int64_t, 1>());
    case 2: return f(std::integral_constant<int64_t, 2>());
    case 3: return f(std::integral_constant<int64_t, 3>());
    default: return f(std::integral_constant<int64_t, 4>());
  }
}

// out: as the logits, whose rows lie side by side. Whether all rows are sound. Of factors there is one kind, or
// `factor` is that of every row.
inline bool scale_logits(const Matrix& logits, const Factors& factors, float factor, void* out) {
  const bool is_short = logits.cols <= kShortRow, by_row = factors.class_weight || factors.sample_weight;
  const int64_t n = logits.rows, rows = is_short ? rows_of_short_task(by_row) : rows_of_task(logits.cols);
  int32_t unsound = 0;
  with_type(logits, [&](auto* data) {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
    want_large_pages(out, int64_t(sizeof(T)) * n * logits.cols);
    const auto scaled = [&](int64_t i) {
      const T* const row = data + i * logits.stride;
      T* const to = static_cast<T*>(out) + i * logits.cols;
      const auto factor_of = [&](int64_t index) {
        return factors.class_weight    ? factors.class_weight[index]
               : factors.sample_weight ? factors.sample_weight[i]
                                       : factor;
      };
      if (is_short) return scale_short_row(row, logits.cols, factor_of, to);
      if (!factors.class_weight && scale_at_sight(row, logits.cols, factor_of(0), to)) return true;
      const Peak peak = find_peak(row, logits.cols);
      return scale_row(row, logits.cols, peak, factor_of(peak.index), to);
    };
    parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
      const int64_t begin = task * rows, end = min(begin + rows, n);
      bool sound = true;
      if (is_short && !by_row)
        sound = with_short_row(logits.cols, [&](auto cols) {
          T* const to = static_cast<T*>(out) + begin * cols();
          return scale_short_rows<cols()>(data + begin * cols(), end - begin, factor, to);
        });
      else
        for (int64_t i = begin; i < end; ++i) sound &= scaled(i);
      if (!sound) __atomic_store_n(&unsound, 1, __ATOMIC_RELAXED);
    });
  });
  return !unsound;
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
