// similarity_confidence: cosine similarities and their confidence, a block of rows at a time: the block's scores
// stay in L2 between the product and the softmax, and nothing of size N x C is ever made.
#pragma once
#include "confidence.h"
#include "few_bf16_rows.h"
#include "limb_scores.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr int64_t kClassTile = 1 << 16;  // more classes than this are swept twice, tile by tile

class FloatFewRows;

// A block of image rows and their scores against panels of classes.
struct ScoreBlock {
  using Text = FloatText;
  using FewRows = FloatFewRows;                    // for all images at once, where they are few
  static constexpr bool kTakesDifferences = true;  // of classes, which fp32 holds

  ScoreBlock(const Matrix& image, const Text& text, bool normalize, int64_t rows, int64_t width)
      : ScoreBlock(image, normalize, rows, width, !text.few, &text) {}
  ScoreBlock(const Matrix& image, bool normalize, int64_t rows, int64_t width, bool ordered, const Text* text = nullptr)
      : width(width),
        scores(rows * width),
        scale(rows),
        image_(image),
        text_(text),
        scratch_(rows * image.cols),
        ordered_(ordered ? rows * chained_depth(image.cols) : 0),
        normalize_(normalize),
        is_ordered_(ordered) {}

  // Takes rows [begin, begin + n); scale[i] is what makes row i's scores cosines (1 without normalize).
  void load(int64_t begin, int64_t n) {
    n_ = n;
    rows_ = float_rows(image_, begin, n, scratch_);
    for (int64_t i = 0; i < n; ++i) scale[i] = normalize_ ? normalizer(i) : 1.0f;
    if (!is_ordered_) return;
    const int64_t depth = chained_depth(image_.cols);
    for (int64_t i = 0; i < n; ++i) order_chains(rows_.data + i * rows_.stride, image_.cols, ordered_ + i * depth);
    rows_ = {ordered_, depth};
  }

  // scores[i * width + j]: row i against class j of the panels [first, last)
  void multiply(int64_t first, int64_t last) {
    if (text_->few) return text_->multiply_few(rows_, n_, image_.cols, scores, width);
    for (int64_t p = first; p < last; ++p)
      store_products(rows_.data, n_, text_->packed.panel(p), text_->packed.depth, text_->scale + p * kPanel,
                     scores + (p - first) * kPanel, width);
  }

  static int64_t rows(int64_t n, int64_t depth, int64_t width) { return block_rows(n, depth, width); }

  const int64_t width;
  Buffer<float> scores, scale;

 private:
  float normalizer(int64_t i) {
    const float* row = rows_.data + i * rows_.stride;
    const double length = norm(row, image_.cols), inverse = inverse_norm(length);
    if (in_float_range(length)) return float(inverse);
    // fp32 products with this row would overflow or vanish: normalise it now, in scratch, where it may be written
    if (rows_.data != scratch_) {
      for (int64_t j = 0; j < n_; ++j) convert(rows_.data + j * rows_.stride, image_.cols, scratch_ + j * image_.cols);
      rows_ = {scratch_, image_.cols};
    }
    float* out = scratch_ + i * image_.cols;
    for (int64_t k = 0; k < image_.cols; ++k) out[k] = float(out[k] * inverse);
    return 1.0f;
  }

  const Matrix& image_;
  const Text* const text_;
  Buffer<float> scratch_, ordered_;
  const bool normalize_, is_ordered_;

 protected:
  FloatRows rows_{};
  int64_t n_ = 0;
};

// All images where they are few: no classes are packed.
class FloatFewRows : public ScoreBlock {
 public:
  FloatFewRows(const Matrix& image, bool normalize, int64_t width)
      : ScoreBlock(image, normalize, image.rows, width, image.rows > kMostDotRows) {
    load(0, image.rows);
  }
  void multiply(const Matrix& text, bool normalize) const {
    for_each_panel(text, n_, [&](const PanelRows& panel, int64_t p, float* packed) {
      store_panel_products(rows_, n_, panel, normalize, packed, scores + p * kPanel, width);
    });
  }
};

