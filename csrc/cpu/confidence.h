// confidence: that of each row of logits; rows of very many logits in pieces, of very few side by side.
#pragma once
#include "long_rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Rows of so few logits that lanes would stay empty: sixteen rows at a time, lanes go across them.
inline constexpr int64_t kFewLogits = 8;
template <class T>
inline void confidence_of_short_rows(const T* data, const Matrix& logits, const Factors& factors, int64_t begin,
                                     int64_t end, float* out, int64_t* prediction) {
  const Exp2 exp2;
  const Vec low = set1(kSmallestExponent);
  float x[kFewLogits][kLanes] = {}, top[kLanes] = {}, factor2[kLanes] = {};
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t n = min(kLanes, end - first);
    for (int64_t i = 0; i < n; ++i) {
      const T* const row = data + (first + i) * logits.stride;
      float most = x[0][i] = to_float(row[0]);
      int64_t index = 0;
      for (int64_t c = 1; c < logits.cols; ++c) {
        const float logit = x[c][i] = to_float(row[c]);
        const bool larger = logit > most;
        most = larger ? logit : most;
        index = larger ? c : index;
      }
      top[i] = most;
      prediction[first + i] = index;
      factor2[i] = class_factor(factors, index, first + i) * kLog2E;
    }
    Vec sum = set1(0.0f);  // NaN where a logit is, or the largest is not finite
    const float *const of_top = top, *const of_factor = factor2;
    for (int64_t c = 0; c < logits.cols; ++c) {
      const float* const logit = x[c];
      sum = sum + exp2(max(low, (load(logit) - load(of_top)) * load(of_factor)));
    }
    float sums[kLanes];
    store(sums, sum);
    for (int64_t i = 0; i < n; ++i) out[first + i] = float(1.0 / double(sums[i]));
  }
}

inline void confidence(const Matrix& logits, const Factors& factors, float* out, int64_t* prediction) {
  const bool is_short = logits.cols <= kFewLogits;
  const int64_t n = logits.rows, rows = is_short ? 1 << 12 : rows_of_task(logits.cols);
  with_type(logits, [&](auto* data) {
    if (logits.cols > kLongRow) return confidence_of_long_rows(data, logits, factors, out, prediction);
    parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
      const int64_t end = min((task + 1) * rows, n);
      if (is_short) return confidence_of_short_rows(data, logits, factors, task * rows, end, out, prediction);
      for (int64_t i = task * rows; i < end; ++i) {
        auto* row = data + i * logits.stride;
        row_confidence(row, logits.cols, 1.0f, factors, i, i + 1 < n ? row + logits.stride : nullptr, out[i],
                       prediction[i]);
      }
    });
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
