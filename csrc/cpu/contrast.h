// contrast: the mean absolute difference of a row between the tuned and the zero-shot CLIP (CAC's z).
#pragma once
#include <optional>

#include "similarity_confidence.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline float sum_abs_difference(const float* a, float scale_a, const float* b, float scale_b, int64_t n) {
  const Vec sa = set1(scale_a), sb = set1(scale_b);
  Vec sum = set1(0.0f);
  for (int64_t c = 0; c < n; c += kLanes) {
    const bool tail = n - c < kLanes;
    const Vec x = tail ? load_first(a + c, n - c, 0.0f) : load(a + c),
              y = tail ? load_first(b + c, n - c, 0.0f) : load(b + c);
    sum = sum + abs(x * sa - y * sb);
  }
  return reduce_add(sum);
}

// Scores become the probabilities softmax(factor * row).
inline void softmax(float* row, int64_t n, float factor) {
  const Exp2 exp2;
  const Peak peak = find_peak(row, n);
  const Vec m = set1(peak.max), g = set1(factor * kLog2E), low = set1(kSmallestExponent);
  Vec sum = set1(0.0f);
  for (int64_t c = 0; c < n; c += kLanes) {
    const int64_t count = min(kLanes, n - c);
    Vec p = exp2(max(low, (load_first(row + c, count, peak.max) - m) * g));
    if (count < kLanes) p = keep_first(p, count);
    float buffer[kLanes];
    store(buffer, p);
    std::memcpy(row + c, buffer, sizeof(float) * count);
    sum = sum + p;
  }
  const float inverse = 1.0f / reduce_add(sum);
  for (int64_t c = 0; c < n; ++c) row[c] *= inverse;
}

// Whether both models see the same image features, as with learners that tune the text side alone.
inline bool same_rows(const Matrix& a, const Matrix& b) {
  return a.data == b.data && a.dtype == b.dtype && a.cols == b.cols && a.stride == b.stride;
}

// The classes as (normalised text - normalised zero-shot text): x.t - x.t0 = x.(t - t0), one product instead of two. Of
// bf16 the difference would be no bf16 number, so there are two, which are faster than one in fp32.
inline Matrix subtract(const Matrix& text, const Matrix& text0, bool normalize, float* difference) {
  const int64_t d = text.cols, parts = max(1, min(text.rows, class_parts(text.rows * d, 16)));
  parallel_tasks(parts, [&](int64_t part) {
    const Buffer<float> scratch(2 * d);
    for (int64_t c = text.rows * part / parts; c < text.rows * (part + 1) / parts; ++c) {
      const float *a = float_rows(text, c, 1, scratch).data, *b = float_rows(text0, c, 1, scratch + d).data;
      const double scale_a = normalize ? inverse_norm(norm(a, d)) : 1.0,
                   scale_b = normalize ? inverse_norm(norm(b, d)) : 1.0;
      for (int64_t k = 0; k < d; ++k) difference[c * d + k] = float(a[k] * scale_a - b[k] * scale_b);
    }
  });
  return {difference, Dtype::kFloat, text.rows, d, d};
}

// Probabilities need the whole row; similarities are summed tile by tile, so that any number of classes fits.
inline int64_t contrast_tile(int64_t classes, bool probability) { return probability ? classes : min(classes, 4096); }

struct ContrastRow {
  float *scores, scale;
};

// The sum of the absolute differences of m scores.
inline float sum_contrast(ContrastRow a, ContrastRow b, int64_t m, bool probability, float logit_scale) {
  if (probability) {
    softmax(a.scores, m, logit_scale * a.scale);
    softmax(b.scores, m, logit_scale * b.scale);
    a.scale = b.scale = 1.0f;
  }
  return sum_abs_difference(a.scores, a.scale, b.scores, b.scale, m);
}

// Of few images, as few_rows.h has their scores: no classes are packed. text0 is null where `text` is a difference.
template <class Rows>
inline void contrast_of_few(const Matrix& image, const Matrix& text, const Matrix& image0, const Matrix* text0,
                            bool probability, float logit_scale, bool normalize, float* z) {
  const int64_t classes = text.rows, tile = contrast_tile(classes, probability), width = row_width(classes);
  const Rows s(image, normalize, width);
  s.multiply(text, normalize && text0);
  std::optional<Rows> s0;
  if (text0) s0.emplace(image0, normalize, width).multiply(*text0, normalize);
  for_each_row(image.rows, width, [&](int64_t i) {
    double sum = 0;
    for (int64_t c = 0; c < classes; c += tile) {
      const ContrastRow a{s.scores + i * width + c, s.scale[i]},
          b = s0 ? ContrastRow{s0->scores + i * width + c, s0->scale[i]} : ContrastRow{a.scores, 0.0f};
      sum += sum_contrast(a, b, min(tile, classes - c), probability, logit_scale);
    }
    z[i] = float(sum / double(classes));
  });
}

template <class Block>
inline void contrast_of_blocks(const Matrix& image, const Matrix& text, const Matrix& image0, const Matrix& text0,
                               bool probability, float logit_scale, bool normalize, float* z) {
  using Text = typename Block::Text;
  const bool one_product = Block::kTakesDifferences && !probability && same_rows(image, image0);
  const Buffer<float> difference(one_product ? text.rows * text.cols : 0);
  const Matrix left = one_product ? subtract(text, text0, normalize, difference) : text;
  const int64_t n = image.rows, classes = text.rows;
  if (are_few_rows(n, classes))
    return contrast_of_few<typename Block::FewRows>(image, left, image0, one_product ? nullptr : &text0, probability,
                                                    logit_scale, normalize, z);
  const Text tuned(left, normalize && !one_product);
  std::optional<Text> zeroshot;
  if (!one_product) zeroshot.emplace(text0, normalize);
  const int64_t tile = contrast_tile(classes, probability), width = panels(tile) * kPanel;
  const int64_t rows = Block::rows(n, 2 * max(image.cols, image0.cols), 2 * width);
  parallel_tasks((n + rows - 1) / rows, [&](int64_t task) {
    const int64_t begin = task * rows, count = min(rows, n - begin);
    Block s(image, tuned, normalize, rows, width);
    std::optional<Block> s0;
    s.load(begin, count);
    if (zeroshot) s0.emplace(image0, *zeroshot, normalize, rows, width).load(begin, count);
    Buffer<double> sum(count);
    for (int64_t i = 0; i < count; ++i) sum[i] = 0;
    for (int64_t c = 0; c < classes; c += tile) {
      const int64_t m = min(tile, classes - c), last = c / kPanel + panels(m);
      s.multiply(c / kPanel, last);
      if (s0) s0->multiply(c / kPanel, last);
      for (int64_t i = 0; i < count; ++i) {
        const ContrastRow a{s.scores + i * width, s.scale[i]},
            b = s0 ? ContrastRow{s0->scores + i * width, s0->scale[i]} : ContrastRow{a.scores, 0.0f};
        sum[i] += sum_contrast(a, b, m, probability, logit_scale);
      }
    }
    for (int64_t i = 0; i < count; ++i) z[begin + i] = float(sum[i] / double(classes));
  });
}

inline void contrast_distance(const Matrix& image, const Matrix& text, const Matrix& image0, const Matrix& text0,
                              bool probability, float logit_scale, bool normalize, float* z) {
  with_block({&image, &text, &image0, &text0}, normalize, [&]<class Block>(Block*) {
    contrast_of_blocks<Block>(image, text, image0, text0, probability, logit_scale, normalize, z);
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
