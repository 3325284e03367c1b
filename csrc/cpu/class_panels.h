// Classes in the product as they are: one pass over their rows packs or multiplies them and measures their lengths,
// which scale the products afterwards.
#pragma once
#include "dots.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// scale[j]: what makes products with row j of the panel those with the row of length 1, or all 1 without normalize.
// multiply(panel, square) packs or multiplies the rows and, unless square is null, says what their squared lengths are;
// once more where a row's length is none that scales products: such a row is normalised before.
template <class F>
inline void with_lengths(PanelRows panel, bool normalize, float* scale, const F& multiply) {
  float square[kPanel];
  multiply(panel, normalize ? static_cast<float*>(square) : nullptr);
  bool plain = true;
  for (int64_t j = 0; j < kPanel; ++j) {
    const bool scaled = normalize && j < panel.n && is_plain_square(square[j]);
    scale[j] = scaled ? 1.0f / std::sqrt(square[j]) : 1.0f;
    plain &= scaled || j >= panel.n;
  }
  if (plain || !normalize) return;
  const Buffer<float> rows(panel.n * panel.depth);
  for (int64_t j = 0; j < panel.n; ++j) {
    float* const row = rows + j * panel.depth;
    convert(panel.rows.data + j * panel.rows.stride, panel.depth, row);
    if (is_plain_square(square[j])) continue;
    const double inverse = inverse_norm(norm(row, panel.depth));
    for (int64_t k = 0; k < panel.depth; ++k) row[k] = float(row[k] * inverse);
  }
  panel.rows = {rows, panel.depth};
  multiply(panel, nullptr);
}

// The panel in the order of chains.
inline void pack_with_lengths(const PanelRows& panel, bool normalize, float* scale, float* out) {
  with_lengths(panel, normalize, scale, [&](const PanelRows& p, float* square) {
    pack_chains(p, out);
    if (square) store_squares(p, square);
  });
}

// Classes, packed, and what scales their products. Of few classes a panel would be mostly empty: they stay rows.
struct FloatText {
  static constexpr int64_t kFew = kPanel / 2;

  FloatText(const Matrix& text, bool normalize)
      : classes(text.rows),
        few(classes <= kFew),
        scale(panels(text.rows) * kPanel),
        packed(few ? Matrix{text.data, text.dtype, 0, text.cols, text.stride} : text, chained_depth(text.cols),
               [&](const PanelRows& rows, int64_t p, float* out) {
                 pack_with_lengths(rows, normalize, scale + p * kPanel, out);
               }),
        rows_(few ? text.rows * text.cols : 0) {
    if (!few) return;
    const Buffer<float> scratch(text.dtype == Dtype::kFloat ? 0 : text.rows * text.cols);
    with_lengths(panel_rows(text, 0, scratch), normalize, scale, [&](const PanelRows& p, float* square) {
      for (int64_t j = 0; j < p.n; ++j) convert(from_row(p.rows, j).data, p.depth, rows_ + j * p.depth);
      if (square) store_squares(p, square);
    });
  }
  // scores[i * width + j]: image i against class j, where there are few
  void multiply_few(FloatRows images, int64_t n, int64_t depth, float* scores, int64_t width) const {
    float dots[kFew * kPanel];
    for (int64_t i0 = 0; i0 < n; i0 += kPanel) {
      const PanelRows panel{from_row(images, i0), min(kPanel, n - i0), depth};
      store_panel_dots({rows_, depth}, classes, panel, nullptr, dots, kPanel);
      for (int64_t i = 0; i < panel.n; ++i)
        for (int64_t j = 0; j < classes; ++j) scores[(i0 + i) * width + j] = dots[j * kPanel + i] * scale[j];
    }
  }

  const int64_t classes;
  const bool few;
  Buffer<float> scale;
  Panels packed;

 private:
  Buffer<float> rows_;
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
