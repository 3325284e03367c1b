// The matrix product under similarity_confidence, contrast and knn. Ours rather than BLAS for three reasons: the
// consumer runs on a tile while it is in cache (or in registers), every element is added up in an order that hangs on
// the number of k alone, so its bits do not depend on which rows share its batch or on the number of threads, and it is
// faster than MKL on the processors that it was measured on. Here an element is one chain of fused multiply-adds over
// k, as knn's filter takes it; chains.h makes scores of such products.
//
// Operands: `a` rows are read where they lie; `b` is packed once, 16 or 32 columns to a panel, k by k.
#pragma once
#include "transpose.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_AVX512)
inline constexpr int64_t kTileRows = 12, kTileVecs = 2;  // 24 of 32 registers accumulate
#else
inline constexpr int64_t kTileRows = 6, kTileVecs = 1;  // 12 of 16, or with NEON 24 of 32
#endif
inline constexpr int64_t kPanel = kTileVecs * kLanes;

inline int64_t panels(int64_t cols) { return (cols + kPanel - 1) / kPanel; }

// acc[r] = the products of row r of a with the panel's columns.
template <int64_t Rows>
inline void multiply(const float* a, int64_t stride, const float* panel, int64_t depth, Vec (&acc)[Rows][kTileVecs]) {
  PYFASTCAL_UNROLL
  for (int64_t r = 0; r < Rows; ++r) {
    PYFASTCAL_UNROLL
    for (int64_t v = 0; v < kTileVecs; ++v) acc[r][v] = set1(0.0f);
  }
#pragma GCC unroll 4  // so few turns in a short chain that the processor foresees the last
  for (int64_t k = 0; k < depth; ++k, panel += kPanel) {
    Vec b[kTileVecs];
    PYFASTCAL_UNROLL
    for (int64_t v = 0; v < kTileVecs; ++v) b[v] = load(panel + v * kLanes);
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < Rows; ++r) {
      const Vec x = set1(a[r * stride + k]);
      PYFASTCAL_UNROLL
      for (int64_t v = 0; v < kTileVecs; ++v) acc[r][v] = fma(x, b[v], acc[r][v]);
    }
  }
}

// Calls run(size, row), the size a constant, for tiles of kTileRows rows of [0, rows); what is left over goes through
// the same arithmetic in smaller tiles.
template <class F>
inline void for_each_tile(int64_t rows, const F& run) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) run(std::integral_constant<int64_t, kTileRows>(), row);
  for (; row + 2 <= rows; row += 2) run(std::integral_constant<int64_t, 2>(), row);
  for (; row < rows; ++row) run(std::integral_constant<int64_t, 1>(), row);
}

// Calls tile(row, acc) for the rows [0, rows) of a against one panel, a tile at a time.
template <class F>
inline void multiply_panel(const float* a, int64_t stride, int64_t rows, const float* panel, int64_t depth,
                           const F& tile) {
  for_each_tile(rows, [&](auto size, int64_t row) {
    Vec acc[size()][kTileVecs];
    multiply<size()>(a + row * stride, stride, panel, depth, acc);
    tile(row, acc);
  });
}

// The rows of a panel, each to be multiplied by a factor of its own where there are factors.
struct PanelRows {
  FloatRows rows;
  int64_t n, depth;
  const double* factor = nullptr;
};

// Panel p of a matrix; scratch holds a panel, unless the matrix is fp32.
inline PanelRows panel_rows(const Matrix& m, int64_t p, float* scratch) {
  const int64_t begin = p * kPanel, n = min(kPanel, m.rows - begin);
  return {float_rows(m, begin, n, scratch), n, m.cols};
}

// x[k] = entry k0 + k of the rows j0 to j0 + 15; zeros past the last row and column.
inline void load_columns(const PanelRows& p, int64_t j0, int64_t k0, Vec (&x)[kLanes]) {
  const int64_t n = min(kLanes, p.n - j0), width = min(kLanes, p.depth - k0);
  const float* const from = p.rows.data + j0 * p.rows.stride + k0;
  if (n == kLanes && width == kLanes && !p.factor) return transpose(from, p.rows.stride, x);
  if (n <= 0) {
    for (Vec& column : x) column = set1(0.0f);
    return;
  }
  float block[kLanes * kLanes] = {};
  for (int64_t j = 0; j < n; ++j) {
    const float* const row = from + j * p.rows.stride;
    const Vec y = width < kLanes ? load_first(row, width, 0.0f) : load(row);
    store(block + j * kLanes, p.factor ? times(y, p.factor[j0 + j]) : y);
  }
  transpose(block, kLanes, x);
}

// The panel's columns, its k in the order of place(k); stores zeros up to a multiple of sixteen where `padded`.
template <class F>
inline void pack_columns(const PanelRows& p, bool padded, const F& place, float* out) {
  for (int64_t j0 = 0; j0 < kPanel; j0 += kLanes)
    for (int64_t k0 = 0; k0 < p.depth; k0 += kLanes) {
      Vec x[kLanes];
      load_columns(p, j0, k0, x);
      const int64_t n = padded ? kLanes : min(kLanes, p.depth - k0);
      for (int64_t k = 0; k < n; ++k) store(out + place(k0 + k) * kPanel + j0, x[k]);
    }
}

// A matrix as panels of `depth` numbers a column.
class Panels {
 public:
  // pack(rows of panel p, p, where it is to be)
  template <class F>
  Panels(const Matrix& m, int64_t depth, const F& pack)
      : cols(m.rows), depth(depth), data_(panels(m.rows) * kPanel * depth) {
    parallel_tasks(panels(cols), [&](int64_t p) {
      const Buffer<float> scratch(m.dtype == Dtype::kFloat ? 0 : kPanel * m.cols);
      pack(panel_rows(m, p, scratch), p, data_ + p * kPanel * depth);
    });
  }
  const float* panel(int64_t p) const { return data_ + p * kPanel * depth; }

  const int64_t cols, depth;

 private:
  Buffer<float> data_;
};

// A matrix as panels k by k, each row multiplied by a factor of its own on the way.
struct Packed : Panels {
  // scale(i, values of row i as fp32) -> the factor (double)
  template <class F>
  Packed(const Matrix& m, const F& scale)
      : Panels(m, m.cols, [&](PanelRows rows, int64_t p, float* out) {
          double factor[kPanel];
          for (int64_t j = 0; j < rows.n; ++j) factor[j] = scale(p * kPanel + j, rows.rows.data + j * rows.rows.stride);
          rows.factor = factor;
          pack_columns(rows, false, [](int64_t k) { return k; }, out);
        }) {}
};

// Rows per block: as many as keep their features and scores in a 512 KiB L2, a multiple of the tile, and no more than
// leave every thread its share of n.
inline int64_t block_rows(int64_t n, int64_t depth, int64_t width) {
  const int64_t low = 4 * kTileRows, high = 16 * kTileRows;  // under 4 tiles a panel is used too little
  int64_t rows = (320 << 10) / (4 * (depth + width)) / kTileRows * kTileRows;
  rows = min(max(rows, low), high);
  const int64_t share = max(1, (n + thread_count() - 1) / thread_count());
  return min(rows, (share + kTileRows - 1) / kTileRows * kTileRows);
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
