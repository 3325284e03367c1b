// The scores of few rows of bf16 numbers, as few_rows.h has those of fp32: class rows go into the product as they lie,
// with AMX as rows of tiles, images as their columns: the same products in the same order as in blocks.
#pragma once
#include "bf16_scores.h"
#include "few_rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_BF16)

class Bf16FewRows {
 public:
  Bf16FewRows(const Matrix& image, bool normalize, int64_t width)
      : width(width),
        scores(image.rows * width),
        scale(image.rows),
        n_(image.rows),
        depth_(whole_chunks(image.cols)),
        rows_(whole_tiles(n_) * depth_) {
    std::memset(rows_, 0, sizeof(BFloat16) * whole_tiles(n_) * depth_);
    const Buffer<float> scratch(image.cols);
    for (int64_t i = 0; i < n_; ++i)
      scale[i] = copy_bf16_row(image, i, normalize, scratch, [&](int64_t k) { return rows_ + i * depth_ + k; });
    if (kAmx) make_columns();
  }

  // Of all rows with the classes.
  void multiply(const Matrix& text, bool normalize) const {
    const int64_t count = panels(text.rows);
    const int64_t parts = max(1, min(count, class_parts(count * kPanel * depth_, kAmx ? 1 : n_) / 2));
    parallel_tasks(parts, [&](int64_t part) {
      const Tiles tiles;
      const Buffer<BFloat16> copy(kPanel * depth_);
      const Buffer<float> scratch(text.cols);
      for (int64_t p = count * part / parts; p < count * (part + 1) / parts; ++p) {
        float factor[kPanel];
        multiply(take(text, p, normalize, copy, scratch, factor), factor, scores + p * kPanel);
      }
    });
  }

  const int64_t width;
  Buffer<float> scores, scale;

 private:
  // Rows of a panel, all sixteen or thirty-two, in whole chunks.
  struct Classes {
    const BFloat16* data;
    int64_t stride, count;
  };

  static int64_t whole_tiles(int64_t n) { return kAmx ? (n + 15) / 16 * 16 : n; }

  // A panel's rows as they are where that can be, else a copy; factor: what scales products with each.
  Classes take(const Matrix& text, int64_t p, bool normalize, BFloat16* copy, float* scratch, float* factor) const {
    const int64_t begin = p * kPanel, n = min(kPanel, text.rows - begin);
    const Classes classes{static_cast<const BFloat16*>(text.data) + begin * text.stride, text.stride, kPanel};
    bool plain = n == kPanel && text.cols == depth_ && (kAmx || text.stride % 2 == 0);  // pairs of the others lie apart
    for (int64_t j = 0; j < kPanel && plain; ++j) {
      factor[j] = 1.0f;
      if (!normalize) continue;
      const float square = square_norm(classes.data + j * text.stride, depth_);
      plain = is_plain_square(square);
      factor[j] = 1.0f / std::sqrt(square);
    }
    if (plain) return classes;
    const int64_t count = whole_lanes(n);
    for (int64_t j = 0; j < count; ++j) {
      factor[j] = 1.0f;
      BFloat16* const row = copy + j * depth_;
      if (j < n)
        factor[j] = copy_bf16_row(text, begin + j, normalize, scratch, [=](int64_t k) { return row + k; });
      else
        std::memset(row, 0, sizeof(BFloat16) * depth_);
    }
    return {copy, depth_, count};
  }

  // Sixteen rows of sixteen pairs as columns.
  static void transpose_pairs(const BFloat16* rows, int64_t stride, Vec (&x)[kLanes]) {
    transpose(reinterpret_cast<const float*>(rows), stride / 2, x);
  }

#if defined(PYFASTCAL_AMX)
  // Sixteen images as the columns of a tile, for each of k's chunks.
  void make_columns() {
    Vec x[kLanes];
    for (int64_t i = 0; i < whole_tiles(n_); i += 16) {
      const Buffer<BFloat16> rows(16 * depth_);
      std::memcpy(rows, rows_ + i * depth_, sizeof(BFloat16) * 16 * depth_);
      for (int64_t k = 0; k < depth_; k += kChunk) {
        transpose_pairs(rows + k, depth_, x);
        for (int64_t pair = 0; pair < kLanes; ++pair)
          store(reinterpret_cast<float*>(rows_ + i * depth_ + 16 * k + pair * kChunk), x[pair]);
      }
    }
  }

  void multiply(const Classes& classes, const float* factor, float* out) const {
    alignas(64) float sums[kPanel * kLanes];
    const BFloat16 *upper = classes.data, *lower = upper + 16 * classes.stride;
    const bool both = classes.count == kPanel;
    asm volatile("" : : : "memory");
    for (int64_t i = 0; i < n_; i += 16) {
      const BFloat16* const columns = rows_ + i * depth_;
      _tile_zero(0);
      _tile_zero(1);
      for (int64_t k = 0; k < depth_; k += kChunk) {
        _tile_loadd(6, columns + 16 * k, 64);
        _tile_loadd(4, upper + k, 2 * classes.stride);
        _tile_dpbf16ps(0, 4, 6);
        if (!both) continue;
        _tile_loadd(5, lower + k, 2 * classes.stride);
        _tile_dpbf16ps(1, 5, 6);
      }
      _tile_stored(0, sums, 64);
      if (both) _tile_stored(1, sums + 16 * kLanes, 64);
      asm volatile("" : : : "memory");
      for (int64_t j = 0; j < classes.count; j += kLanes) {
        Vec x[kLanes];
        transpose(sums + j * kLanes, kLanes, x);
        for (int64_t r = 0; r < min(16, n_ - i); ++r) store(out + (i + r) * width + j, x[r] * load(factor + j));
      }
    }
  }
#else
  void make_columns() {}

  void multiply(const Classes& classes, const float* factor, float* out) const {
    for (int64_t i = 0; i < n_; i += kMostRows)
      multiply_rows(rows_ + i * depth_, min(kMostRows, n_ - i), classes, factor, out + i * width);
  }
  static constexpr int64_t kMostRows = 8;  // at a time, whose sums fit in registers
  template <int64_t Rows = kMostRows>
  void multiply_rows(const BFloat16* rows, int64_t n, const Classes& classes, const float* factor, float* out) const {
    if constexpr (Rows > 1)
      if (n < Rows) return multiply_rows<Rows - 1>(rows, n, classes, factor, out);
    for (int64_t j = 0; j < classes.count; j += kLanes) {
      Vec acc[Rows], x[kLanes];
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < Rows; ++r) acc[r] = set1(0.0f);
      for (int64_t k = 0; k < depth_; k += kChunk) {
        transpose_pairs(classes.data + j * classes.stride + k, classes.stride, x);
        PYFASTCAL_UNROLL
        for (int64_t pair = 0; pair < kLanes; ++pair) {
          PYFASTCAL_UNROLL
          for (int64_t r = 0; r < Rows; ++r)
            acc[r] = dot(set1_pair(rows + r * depth_ + k + 2 * pair), as_pairs(x[pair]), acc[r]);
        }
      }
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < Rows; ++r) store(out + r * width + j, acc[r] * load(factor + j));
    }
  }
#endif

  static Vec load(const float* p) { return PYFASTCAL_VARIANT::load(p); }

  const int64_t n_, depth_;
  Buffer<BFloat16> rows_;
};

#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
