// The matrix product under similarity_confidence, contrast and knn. Ours rather than BLAS for three reasons: the
// consumer runs on a tile while it is in cache (or in registers), every element is one chain of fused multiply-adds
// over k, so its bits do not depend on which rows share its batch or on the number of threads, and it is faster than
// MKL on the processors that it was measured on.
//
// Operands: `a` rows are read where they lie; `b` is packed once, 16 or 32 columns to a panel, k by k.
#pragma once
#include "rows.h"

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

// Calls tile(row, acc) for the rows [0, rows) of a against one panel, kTileRows at a time; what is left over goes
// through the same arithmetic in smaller tiles.
template <class F>
inline void multiply_panel(const float* a, int64_t stride, int64_t rows, const float* panel, int64_t depth,
                           const F& tile) {
  const auto run = [&](auto size, int64_t row) {
    Vec acc[size()][kTileVecs];
    multiply<size()>(a + row * stride, stride, panel, depth, acc);
    tile(row, acc);
  };
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) run(std::integral_constant<int64_t, kTileRows>(), row);
  for (; row + 2 <= rows; row += 2) run(std::integral_constant<int64_t, 2>(), row);
  for (; row < rows; ++row) run(std::integral_constant<int64_t, 1>(), row);
}

// A matrix as panels, each row multiplied by a factor of its own on the way.
class Packed {
 public:
  // scale(i, values of row i as fp32) -> the factor (double)
  template <class F>
  Packed(const Matrix& m, const F& scale) : cols(m.rows), depth(m.cols), data_(panels(m.rows) * kPanel * m.cols) {
    parallel_tasks(panels(cols), [&](int64_t p) { pack(m, p, scale); });
  }
  const float* panel(int64_t p) const { return data_ + p * kPanel * depth; }

  const int64_t cols, depth;

 private:
  template <class F>
  void pack(const Matrix& m, int64_t p, const F& scale) {
    const int64_t begin = p * kPanel, n = min(kPanel, cols - begin);
    Buffer<float> scratch(n * depth);
    const FloatRows rows = float_rows(m, begin, n, scratch);
    double factor[kPanel];
    for (int64_t j = 0; j < n; ++j) factor[j] = scale(begin + j, rows.data + j * rows.stride);
    float* out = data_ + p * kPanel * depth;
    constexpr int64_t kBlock = 64;  // of k: what is written stays in L1 between columns
    for (int64_t k0 = 0; k0 < depth; k0 += kBlock) {
      const int64_t k1 = min(k0 + kBlock, depth);
      for (int64_t j = 0; j < kPanel; ++j) {
        const float* row = rows.data + j * rows.stride;
        for (int64_t k = k0; k < k1; ++k) out[k * kPanel + j] = j < n ? float(row[k] * factor[j]) : 0.0f;
      }
    }
  }

  Buffer<float> data_;
};

// scores[i][c] = row i of a times column c of b, for n rows; scores rows are `width` apart, width a multiple of kPanel.
inline void multiply_block(FloatRows a, int64_t n, const Packed& b, int64_t first_panel, int64_t last_panel,
                           float* scores, int64_t width) {
  for (int64_t p = first_panel; p < last_panel; ++p)
    multiply_panel(a.data, a.stride, n, b.panel(p), b.depth, [&](int64_t row, auto& acc) {
      constexpr int64_t rows = sizeof(acc) / sizeof(acc[0]);
      float* out = scores + row * width + (p - first_panel) * kPanel;
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < rows; ++r) {
        PYFASTCAL_UNROLL
        for (int64_t v = 0; v < kTileVecs; ++v) store(out + r * width + v * kLanes, acc[r][v]);
      }
    });
}

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
