// Rows of so many logits that no L1 holds them, in pieces: each piece's maximum is found and its powers are added while
// it is in cache, relative to that maximum, and the pieces are put together in their order. Threads share the pieces.
// What a piece is follows from the number of columns alone, so a row's bits do not depend on its batch or on threads.
#pragma once
#include "confidence_row.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Rows of more logits are taken in pieces; up to that they are read again out of L2.
inline constexpr int64_t kLongRow = 1 << 15;

inline int64_t pieces(int64_t cols) { return (cols + kPiece - 1) / kPiece; }

// f(i, p, begin of the piece, its length, whether the piece behind it comes next) for all pieces of n rows, which
// threads share or not; Backwards: those first that a pass forwards has left in cache.
template <bool Backwards = false, class F>
inline void for_each_piece(int64_t n, int64_t cols, bool shared, const F& f) {
  constexpr int64_t kTogether = 8;  // 256 KiB: less is not worth another thread
  const int64_t all = pieces(cols), tasks = (all + kTogether - 1) / kTogether;
  const auto take = [&](int64_t task) {
    if (Backwards) task = n * tasks - 1 - task;
    const int64_t i = task / tasks, end = min(task % tasks * kTogether + kTogether, all);
    for (int64_t p = task % tasks * kTogether; p < end; ++p)
      f(i, p, p * kPiece, min(kPiece, cols - p * kPiece), p + 1 < end);
  };
  if (shared) return parallel_tasks(n * tasks, take);
  for (int64_t task = 0; task < n * tasks; ++task) take(task);
}

// Rows that are taken at a time: of those that are read again few enough to stay in cache, else as many as their sums
// take a few MB for.
inline int64_t long_rows_together(int64_t n, int64_t cols, bool again) {
  return min(n, max(1, (again ? thread_count() << 19 : int64_t(1) << 31) / cols));
}

// NaN where a piece of nothing but masked logits and NaN holds the latter, else 0.
template <class T>
inline double nan_or_zero(const T* row, int64_t n) {
  return sum_powers<true>(row, n, 1.0f, 0.0f, static_cast<const T*>(nullptr)) < double(kInfinity) ? 0.0 : kNaN;
}

struct PieceSum : Range {
  double sum;  // of powers relative to the maximum
};

// Of the rows [first, first + count).
template <class T>
inline void confidence_of_long_rows(const T* data, const Matrix& logits, const Factors& factors, float* out,
                                    int64_t* prediction, int64_t first, int64_t count, bool shared) {
  const int64_t cols = logits.cols, all = pieces(cols);
  const Buffer<PieceSum> found(count * all);
  const Buffer<float> factor(count);
  const auto add_powers = [&](int64_t i, PieceSum& x, const T* piece, int64_t n, bool more) {
    x.sum = !(x.max < kInfinity) ? kNaN
            : !(x.max > -kInfinity)
                ? nan_or_zero(piece, n)
                : sum_relative_powers(piece, n, x.max, x.min, factor[i] * kLog2E, more ? piece + n : nullptr);
  };
  const auto piece_of = [&](int64_t i, int64_t begin) { return data + (first + i) * logits.stride + begin; };
  // a factor that hangs on the class is known when all of the row was seen, and its powers are added then
  const bool later = factors.class_weight;
  for (int64_t i = 0; i < count; ++i) factor[i] = factors.sample_weight ? factors.sample_weight[first + i] : 1.0f;
  for_each_piece(count, cols, shared, [&](int64_t i, int64_t p, int64_t begin, int64_t n, bool more) {
    PieceSum& x = found[i * all + p];
    static_cast<Range&>(x) = find_range(piece_of(i, begin), n, later && more ? piece_of(i, begin) + n : nullptr);
    if (!later) add_powers(i, x, piece_of(i, begin), n, more);
  });
  for (int64_t i = 0; i < count; ++i) {
    const PieceSum* x = found + i * all;
    int64_t top = 0;
    for (int64_t p = 1; p < all; ++p)
      if (x[p].max > x[top].max) top = p;
    const int64_t begin = top * kPiece, n = min(kPiece, cols - begin);
    prediction[first + i] = begin + find_first(piece_of(i, begin), n, x[top].max);
    out[first + i] = x[top].max;
    if (later) factor[i] = class_factor(factors, prediction[first + i], first + i);
  }
  if (later)
    for_each_piece<true>(count, cols, shared, [&](int64_t i, int64_t p, int64_t begin, int64_t n, bool more) {
      add_powers(i, found[i * all + p], piece_of(i, begin), n, more);
    });
  for (int64_t i = 0; i < count; ++i) {
    const double top = out[first + i], factor2 = factor[i] * kLog2E;
    double sum = top > -double(kInfinity) ? 0 : kNaN;
    for (const PieceSum* x = found + i * all; x < found + (i + 1) * all; ++x)
      if (x->sum != 0) sum += x->sum * std::exp2((double(x->max) - top) * factor2);
    out[first + i] = float(1 / sum);
  }
}

// Many rows are a thread's each, without waiting for one another.
template <class T>
inline void confidence_of_long_rows(const T* data, const Matrix& logits, const Factors& factors, float* out,
                                    int64_t* prediction) {
  const int64_t n = logits.rows;
  if (n >= 4 * thread_count())
    return parallel_tasks(
        n, [&](int64_t i) { confidence_of_long_rows(data, logits, factors, out, prediction, i, 1, false); });
  const int64_t together = long_rows_together(n, logits.cols, factors.class_weight);
  for (int64_t i = 0; i < n; i += together)
    confidence_of_long_rows(data, logits, factors, out, prediction, i, min(together, n - i), true);
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
