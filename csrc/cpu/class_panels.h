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

// Classes, packed, and what scales their products.
struct FloatText {
  FloatText(const Matrix& text, bool normalize)
      : scale(panels(text.rows) * kPanel),
        packed(text, chained_depth(text.cols), [&](const PanelRows& rows, int64_t p, float* out) {
          pack_with_lengths(rows, normalize, scale + p * kPanel, out);
        }) {}

  Buffer<float> scale;
  Panels packed;
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT
