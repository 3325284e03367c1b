// The scores of few rows: a panel of classes is packed into a buffer that stays in cache, multiplied by all rows and
// forgotten, so that the class features are read once and written nowhere; threads share the classes, not the rows.
// Every score is the one that the blocks of similarity_confidence.h make, in the same order of additions.
#pragma once
#include "gemm.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline bool are_few_rows(int64_t rows, int64_t classes) {
  constexpr int64_t kMostRows = 64, kMostScores = 1 << 18;  // 1 MiB, in the L2 caches of the threads
  return rows <= kMostRows && rows * panels(classes) * kPanel <= kMostScores;
}

// Calls multiply(panel, p) for each of text's panels; scale as Packed has it.
template <class Scale, class F>
inline void for_each_panel(const Matrix& text, int64_t rows, const Scale& scale, const F& multiply) {
  const int64_t count = panels(text.rows), depth = text.cols;
  // a part takes 10 microseconds or more: less is not worth another thread
  const int64_t parts = max(1, min(count, (count * kPanel * depth * (rows + 8)) >> 19));
  parallel_tasks(parts, [&](int64_t part) {
    const Buffer<float> panel(kPanel * depth), scratch(text.dtype == Dtype::kFloat ? 0 : kPanel * depth);
    for (int64_t p = count * part / parts; p < count * (part + 1) / parts; ++p) {
      pack_panel(text, p, scale, scratch, panel);
      multiply(static_cast<const float*>(panel), p);
    }
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
