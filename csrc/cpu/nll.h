// nll: the mean negative log-likelihood of softmax(beta * logits) with its two derivatives by beta.
// One pass over memory: the row, or a piece of a long one, is read once, then once more out of L1.
#pragma once
#include "../common/nll.h"
#include "long_rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Runs of kRun are added in fp32, the runs in double: the error does not grow with the number of classes.
template <bool Clamp, class T>
inline Powers sum_weighted_powers(const T* row, int64_t n, float beta2, float shift, const T* next) {
  constexpr int64_t kRun = 2048;
  const Exp2 exp2;
  const Vec g = constant(beta2), minus_shift = constant(-shift), low = set1(kSmallestExponent);
  Powers total{};
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = min(begin + kRun, n);
    Vec sum = set1(0.0f), first = sum, second = sum;
    for (int64_t c = begin; c < end; c += kLanes) {
      if (next) __builtin_prefetch(next + c);
      const bool tail = end - c < kLanes;
      Vec t = fma(tail ? load_first(row + c, end - c, 0.0f) : load(row + c), g, minus_shift);
      if (Clamp) t = max(low, t);
      Vec p = exp2(t);
      if (tail) p = keep_first(p, end - c);
      const Vec pt = p * t;
      sum = sum + p;
      first = first + pt;
      second = fma(pt, t, second);
    }
    total.sum += reduce_add(sum);
    total.first += reduce_add(first);
    total.second += reduce_add(second);
  }
  return total;
}

// The powers of a row that is neither all masked nor holds infinity, relative to `shift`, the maximum times beta2, or,
// if that is large, to the exact product, which no variable holds.
struct ShiftedPowers : Powers {
  float shift;
  bool exact;
};

template <class T>
inline ShiftedPowers shifted_powers(const T* row, int64_t n, const Range& range, float beta2, const T* next) {
  const float shift = range.max * beta2;
  if (std::fabs(shift) < 0x1p20f) {
    const bool clamp = !((range.min - range.max) * beta2 > kSmallestExponent + 1);
    return {clamp ? sum_weighted_powers<true>(row, n, beta2, shift, next)
                  : sum_weighted_powers<false>(row, n, beta2, shift, next),
            shift, false};
  }
  // the shift's rounding is no small number: subtract first, in double; such rows are rare
  const double top = range.max, scale = beta2;
  ShiftedPowers powers{{}, shift, true};
  for (int64_t c = 0; c < n; ++c) {
    const double t = (double(to_float(row[c])) - top) * scale, p = std::exp2(t);
    powers.sum += p;
    powers.first += p > 0 ? p * t : 0;  // not 0 * infinity
    powers.second += p > 0 ? p * t * t : 0;
  }
  return powers;
}

// The label's logit, NaN where the label is no class; a masked one is -infinity.
template <class T>
inline double label_logit(const T* row, int64_t n, int64_t label) {
  return uint64_t(label) < uint64_t(n) ? to_float(row[label]) : kNaN;
}

// Adds a row; returns its sum of powers, whose log2 the value still lacks.
template <class T>
inline double add_row_nll(const T* row, int64_t n, int64_t label, float beta2, const T* next, NllTotals& totals) {
  const Range range = find_range(row, n);
  const double y = label_logit(row, n, label);
  if (!(range.max < kInfinity && y > -double(kInfinity))) {
    totals = {kNaN, kNaN, kNaN};  // and all that is added to them
    return 1;
  }
  const ShiftedPowers powers = shifted_powers(row, n, range, beta2, next);
  add_row(powers, powers.exact ? (y - range.max) * double(beta2) : y * double(beta2) - double(powers.shift), totals);
  return powers.sum;
}

struct PiecePowers : Range {
  ShiftedPowers powers;
};

