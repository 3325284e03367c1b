// What the filter of knn multiplies, and how far its scores may be off: copies in bf16 where the processor multiplies
// those faster, whatever the input is, or whole numbers of 16 bits (knn_filter_limbs.h), else fp32.
//
// A score is q.x - h, where x = b / |b| or, without normalize, x = b, and h is |x|^2 / 2 without normalize and 0 with
// it. With u = 2^-24, L the length of the query as it is in the product, X the largest |x|, r and R the query's and the
// bank's largest relative rounding error of a copy (measured; 0 of fp32), it is off by no more than the sum of
//   - the copies: (r + R + r R) L X;
//   - the dot product of D' terms, D' the number of roundings on a path: gamma (1 + r) (1 + R) L X with
//     gamma = D' u / (1 - D' u) (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), whatever the
//     order of the additions;
//   - the squared norm, h or what the score is divided by, and the roundings of both: gamma X^2, or gamma L X with
//     normalize (half of that, and a few roundings more);
//   - denormals that bf16 instructions take for zero: products, sums and the copies' own, 2^-126 each, times |b|'s
//     inverse with normalize.
// The slack is twice that, so that no true neighbour is lost, and a hundredth for the products of small numbers.
#pragma once
#include "bf16.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Bank rows outside are not judged by score.
inline constexpr float kSmallestSquare = 1e-30f, kLargestSquare = 1e30f;
// With normalize a row shorter than 1e-12 is divided by that, so that its length is not 1.
inline float smallest_square(bool normalize) { return normalize ? 1.001e-24f : kSmallestSquare; }

struct FilterQuery {
  double norm, length, residual;  // length, residual: L and r

  bool judged_by_score(bool normalize) const { return normalize ? norm < double(kInfinity) : in_float_range(norm); }

  // Takes the query's facts; returns what it is multiplied by. Not judged by score: 0, kept out of the products.
  double take(const Matrix& queries, const float* row, bool normalize) {
    norm = PYFASTCAL_VARIANT::norm(row, queries.cols);
    residual = 0;
    double scale = judged_by_score(normalize) ? normalize ? inverse_norm(norm) : 1.0 : 0.0;
    // bf16 stays exact times a power of two, and the order of scores does not hang on the query's length
    if (kBf16Products && normalize && queries.dtype == Dtype::kBFloat16 && scale)
      scale = std::ldexp(1.0, std::ilogb(scale));
    length = norm * scale;
    return scale;
  }
};

}  // namespace pyfastcal::PYFASTCAL_VARIANT

#include "knn_filter_limbs.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_BF16)

inline double relative_residual(const Rounded& z) {
  return z.square > 1e-15f ? 1.01 * std::sqrt(double(z.lost) / z.square) : 0x1p-8;  // squares of less may have vanished
}

struct Bf16Filter {
  // Queries as columns.
  class Queries {
   public:
    Queries(const Matrix& m, bool normalize) : facts(m.rows), packed_(m.rows, m.cols) {
      packed_.fill([&](int64_t i, BFloat16* out, float* scratch) {
        float* const scaled = scratch + m.cols;
        const float* row = float_rows(m, i, 1, scratch).data;
        const double scale = facts[i].take(m, row, normalize);
        for (int64_t k = 0; k < m.cols; ++k) scaled[k] = scale ? float(row[k] * scale) : 0.0f;
        const Rounded z = round_row<float>(scaled, m.cols, [=](int64_t k) { return out + k; });
        facts[i].residual = relative_residual(z);
      });
    }
    const Pair* panel(int64_t p) const { return packed_.panel(p); }
    int64_t roundings() const { return packed_.depth + 2; }

    Buffer<FilterQuery> facts;

   private:
    Bf16Packed packed_;
  };

  // Bank rows, a block at a time.
  class Rows {
   public:
    static constexpr int64_t kRows = kAmx ? 128 : 4 * kTileRows;
    explicit Rows(const Matrix& bank) : bank_(bank), rows_(kRows, bank.cols) {}

