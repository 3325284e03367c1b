// similarity: the cosine similarities of images and classes, the very scores that similarity_confidence consumes.
#pragma once
#include "similarity_confidence.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

template <class Block>
inline void similarity_of_blocks(const Matrix& image, const Matrix& text, bool normalize, float* out) {
  want_large_pages(out, int64_t(sizeof(float)) * image.rows * text.rows);
  const typename Block::Text packed(text, normalize);
  const int64_t n = image.rows, classes = text.rows, tile = min(classes, kClassTile), width = panels(tile) * kPanel;
  const int64_t rows = Block::rows(n, image.cols, width);
  parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
    const int64_t begin = task * rows, count = min(rows, n - begin);
    Block s(image, packed, normalize, rows, width);
    s.load(begin, count);
    for (int64_t c = 0; c < classes; c += tile) {
      const int64_t m = min(tile, classes - c);
      s.multiply(c / kPanel, c / kPanel + panels(m));
      for (int64_t i = 0; i < count; ++i) {
        const float* row = s.scores + i * width;
        float* to = out + (begin + i) * classes + c;
        for (int64_t j = 0; j < m; ++j) to[j] = row[j] * s.scale[i];
      }
    }
  });
}

// out: (image.rows, text.rows)
inline void similarity(const Matrix& image, const Matrix& text, bool normalize, float* out) {
  with_block({&image, &text}, normalize,
             [&]<class Block>(Block*) { similarity_of_blocks<Block>(image, text, normalize, out); });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
