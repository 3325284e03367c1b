// nll: the mean negative log-likelihood of softmax(beta * logits) with its two derivatives by beta.
// One pass over memory: the row is read once, then once more out of L1.
#pragma once
#include "../common/nll.h"
#include "confidence.h"

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

// Adds a row; returns its sum of powers, whose log2 the value still lacks.
template <class T>
inline double add_row_nll(const T* row, int64_t n, int64_t label, float beta2, const T* next, NllTotals& totals) {
  const Range range = find_range(row, n);
  const float shift = range.max * beta2;
  const double y = uint64_t(label) < uint64_t(n) ? to_float(row[label]) : kNaN;
  if (!(range.max < kInfinity && y > -double(kInfinity))) {  // a label that is no class, or one that is masked
    totals = {kNaN, kNaN, kNaN};                             // and all that is added to them
    return 1;
  }
  Powers powers{};
  double label_t;
  if (std::fabs(shift) < 0x1p20f) {
    const bool clamp = !((range.min - range.max) * beta2 > kSmallestExponent + 1);
    powers = clamp ? sum_weighted_powers<true>(row, n, beta2, shift, next)
                   : sum_weighted_powers<false>(row, n, beta2, shift, next);
    label_t = y * double(beta2) - double(shift);
  } else {  // the shift's rounding is no small number: subtract first, in double; such rows are rare
    const double top = range.max, scale = beta2;
    for (int64_t c = 0; c < n; ++c) {
      const double t = (double(to_float(row[c])) - top) * scale, p = std::exp2(t);
      powers.sum += p;
      powers.first += p > 0 ? p * t : 0;  // not 0 * infinity
      powers.second += p > 0 ? p * t * t : 0;
    }
    label_t = (y - top) * scale;
  }
  add_row(powers, label_t, totals);
  return powers.sum;
}

inline Nll nll(const Matrix& logits, const int64_t* labels, double beta) {
  const int64_t n = logits.rows, rows = 1 + (1 << 15) / logits.cols, tasks = (n + rows - 1) / rows;
  const float beta2 = float(beta * 1.4426950408889634);
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
  NllTotals sum;
  for (int64_t task = 0; task < tasks; ++task) {
    sum.value += parts[task].value;
    sum.slope += parts[task].slope;
    sum.curvature += parts[task].curvature;
  }
  return mean_nll(sum, n, beta, beta2);
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