// As add_row_nll, from the pieces of a row.
inline double add_pieces_nll(const PiecePowers* pieces, int64_t n, double y, float beta2, NllTotals& totals) {
  double top = -kInfinity;
  for (int64_t p = 0; p < n; ++p)
    if (!(pieces[p].max <= top)) top = pieces[p].max;
  if (!(top < double(kInfinity) && y > -double(kInfinity))) {
    totals = {kNaN, kNaN, kNaN};
    return 1;
  }
  Powers sum{};
  for (int64_t p = 0; p < n; ++p) {
    const ShiftedPowers& x = pieces[p].powers;
    if (!(x.sum > 0)) {  // 0 or NaN
      sum.sum += x.sum;
      continue;
    }
    // 2^t becomes 2^(t + change), relative to the row's maximum
    const double residual = x.exact ? 0 : double(pieces[p].max) * double(beta2) - double(x.shift);
    const double change = (double(pieces[p].max) - top) * double(beta2) - residual, factor = std::exp2(change);
    if (factor == 0) continue;
    sum.sum += factor * x.sum;
    sum.first += factor * (x.first + change * x.sum);
    sum.second += factor * (x.second + change * (2 * x.first + change * x.sum));
  }
  add_row(sum, (y - top) * double(beta2), totals);
  return sum.sum;
}

template <class T>
inline NllTotals nll_of_long_rows(const T* data, const Matrix& logits, const int64_t* labels, float beta2) {
  const int64_t cols = logits.cols, all = pieces(cols), together = long_rows_together(logits.rows, cols, false);
  const Buffer<PiecePowers> found(together * all);
  NllTotals totals;
  for (int64_t first = 0; first < logits.rows; first += together) {
    const int64_t count = min(together, logits.rows - first);
    for_each_piece(count, cols, true, [&](int64_t i, int64_t p, int64_t begin, int64_t n, bool more) {
      const T* const piece = data + (first + i) * logits.stride + begin;
      PiecePowers& x = found[i * all + p];
      static_cast<Range&>(x) = find_range(piece, n);
      if (x.max < kInfinity && x.max > -kInfinity)
        x.powers = shifted_powers(piece, n, x, beta2, more ? piece + n : nullptr);
      else
        x.powers = {{x.max > 0 ? kNaN : nan_or_zero(piece, n), 0, 0}, 0, true};
    });
    for (int64_t i = 0; i < count; ++i) {
      const double y = label_logit(data + (first + i) * logits.stride, cols, labels[first + i]);
      totals.value += std::log2(add_pieces_nll(found + i * all, all, y, beta2, totals));
    }
  }
  return totals;
}

inline Nll nll(const Matrix& logits, const int64_t* labels, double beta) {
  const int64_t n = logits.rows, rows = 1 + (1 << 15) / logits.cols, tasks = (n + rows - 1) / rows;
  const float beta2 = float(beta * 1.4426950408889634);
  NllTotals sum;
  if (logits.cols > kLongRow) {
    with_type(logits, [&](auto* data) { sum = nll_of_long_rows(data, logits, labels, beta2); });
    return mean_nll(sum, n, beta, beta2);
  }
  Buffer<NllTotals> parts(tasks);  // added in their order: no bit depends on which thread did what
  with_type(logits, [&](auto* data) {
    parallel_tasks(tasks, [&](int64_t task) {
      const int64_t end = min((task + 1) * rows, n);
      NllTotals totals;
      double product = 1;  // of the rows' sums, which are about 1 to C: a logarithm is due now and then only
      for (int64_t i = task * rows; i < end; ++i) {
        auto* row = data + i * logits.stride;
        product *= add_row_nll(row, logits.cols, labels[i], beta2, i + 1 < end ? row + logits.stride : nullptr, totals);
        if (!(product < 0x1p900)) {
          totals.value += std::log2(product);
          product = 1;
        }
      }
      totals.value += std::log2(product);
      parts[task] = totals;
    });
  });
  for (int64_t task = 0; task < tasks; ++task) {
    sum.value += parts[task].value;
    sum.slope += parts[task].slope;
    sum.curvature += parts[task].curvature;
  }
  return mean_nll(sum, n, beta, beta2);
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
