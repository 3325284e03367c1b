// The scores of few rows: class rows are multiplied as they are read, by eight rows at once or by way of a packed panel
// that stays in cache, and their lengths measured in passing, so that the class features are read once and written
// nowhere; threads share the classes, not the rows. Every score is the one that the blocks of similarity_confidence.h
// make, in the same order of additions.
#pragma once
#include "class_panels.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline bool are_few_rows(int64_t rows, int64_t classes) {
  constexpr int64_t kMostRows = 64, kMostScores = 1 << 21;  // 8 MiB, in the caches
  return rows <= kMostRows && rows * panels(classes) * kPanel <= kMostScores;
}

// The products of Rows rows of a with the panel, which is not packed: its columns are multiplied as they are made,
// those of all its rows in turns where registers are enough for that, since one chain of additions alone would have to
// wait.
template <int64_t Rows>
inline void store_columns_products(FloatRows a, const PanelRows& p, float* square, float* scores, int64_t width) {
  constexpr int64_t kVecs = Rows <= 2 ? kTileVecs : 1;
  for (int64_t j0 = 0; j0 < kPanel; j0 += kVecs * kLanes) {
    Vec acc[kVecs][Rows];
    Squares squares[kVecs];
    PYFASTCAL_UNROLL
    for (int64_t v = 0; v < kVecs; ++v) {
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < Rows; ++r) acc[v][r] = set1(0.0f);
    }
    for (int64_t k0 = 0; k0 < p.depth; k0 += kLanes) {
      const int64_t depth = min(kLanes, p.depth - k0);
      PYFASTCAL_UNROLL
      for (int64_t v = 0; v < kVecs; ++v) {
        Vec x[kLanes];
        load_columns(p, j0 + v * kLanes, k0, x);
        squares[v].add(x);
        const auto multiply = [&](int64_t k) {
          PYFASTCAL_UNROLL
          for (int64_t r = 0; r < Rows; ++r) acc[v][r] = fma(set1(a.data[r * a.stride + k0 + k]), x[k], acc[v][r]);
        };
        if (depth == kLanes) {
          PYFASTCAL_UNROLL
          for (int64_t k = 0; k < kLanes; ++k) multiply(k);
        } else {
          for (int64_t k = 0; k < depth; ++k) multiply(k);
        }
      }
    }
    PYFASTCAL_UNROLL
    for (int64_t v = 0; v < kVecs; ++v) {
      store(square + j0 + v * kLanes, squares[v].total());
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < Rows; ++r) store(scores + r * width + j0 + v * kLanes, acc[v][r]);
    }
  }
}

inline constexpr int64_t kMostColumnRows = kTileRows < 8 ? kTileRows : 8;  // whose sums fit in registers

template <int64_t Rows = kMostColumnRows>
inline void store_few_products(FloatRows a, int64_t n, const PanelRows& p, float* square, float* scores,
                               int64_t width) {
  if (n == Rows) return store_columns_products<Rows>(a, p, square, scores, width);
  if constexpr (Rows > 1) store_few_products<Rows - 1>(a, n, p, square, scores, width);
}

// scores[i][c] = row i of a times column c of the panel, scaled, for n rows, which are `width` apart; `packed` is for a
// panel where there are more rows than kMostColumnRows.
inline void store_panel_products(FloatRows a, int64_t n, const PanelRows& panel, bool normalize, float* packed,
                                 float* scores, int64_t width) {
  float scale[kPanel];
  if (n > kMostColumnRows) {
    with_lengths(panel, normalize, scale, [&](const PanelRows& p, float* square) { pack_columns(p, packed, square); });
    return store_products(a, n, packed, panel.depth, scale, scores, width);
  }
  with_lengths(panel, normalize, scale,
               [&](const PanelRows& p, float* square) { store_few_products(a, n, p, square, scores, width); });
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < kPanel; j += kLanes)
      store(scores + i * width + j, load(scores + i * width + j) * load(scale + j));
}

// How many threads are worth asking for classes of so many numbers: a part should take 10 microseconds or more.
inline int64_t class_parts(int64_t numbers, int64_t rows) { return (numbers * (rows + 4)) >> 19; }

// Calls multiply(panel, p, buffer of a panel) for each of text's panels.
template <class F>
inline void for_each_panel(const Matrix& text, int64_t rows, const F& multiply) {
  const int64_t count = panels(text.rows), depth = text.cols;
  const int64_t parts = max(1, min(count, class_parts(count * kPanel * depth, rows)));
  parallel_tasks(parts, [&](int64_t part) {
    const Buffer<float> packed(rows > kMostColumnRows ? kPanel * depth : 0);
    const Buffer<float> scratch(text.dtype == Dtype::kFloat ? 0 : kPanel * depth);
    for (int64_t p = count * part / parts; p < count * (part + 1) / parts; ++p)
      multiply(panel_rows(text, p, scratch), p, static_cast<float*>(packed));
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
