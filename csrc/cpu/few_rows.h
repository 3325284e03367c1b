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

// The products of Rows rows of a with the panel, which is not packed: its columns are multiplied as they are made.
template <int64_t Rows>
inline void store_columns_products(FloatRows a, const PanelRows& p, float* scores, int64_t width) {
  for (int64_t j0 = 0; j0 < p.n; j0 += kLanes) {
    Vec acc[Rows];
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < Rows; ++r) acc[r] = set1(0.0f);
    const auto multiply = [&](const Vec& column, int64_t k) {
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < Rows; ++r) acc[r] = fma(set1(a.data[r * a.stride + k]), column, acc[r]);
    };
    int64_t k0 = 0;
    for (Vec block[kLanes]; k0 + kLanes <= p.depth; k0 += kLanes) {
      load_columns(p, j0, k0, kLanes, block);
      PYFASTCAL_UNROLL
      for (int64_t k = 0; k < kLanes; ++k) multiply(block[k], k0 + k);
    }
    if (k0 < p.depth) {
      Vec block[kLanes];
      load_columns(p, j0, k0, p.depth - k0, block);
      for (int64_t k = 0; k0 + k < p.depth; ++k) multiply(block[k], k0 + k);
    }
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < Rows; ++r) store(scores + r * width + j0, acc[r]);
  }
}

// scores[i][c] = row i of a times column c of the panel, for n rows, which are `width` apart; `packed` is for a panel.
template <int64_t Rows = 8>
inline void store_panel_products(FloatRows a, int64_t n, const PanelRows& p, float* packed, float* scores,
                                 int64_t width) {
  if (n == Rows) return store_columns_products<Rows>(a, p, scores, width);
  if constexpr (Rows > 1) {
    if (n < Rows) return store_panel_products<Rows - 1>(a, n, p, packed, scores, width);
  }
  pack_columns(p, packed);
  store_products(a, n, packed, p.depth, scores, width);
}

// Calls multiply(panel, p, buffer of a panel) for each of text's panels; scale as Packed has it.
template <class Scale, class F>
inline void for_each_panel(const Matrix& text, int64_t rows, const Scale& scale, const F& multiply) {
  const int64_t count = panels(text.rows), depth = text.cols;
  // a part takes 10 microseconds or more: less is not worth another thread
  const int64_t parts = max(1, min(count, (count * kPanel * depth * (rows + 8)) >> 19));
  parallel_tasks(parts, [&](int64_t part) {
    const Buffer<float> packed(kPanel * depth), scratch(text.dtype == Dtype::kFloat ? 0 : kPanel * depth);
    for (int64_t p = count * part / parts; p < count * (part + 1) / parts; ++p)
      multiply(panel_rows(text, p, scale, scratch), p, static_cast<float*>(packed));
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
