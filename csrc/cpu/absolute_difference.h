// absolute_difference: |a - b| of two matrices in fp32, each number rounded once.
#pragma once
#include "confidence_row.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline void absolute_difference(const Matrix& a, const Matrix& b, float* out) {
  with_type(a, [&](auto* from) {
    with_type(b, [&](auto* other) {
      const auto row = [&](auto* x, auto* y, int64_t n, float* to) {
        int64_t c = 0;
        for (; c + kLanes <= n; c += kLanes) store(to + c, abs(load(x + c) - load(y + c)));
        for (; c < n; ++c) to[c] = std::fabs(to_float(x[c]) - to_float(y[c]));
      };
      if (a.stride == a.cols && b.stride == b.cols) {  // pieces of many rows, or of one
        constexpr int64_t kTask = 1 << 15;
        const int64_t n = a.rows * a.cols;
        return parallel_tasks((n + kTask - 1) / kTask, [&](int64_t task) {
          const int64_t begin = task * kTask;
          row(from + begin, other + begin, min(kTask, n - begin), out + begin);
        });
      }
      for_each_row(a.rows, a.cols,
                   [&](int64_t i) { row(from + i * a.stride, other + i * b.stride, a.cols, out + i * a.cols); });
    });
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
