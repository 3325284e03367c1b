// The cosines of images and classes where the processor has tiles for 8-bit integers and one side at least is not bf16.
#pragma once
#include "limbs.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_AMX)

// Of a row's scale, what a column is multiplied by: their product of whole numbers is of 2^16, the row's over 2^22.
inline float limb_column_scale(double scale) { return float(scale * 0x1p-28); }

// Classes as columns, and the scale of each.
struct LimbText {
  LimbText(const Matrix& text, bool normalize)
      : scale(panels(text.rows) * kPanel), packed(panels(text.rows) * kPanel, text.cols) {
    parallel_tasks(limb_tiles(panels(text.rows) * kPanel), [&](int64_t t) {
      const int64_t first = t * kLimbTile, n = max(0, min(kLimbTile, text.rows - first));
      for (int64_t i = first; i < first + n; ++i) scale[i] = limb_column_scale(packed.store(text, i, normalize, i));
      for (int64_t i = first + n; i < first + kLimbTile; ++i) scale[i] = 0;
      transpose_tiles(packed.tile(t), 3 * packed.chunks);
    });
  }

  Buffer<float> scale;
  LimbRows packed;
};

class LimbFewRows;

// As ScoreBlock.
class LimbScoreBlock {
 public:
  using Text = LimbText;
  using FewRows = LimbFewRows;
  static constexpr bool kTakesDifferences = true;

  LimbScoreBlock(const Matrix& image, const Text& text, bool normalize, int64_t rows, int64_t width)
      : LimbScoreBlock(image, normalize, rows, width, &text) {}
  LimbScoreBlock(const Matrix& image, bool normalize, int64_t rows, int64_t width, const Text* text = nullptr)
      : width(width),
        scores(limb_tiles(rows) * kLimbTile * width),
        scale(rows),
        image_(image),
        text_(text),
        normalize_(normalize),
        rows_(rows, image.cols) {}

  void load(int64_t begin, int64_t n) {
    n_ = n;
    for (int64_t i = 0; i < n; ++i) scale[i] = float(rows_.store(image_, begin + i, normalize_, i));
  }

  void multiply(int64_t first, int64_t last) {
    const Tiles tiles;
    const bool streamed = limb_tiles(n_) * kLimbTile * width > kMostCachedScores;
    for (int64_t t = first * kPanel / kLimbTile; t < last * kPanel / kLimbTile; ++t) {
      const Vec factor = PYFASTCAL_VARIANT::load(text_->scale + t * kLimbTile);
      for (int64_t r = 0; r < limb_tiles(n_); ++r) {
        float* out = scores + r * kLimbTile * width + t * kLimbTile - first * kPanel;
        multiply_limbs(rows_.tile(r), text_->packed.tile(t), rows_.chunks, [&](int64_t i, Vec product) {
          const Vec score = product * factor;
          streamed ? _mm512_stream_ps(out + i * width, score.v) : store(out + i * width, score);
        });
      }
    }
  }

  // Rows per block, as block_rows.
  static int64_t rows(int64_t n, int64_t depth, int64_t width) {
    const int64_t fit = (1 << 20) / (3 * depth + 4 * width) / kLimbTile * kLimbTile;
    const int64_t share = max(1, (n + thread_count() - 1) / thread_count());
    // fewer, and what columns of L3 take is not made up for
    return min(min(max(fit, 16 * kLimbTile), 64 * kLimbTile), limb_tiles(share) * kLimbTile);
  }

  const int64_t width;
  Buffer<float> scores, scale;

 private:
  static constexpr int64_t kMostCachedScores = 1 << 18;  // 1 MiB, half an L2

  const Matrix& image_;
  const Text* const text_;
  const bool normalize_;

 protected:
  LimbRows rows_;
  int64_t n_ = 0;
};

// As FloatFewRows: sixteen classes at a time become limbs in a buffer that stays in L1, are multiplied by all rows and
// forgotten; threads share the classes. Rows are the columns here, which changes no bit.
class LimbFewRows : public LimbScoreBlock {
 public:
  LimbFewRows(const Matrix& image, bool normalize, int64_t width)
      : LimbScoreBlock(image, normalize, image.rows, width) {
    load(0, image.rows);
    transpose_tiles(rows_.tile(0), limb_tiles(n_) * 3 * rows_.chunks);
  }
  void multiply(const Matrix& text, bool normalize) const {
    const int64_t count = limb_tiles(text.rows);
    // a part takes 10 microseconds or more: less is not worth another thread
    const int64_t parts = max(1, min(count, count * text.cols * (n_ + 32) >> 18));
    parallel_tasks(parts, [&](int64_t part) {
      const Tiles tiles;
      const LimbRows classes(kLimbTile, text.cols);
      for (int64_t t = count * part / parts; t < count * (part + 1) / parts; ++t) {
        float factor[kLimbTile] = {};
        for (int64_t i = 0; i < min(kLimbTile, text.rows - t * kLimbTile); ++i)
          factor[i] = limb_column_scale(classes.store(text, t * kLimbTile + i, normalize, i));
        for (int64_t r = 0; r < limb_tiles(n_); ++r) {
          alignas(64) float products[kLimbTile * kLanes];
          multiply_limbs(classes.tile(0), rows_.tile(r), rows_.chunks,
                         [&](int64_t i, Vec product) { store(products + i * kLanes, product * set1(factor[i])); });
          Vec score[kLimbTile];
          transpose(products, kLanes, score);
          float* out = scores + r * kLimbTile * width + t * kLimbTile;
          for (int64_t i = 0; i < min(kLimbTile, n_ - r * kLimbTile); ++i) store(out + i * width, score[i]);
        }
      }
    });
  }
};

#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