// f(a null pointer of the kind of block that multiplies these matrices)
template <class F>
inline void with_block([[maybe_unused]] std::initializer_list<const Matrix*> matrices, [[maybe_unused]] bool normalize,
                       const F& f) {
#if defined(PYFASTCAL_BF16)
  bool bf16 = true;
  for (const Matrix* m : matrices) bf16 &= m->dtype == Dtype::kBFloat16;
  if (bf16) return f(static_cast<Bf16ScoreBlock*>(nullptr));
#endif
#if defined(PYFASTCAL_AMX)
  bool limbs = normalize;
  for (const Matrix* m : matrices) limbs &= m->cols >= kLeastLimbDepth && m->cols <= kMostLimbDepth;
  if (limbs) return f(static_cast<LimbScoreBlock*>(nullptr));
#endif
  f(static_cast<ScoreBlock*>(nullptr));
}

// Scores of `classes` classes, in whole panels; the rows of many classes lie an odd number of cache lines apart, or too
// many of a column would share a set of the cache.
inline int64_t row_width(int64_t classes) { return panels(classes) * kPanel + (classes > 4096 ? kLanes : 0); }

inline void add_bias(float* row, int64_t n, float scale, const float* bias) {
  for (int64_t c = 0; c < n; ++c) row[c] = row[c] * scale + bias[c];
}

template <class Block>
inline void confidence_of_blocks(const Matrix& image, const Matrix& text, float logit_scale, const float* bias,
                                 const Factors& factors, bool normalize, float* confidence, int64_t* prediction) {
  const int64_t n = image.rows, classes = text.rows, tile = min(classes, kClassTile);
  const int64_t width = row_width(tile), step = panels(tile);
  // logits = scale * score, or already in place where a bias had to be added
  const auto finish = [&](const auto& s, int64_t i, int64_t first_class, int64_t m) {
    const float scale = logit_scale * s.scale[i];
    if (!bias) return scale;
    add_bias(s.scores + i * width, m, scale, bias + first_class);
    return 1.0f;
  };
  const auto whole_row = [&](const auto& s, int64_t i, int64_t begin) {
    const float scale = finish(s, i, 0, classes);
    row_confidence(s.scores + i * width, classes, scale, factors, begin + i, static_cast<float*>(nullptr),
                   confidence[begin + i], prediction[begin + i]);
  };
  if (classes == tile && are_few_rows(n, classes)) {
    const typename Block::FewRows s(image, normalize, width);
    s.multiply(text, normalize);
    return for_each_row(n, width, [&](int64_t i) { whole_row(s, i, 0); });
  }
  const typename Block::Text packed(text, normalize);
  const int64_t rows = Block::rows(n, image.cols, width);
  parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
    const int64_t begin = task * rows, count = min(rows, n - begin);
    Block s(image, packed, normalize, rows, width);
    s.load(begin, count);
    if (classes == tile) {
      s.multiply(0, step);
      for (int64_t i = 0; i < count; ++i) whole_row(s, i, begin);
      return;
    }
    // The factor is known only when the maximum is: find it in a first sweep, add the exponentials in a second.
    Buffer<Peak> peak(count);
    Buffer<double> sum(count);
    for (int64_t i = 0; i < count; ++i) peak[i] = {-kInfinity, kInfinity, 0}, sum[i] = 0;
    for (int sweep = 0; sweep < 2; ++sweep)
      for (int64_t c = 0; c < classes; c += tile) {
        const int64_t m = min(tile, classes - c);
        s.multiply(c / kPanel, c / kPanel + panels(m));
        for (int64_t i = 0; i < count; ++i) {
          float* row = s.scores + i * width;
          float scale = finish(s, i, c, m);
          if (sweep == 0) {
            const Peak here = find_peak(row, m);
            if (here.max > peak[i].max) peak[i].max = here.max, peak[i].index = c + here.index;
            if (!(here.max < kInfinity)) sum[i] = kNaN;
          } else {
            if (factors.class_weight) scale *= factors.class_weight[peak[i].index];
            if (factors.sample_weight) scale *= factors.sample_weight[begin + i];
            sum[i] +=
                sum_relative_powers(row, m, peak[i].max, -kInfinity, scale * kLog2E, static_cast<float*>(nullptr));
          }
        }
      }
    for (int64_t i = 0; i < count; ++i) {
      confidence[begin + i] = float(1.0 / sum[i]);
      prediction[begin + i] = peak[i].index;
    }
  });
}

inline void similarity_confidence(const Matrix& image, const Matrix& text, float logit_scale, const float* bias,
                                  const Factors& factors, bool normalize, float* confidence, int64_t* prediction) {
  with_block({&image, &text}, normalize, [&]<class Block>(Block*) {
    confidence_of_blocks<Block>(image, text, logit_scale, bias, factors, normalize, confidence, prediction);
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
