// similarity: the cosine similarities of images and classes, the very scores that similarity_confidence consumes.
#pragma once
#include "similarity_confidence.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

template <class Block>
inline void similarity_of_blocks(const Matrix& image, const Matrix& text, bool normalize, float* out) {
  want_large_pages(out, int64_t(sizeof(float)) * image.rows * text.rows);
  const int64_t n = image.rows, classes = text.rows, tile = min(classes, kClassTile), width = panels(tile) * kPanel;
  const auto write = [&](const auto& s, int64_t i, int64_t row, int64_t first, int64_t m) {
    const float* const from = s.scores + i * width;
    float* const to = out + row * classes + first;
    for (int64_t j = 0; j < m; ++j) to[j] = from[j] * s.scale[i];
  };
  if (classes == tile && are_few_rows(n, classes)) {
    const typename Block::FewRows s(image, normalize, width);
    s.multiply(text, normalize);
    for (int64_t i = 0; i < n; ++i) write(s, i, i, 0, classes);
    return;
  }
  const typename Block::Text packed(text, normalize);
  const int64_t rows = Block::rows(n, image.cols, width);
  parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
    const int64_t begin = task * rows, count = min(rows, n - begin);
    Block s(image, packed, normalize, rows, width);
    s.load(begin, count);
    for (int64_t c = 0; c < classes; c += tile) {
      const int64_t m = min(tile, classes - c);
      s.multiply(c / kPanel, c / kPanel + panels(m));
      for (int64_t i = 0; i < count; ++i) write(s, i, begin + i, c, m);
    }
  });
}

// out: (image.rows, text.rows)
inline void similarity(const Matrix& image, const Matrix& text, bool normalize, float* out) {
  with_block({&image, &text}, normalize,
             [&]<class Block>(Block*) { similarity_of_blocks<Block>(image, text, normalize, out); });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
