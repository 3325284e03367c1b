// The products of chains.h along rows as they lie: neither side is packed, and the rows of a panel are read once.
#pragma once
#include "chains.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Calls f(k, load) for every sixteen numbers of rows of `depth`; load(p) fills up the last with zeros.
template <class F>
inline void along_rows(int64_t depth, const F& f) {
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) f(k, [](const float* p) { return load(p); });
  if (k < depth) f(k, [=](const float* p) { return load_first(p, depth - k, 0.0f); });
}

// Calls put(r, c, row r of a times row c of b) and, with Squares, put(Rows, c, row c of b times itself).
template <int64_t Rows, int64_t Cols, bool Squares, class F>
inline void multiply_along(FloatRows a, FloatRows b, int64_t depth, const F& put) {
  constexpr int64_t kSums = Rows + Squares;
  Vec acc[kSums * Cols];
  PYFASTCAL_UNROLL
  for (Vec& sum : acc) sum = set1(0.0f);
  along_rows(depth, [&](int64_t k, auto load) {
    Vec x[Rows + 1];
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < Rows; ++r) x[r] = load(a.data + r * a.stride + k);
    PYFASTCAL_UNROLL
    for (int64_t c = 0; c < Cols; ++c) {
      const Vec y = x[Rows] = load(b.data + c * b.stride + k);
      __builtin_prefetch(b.data + (Cols + c) * b.stride + k);  // rows are too short for the processor to run ahead
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < kSums; ++r) acc[r * Cols + c] = fma(x[r], y, acc[r * Cols + c]);
    }
  });
  float sums[kSums * Cols];
  reduce_add(acc, sums);
  for (int64_t r = 0; r < kSums; ++r)
    for (int64_t c = 0; c < Cols; ++c) put(r, c, sums[r * Cols + c]);
}

// Rows of the panel and rows that they are multiplied by, at a time, and how many sums fit in registers.
inline constexpr int64_t kDotClasses = kTileVecs == 2 ? 8 : 4, kDotRows = kDotClasses / 2;
inline constexpr int64_t kMostSums = kDotRows * (kDotRows + 2);

// How many classes, a power of two, `sums` sums of each of which fit.
constexpr int64_t dot_classes(int64_t classes, int64_t sums) {
  return sums * classes > kMostSums ? dot_classes(classes / 2, sums) : classes;
}

// Calls f(number, a constant, first) for tiles of Size of n rows, then of half of that, down to one.
template <int64_t Size, class F>
inline void for_each_size(int64_t n, const F& f, int64_t first = 0) {
  for (; first + Size <= n; first += Size) f(std::integral_constant<int64_t, Size>(), first);
  if constexpr (Size > 1) for_each_size<Size / 2>(n, f, first);
}

inline FloatRows from_row(FloatRows rows, int64_t i) { return {rows.data + i * rows.stride, rows.stride}; }

// scores[i * width + j] = row i of a times row j of the panel; square[j] = row j's squared length, unless it is null.
inline void store_panel_dots(FloatRows a, int64_t n, const PanelRows& p, float* square, float* scores, int64_t width) {
  for_each_size<kDotClasses>(p.n, [&](auto classes, int64_t first) {
    const auto run = [&](auto rows, int64_t i, auto squares) {
      constexpr int64_t kCols = dot_classes(classes(), rows() + squares());
      for (int64_t j = first; j < first + classes(); j += kCols)
        multiply_along<rows(), kCols, squares()>(from_row(a, i), from_row(p.rows, j), p.depth,
                                                 [&](int64_t r, int64_t c, float sum) {
                                                   (r < rows() ? scores[(i + r) * width + j + c] : square[j + c]) = sum;
                                                 });
    };
    for_each_size<kDotRows>(n, [&](auto rows, int64_t i) {
      square&& i == 0 ? run(rows, i, std::true_type()) : run(rows, i, std::false_type());
    });
  });
}

inline void store_squares(const PanelRows& p, float* square) {
  for_each_size<kDotClasses>(p.n, [&](auto classes, int64_t first) {
    multiply_along<0, classes(), true>({}, from_row(p.rows, first), p.depth,
                                       [&](int64_t, int64_t c, float sum) { square[first + c] = sum; });
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
