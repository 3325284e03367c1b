// The scores of few rows: class rows are multiplied as they lie, a few at a time, or by way of a packed panel that
// stays in cache, and measured from there, so that the class features are read once and written nowhere; threads share
// the classes, not the rows. Every score is the one that the blocks of similarity_confidence.h make (chains.h).
#pragma once
#include "class_panels.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr int64_t kMostFewRows = 64;
inline bool are_few_rows(int64_t rows, int64_t classes) {
  constexpr int64_t kMostScores = 1 << 21;  // 8 MiB, in the caches
  return rows <= kMostFewRows && rows * panels(classes) * kPanel <= kMostScores;
}

// More go by way of a packed panel. With AVX-512 a tile along rows takes a quarter of the loads that it has with AVX2.
inline constexpr int64_t kMostDotRows = kTileVecs == 2 ? kMostFewRows : 8;

// scores[i][c] = row i of a times column c of the panel, scaled, for n rows, which are `width` apart. Where there are
// more than kMostDotRows, `packed` is for the panel and a's rows are in the order of chains.
inline void store_panel_products(FloatRows a, int64_t n, const PanelRows& panel, bool normalize, float* packed,
                                 float* scores, int64_t width) {
  float scale[kPanel];
  if (n > kMostDotRows) {
    pack_with_lengths(panel, normalize, scale, packed);
    return store_products(a.data, n, packed, a.stride, scale, scores, width);
  }
  with_lengths(panel, normalize, scale,
               [&](const PanelRows& p, float* square) { store_panel_dots(a, n, p, square, scores, width); });
  if (!normalize) return;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < panel.n; ++j) scores[i * width + j] *= scale[j];
}

// How many threads are worth asking for classes of so many numbers: a part should take 10 microseconds or more.
inline int64_t class_parts(int64_t numbers, int64_t rows) { return (numbers * (rows + 4)) >> 19; }

// Calls multiply(panel, p, buffer of a panel) for each of text's panels.
template <class F>
inline void for_each_panel(const Matrix& text, int64_t rows, const F& multiply) {
  const int64_t count = panels(text.rows), depth = text.cols;
  const int64_t parts = max(1, min(count, class_parts(count * kPanel * depth, rows)));
  parallel_tasks(parts, [&](int64_t part) {
    const Buffer<float> packed(rows > kMostDotRows ? kPanel * chained_depth(depth) : 0);
    const Buffer<float> scratch(text.dtype == Dtype::kFloat ? 0 : kPanel * depth);
    for (int64_t p = count * part / parts; p < count * (part + 1) / parts; ++p)
      multiply(panel_rows(text, p, scratch), p, static_cast<float*>(packed));
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
