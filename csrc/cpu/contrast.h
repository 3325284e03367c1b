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
template <class Text>
inline Text pack_difference(const Matrix& text, const Matrix& text0, bool normalize, float* difference) {
  const int64_t d = text.cols;
  parallel_tasks(text.rows, [&](int64_t c) {
    Buffer<float> scratch(2 * d);
    const float *a = float_rows(text, c, 1, scratch).data, *b = float_rows(text0, c, 1, scratch + d).data;
    const double scale_a = normalize ? inverse_norm(norm(a, d)) : 1.0,
                 scale_b = normalize ? inverse_norm(norm(b, d)) : 1.0;
    for (int64_t k = 0; k < d; ++k) difference[c * d + k] = float(a[k] * scale_a - b[k] * scale_b);
  });
  return Text(Matrix{difference, Dtype::kFloat, text.rows, d, d}, false);
}

template <class Block>
inline void contrast_of_blocks(const Matrix& image, const Matrix& text, const Matrix& image0, const Matrix& text0,
                               bool probability, float logit_scale, bool normalize, float* z) {
  using Text = typename Block::Text;
  const bool one_product = Block::kTakesDifferences && !probability && same_rows(image, image0);
  Buffer<float> difference(one_product ? text.rows * text.cols : 0);
  const Text tuned = [&] {
    if constexpr (Block::kTakesDifferences)
      if (one_product) return pack_difference<Text>(text, text0, normalize, difference);
    return Text(text, normalize);
  }();
  std::optional<Text> zeroshot;
  if (!one_product) zeroshot.emplace(text0, normalize);
  const int64_t n = image.rows, classes = text.rows;
  // Probabilities need the whole row; similarities are summed tile by tile, so that any number of classes fits.
  const int64_t tile = probability ? classes : min(classes, 4096), width = panels(tile) * kPanel;
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
        float *a = s.scores + i * width, *b = s0 ? s0->scores + i * width : a;
        float scale_a = s.scale[i], scale_b = s0 ? s0->scale[i] : 0.0f;
        if (probability) {
          softmax(a, m, logit_scale * scale_a);
          softmax(b, m, logit_scale * scale_b);
          scale_a = scale_b = 1.0f;
        }
        sum[i] += sum_abs_difference(a, scale_a, b, scale_b, m);
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
