// The scores of images against classes where both are bf16 numbers and the processor multiplies those: the features go
// into the product as they are, and what scales them is multiplied in afterwards, in fp32. Only rows that are
// normalised and whose products would overflow or vanish are multiplied by a power of two before, which changes no
// digit.
#pragma once
#include "bf16.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_BF16)

inline float square_norm(const BFloat16* row, int64_t n) {
  const auto pairs = [=](int64_t k) { return load_pairs(reinterpret_cast<const Pair*>(row + k)); };
  Vec sum[2] = {set1(0.0f), set1(0.0f)};
  int64_t k = 0;
  for (; k + 2 * kChunk <= n; k += 2 * kChunk)
    for (int64_t j = 0; j < 2; ++j) sum[j] = dot(pairs(k + j * kChunk), pairs(k + j * kChunk), sum[j]);
  for (; k < n; k += kChunk) {
    Pair rest[kLanes] = {};
    std::memcpy(rest, row + k, sizeof(BFloat16) * min(kChunk, n - k));
    sum[0] = dot(load_pairs(rest), load_pairs(rest), sum[0]);
  }
  return reduce_add(sum[0] + sum[1]);
}

// Writes row i in chunks. Returns what makes products with it those of the row itself or, with normalize, of the row of
// length 1; scratch holds `cols` numbers.
template <class F>
inline float copy_bf16_row(const Matrix& m, int64_t i, bool normalize, float* scratch, const F& chunk) {
  const BFloat16* row = static_cast<const BFloat16*>(m.data) + i * m.stride;
  float scale = 1.0f;
  if (const float square = normalize ? square_norm(row, m.cols) : 1.0f; is_plain_square(square)) {
    scale = 1.0f / std::sqrt(square);
  } else {
    convert(row, m.cols, scratch);
    const double length = norm(scratch, m.cols), inverse = inverse_norm(length);
    if (!in_float_range(length) && length < double(kInfinity)) {
      const double power = std::ldexp(1.0, -std::ilogb(length));
      for (int64_t k = 0; k < m.cols; ++k) scratch[k] = float(scratch[k] * power);
      round_row(static_cast<const float*>(scratch), m.cols, chunk);
      return float(inverse / power);
    }
    scale = float(inverse);
  }
  for (int64_t k = 0; k < m.cols; k += kChunk) copy_chunk(row + k, min(kChunk, m.cols - k), chunk(k));
  return scale;
}

// Classes, packed, and the scale of each.
struct Bf16Text {
  Bf16Text(const Matrix& text, bool normalize) : scale(panels(text.rows) * kPanel), packed(text.rows, text.cols) {
    packed.fill([&](int64_t i, BFloat16* row, float* scratch) {
      scale[i] = copy_bf16_row(text, i, normalize, scratch, [=](int64_t k) { return row + k; });
    });
    for (int64_t i = text.rows; i < panels(text.rows) * kPanel; ++i) scale[i] = 0;
  }

  Buffer<float> scale;
  Bf16Packed packed;
};

class Bf16FewRows;

// As ScoreBlock.
class Bf16ScoreBlock {
 public:
  using Text = Bf16Text;
  using FewRows = Bf16FewRows;
  static constexpr bool kTakesDifferences = false;

  Bf16ScoreBlock(const Matrix& image, const Text& text, bool normalize, int64_t rows, int64_t width)
      : width(width),
        scores(rows * width),
        scale(rows),
        image_(image),
        text_(text),
        normalize_(normalize),
        rows_(rows, image.cols),
        scratch_(image.cols) {}

  void load(int64_t begin, int64_t n) {
    n_ = n;
    for (int64_t i = 0; i < n; ++i)
      scale[i] = copy_bf16_row(image_, begin + i, normalize_, scratch_, [&](int64_t k) { return rows_.chunk(i, k); });
  }

  void multiply(int64_t first, int64_t last) {
    const Tiles tiles;
    for (int64_t p = first; p < last; ++p) {
      Vec factor[kTileVecs];
      for (int64_t v = 0; v < kTileVecs; ++v) factor[v] = load(text_.scale + p * kPanel + v * kLanes);
      multiply_panel(rows_, n_, text_.packed.panel(p), [&](int64_t row, auto& acc) {
        constexpr int64_t n = sizeof(acc) / sizeof(acc[0]);
        float* out = scores + row * width + (p - first) * kPanel;
        PYFASTCAL_UNROLL
        for (int64_t r = 0; r < n; ++r) {
          PYFASTCAL_UNROLL
          for (int64_t v = 0; v < kTileVecs; ++v) store(out + r * width + v * kLanes, acc[r][v] * factor[v]);
        }
      });
    }
  }

  // Rows per block, as block_rows. A panel should serve many beside AMX, which multiplies faster than L2 is read.
  static int64_t rows(int64_t n, int64_t depth, int64_t width) {
    if (!kAmx) return block_rows(n, depth, width);
    constexpr int64_t kStep = Bf16Rows::kStep;
    const int64_t fit = (640 << 10) / (2 * depth + 4 * width) / kStep * kStep;
    const int64_t share = max(1, (n + thread_count() - 1) / thread_count());
    return min(min(max(fit, 2 * kStep), 8 * kStep), (share + kStep - 1) / kStep * kStep);
  }

  const int64_t width;
  Buffer<float> scores, scale;

 private:
  static Vec load(const float* p) { return PYFASTCAL_VARIANT::load(p); }

  const Matrix& image_;
  const Text& text_;
  const bool normalize_;
  Bf16Rows rows_;
  Buffer<float> scratch_;
  int64_t n_ = 0;
};

#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