    // square[r], and the largest relative rounding error of those within range
    double load(int64_t row0, int64_t n, float* square) {
      double residual = 0;
      with_type(bank_, [&](auto* data) {
        for (int64_t r = 0; r < n; ++r) {
          const Rounded z =
              round_row(data + (row0 + r) * bank_.stride, bank_.cols, [&](int64_t k) { return rows_.chunk(r, k); });
          square[r] = z.square;
          if (z.square > kSmallestSquare && z.square < kLargestSquare)
            residual = std::fmax(residual, relative_residual(z));
        }
      });
      return residual;
    }
    template <class F>
    void multiply(int64_t n, const Queries& queries, int64_t p, const F& tile) const {
      multiply_panel(rows_, n, queries.panel(p), tile);
    }

   private:
    const Tiles tiles_;
    const Matrix& bank_;
    Bf16Rows rows_;
  };

  // Beside AMX half of an L2, so that a copy of a bank row serves many queries.
  static constexpr int64_t kOperandBytes = 2, kQueryBytes = kAmx ? 1 << 20 : 192 << 10, kQueryPanels = kAmx ? 32 : 16;
};

#else

struct FloatFilter {
  class Queries {
   public:
    Queries(const Matrix& m, bool normalize)
        : facts(m.rows),
          packed_(m, [&, normalize](int64_t i, const float* row) { return facts[i].take(m, row, normalize); }) {}
    const float* panel(int64_t p) const { return packed_.panel(p); }
    int64_t roundings() const { return packed_.depth + 8; }

    Buffer<FilterQuery> facts;

   private:
    const Packed packed_;
  };

  class Rows {
   public:
    static constexpr int64_t kRows = 4 * kTileRows;
    explicit Rows(const Matrix& bank) : bank_(bank), scratch_(kRows * bank.cols) {}

    double load(int64_t row0, int64_t n, float* square) {
      rows_ = float_rows(bank_, row0, n, scratch_);
      for (int64_t r = 0; r < n; ++r) square[r] = square_norm(rows_.data + r * rows_.stride, bank_.cols);
      return 0;
    }
    template <class F>
    void multiply(int64_t n, const Queries& queries, int64_t p, const F& tile) const {
      multiply_panel(rows_.data, rows_.stride, n, queries.panel(p), bank_.cols, tile);
    }

   private:
    const Matrix& bank_;
    Buffer<float> scratch_;
    FloatRows rows_{};
  };

  static constexpr int64_t kOperandBytes = 4, kQueryBytes = 192 << 10, kQueryPanels = 16;
};

#endif

// largest, residual: X (without normalize) and R
inline float filter_slack(const FilterQuery& query, double largest, double residual, bool normalize,
                          int64_t roundings) {
  const double d = double(roundings) * 0x1p-24, gamma = d / (1 - d), r = query.residual;
  const double dot = normalize ? query.length : query.length * largest, square = normalize ? dot : largest * largest;
  const double flushed = kBf16Products ? 4.0 * double(roundings) * 0x1p-126 * (normalize ? 1e15 : 1.0) : 0.0;
  const double copies = r + residual + r * residual;
  return float(2.02 * (dot * (copies + gamma * (1 + r) * (1 + residual)) + square * gamma + flushed));
}

#if defined(PYFASTCAL_BF16)
using AnyFilter = Bf16Filter;  // for rows of every dtype and depth
#else
using AnyFilter = FloatFilter;
#endif

// f(a null pointer of the kind of filter for these matrices)
template <class F>
inline void with_filter([[maybe_unused]] const Matrix& a, [[maybe_unused]] const Matrix& b, const F& f) {
#if defined(PYFASTCAL_AMX)
  if ((a.dtype != Dtype::kBFloat16 || b.dtype != Dtype::kBFloat16) && a.cols <= kMostLimbDepth)
    return f(static_cast<LimbFilter*>(nullptr));
#endif
  f(static_cast<AnyFilter*>(nullptr));
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
