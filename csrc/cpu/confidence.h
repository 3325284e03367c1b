// confidence: that of each row of logits; rows of very many logits in pieces.
#pragma once
#include "long_rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline void confidence(const Matrix& logits, const Factors& factors, float* out, int64_t* prediction) {
  const int64_t n = logits.rows, rows = rows_of_task(logits.cols);
  with_type(logits, [&](auto* data) {
    if (logits.cols > kLongRow) return confidence_of_long_rows(data, logits, factors, out, prediction);
    parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
      const int64_t end = min((task + 1) * rows, n);
      for (int64_t i = task * rows; i < end; ++i) {
        auto* row = data + i * logits.stride;
        row_confidence(row, logits.cols, 1.0f, factors, i, i + 1 < n ? row + logits.stride : nullptr, out[i],
                       prediction[i]);
      }
    });
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
