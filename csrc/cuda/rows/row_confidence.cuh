// A row's confidence: its peak, and the sum of the powers of its numbers relative to that.
#pragma once
#include <cfloat>

#include "rows.cuh"

namespace pyfastcal::cuda {

inline constexpr float kLog2E = 1.44269504f;

// What is known of a row, or of a part: its maximum, and the number of the first vector that holds it. The numbers that
// fill no vector count as one more.
struct Peak {
  float max = -kInfinity;
  uint32_t vector = 0;

  __device__ __forceinline__ void add(float x, uint32_t v) {  // v ascending; NaN is passed over
    if (x > max) {
      max = x;
      vector = v;
    }
  }
};

__device__ __forceinline__ Peak shuffle_xor(Peak p, int step) {
  return {shuffle_xor(p.max, step), shuffle_xor(p.vector, step)};
}

struct Higher {
  __device__ __forceinline__ Peak operator()(const Peak& a, const Peak& b) const {
    const bool take_b = b.max > a.max || (b.max == a.max && b.vector < a.vector);
    return {take_b ? b.max : a.max, take_b ? b.vector : a.vector};
  }
};

struct Plus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The first column that holds the maximum, found by a look into the peak's vector: cheaper than carrying the column of
// every number along. Whole warps take part.
template <class Group, class T>
__device__ __forceinline__ uint32_t first_maximum(const Peak& peak, const T* row, uint32_t cols) {
  constexpr int kSize = Vector<T>::kSize;
  static_assert(Group::kSize >= kSize);
  const uint32_t first = peak.vector * kSize, mine = first + Group::rank() % 32;
  const bool hit = Group::rank() % 32 < kSize && mine < cols && to_float(row[mine]) == peak.max;
  const int begin = int(threadIdx.x) % 32 / Group::kSize * Group::kSize;  // of the group's lanes in its warp
  const uint32_t hits = (__ballot_sync(~0u, hit) >> begin) & ((1u << kSize) - 1);
  return hits ? first + __ffs(int(hits)) - 1 : first;  // none: a row of nothing but NaN
}

// e^(factor * (x - max)): exactly 1 where x is the maximum, so that the sum over a row is at least 1 and a confidence
// at most; 0 where x is minus infinity, a masked class, also where the factor is too small for fp32. Halves, because
// the difference of two floats need not be one.
class RelativePower {
 public:
  RelativePower() = default;
  __device__ RelativePower(float max, float factor) : half_max_(0.5f * max), factor_(2.0f * (factor * kLog2E)) {
    if (factor_ < FLT_MIN) factor_ = FLT_MIN;  // a product of small factors may be 0, and 0 times infinity NaN
  }
  __device__ __forceinline__ float operator()(float x) const {
    return prim::exp2_approx(__fmaf_rn(x, 0.5f, -half_max_) * factor_);
  }
  template <class T>
  __device__ __forceinline__ float sum(const Vector<T>& v) const {
    float x[Vector<T>::kSize];
    to_floats(v, x);
    float even = (*this)(x[0]), odd = (*this)(x[1]);
#pragma unroll
    for (int e = 2; e < Vector<T>::kSize; e += 2) {
      even += (*this)(x[e]);
      odd += (*this)(x[e + 1]);
    }
    return even + odd;
  }

 private:
  float half_max_, factor_;
};

__device__ __forceinline__ float factor_of(const Factors& factors, uint32_t prediction, int64_t row) {
  float factor = 1.0f;
  if (factors.class_weight) factor *= factors.class_weight[prediction];
  if (factors.sample_weight) factor *= factors.sample_weight[row];
  return factor;
}

// `sum` is that of the relative powers: NaN where the row holds NaN or infinity, or nothing but minus infinity, whose
// difference to the maximum is NaN.
template <class Sum>
__device__ __forceinline__ float confidence_of(Sum sum) {
  return float(Sum(1) / sum);
}

// A row that the threads of a Group hold in registers: in vectors, and what is left over one by one.
//
// Vectors past its end hold NaN, which maxima pass over, and count nothing in sums. Were these branches, the compiler
// would put each load before the branch that needs it, and the row would wait for memory as often as it has vectors.
template <class T, class Group, int kVectors, bool kAligned>
class HeldRow {
 public:
  __device__ __forceinline__ HeldRow(const T* row, uint32_t cols)
      : vectors_(cols / Vector<T>::kSize), has_rest_(Group::rank() < cols % Vector<T>::kSize) {
    fill_with_nan(held_);
    load_vectors<kAligned>(held_, row, Group::rank(), Group::kSize, vectors_);
    if (has_rest_) rest_ = row[vectors_ * Vector<T>::kSize + Group::rank()];
  }

  __device__ __forceinline__ Peak find_peak() const {
    Peak peak;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) peak.add(largest(held_[j]), number(j));
    if (has_rest_) peak.add(to_float(rest_), vectors_);
    return Group::reduce(peak, Higher());
  }

  __device__ __forceinline__ float sum(const RelativePower& power) const {
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kVectors; ++j) sum += prim::select(number(j) < vectors_, power.sum(held_[j]), 0.0f);
    if (has_rest_) sum += power(to_float(rest_));
    return Group::reduce(sum, Plus());
  }

  // f(vector, whether it is one of the row) for each of this thread's, then g(number) of those that fill none
  template <class F, class G>
  __device__ __forceinline__ void each(const F& f, const G& g) const {
#pragma unroll
    for (int j = 0; j < kVectors; ++j) f(held_[j], number(j) < vectors_);
    if (has_rest_) g(to_float(rest_));
  }

 private:
  __device__ __forceinline__ static uint32_t number(int j) { return j * Group::kSize + Group::rank(); }
  Vector<T> held_[kVectors];
  const uint32_t vectors_;
  T rest_;
  const bool has_rest_;
};

// A row that stays in memory, shared by the threads of a Group.
template <class T, class Group, bool kAligned>
class StreamedRow {
 public:
  __device__ StreamedRow(const T* row, uint32_t cols)
      : row_(row), vectors_(cols / Vector<T>::kSize), has_rest_(Group::rank() < cols % Vector<T>::kSize) {}

  __device__ Peak find_peak() const {
    Peak peak;
    each_run([&](const Vector<T>& v, uint32_t number) { peak.add(largest(v), number); }, [] {});
    if (has_rest_) peak.add(rest(), vectors_);
    return Group::reduce(peak, Higher());
  }

  // The runs are added in double: the error does not grow with the number of classes.
  __device__ double sum(const RelativePower& power) const {
    double total = has_rest_ ? power(rest()) : 0;
    float run = 0;
    each_run([&](const Vector<T>& v, uint32_t number) { run += prim::select(number < vectors_, power.sum(v), 0.0f); },
             [&] {
               total += run;
               run = 0;
             });
    return Group::reduce(total, Plus());
  }

  // g(number) of those of this thread's that fill no vector, then f(vector, whether it is one of the row) for each;
  // end_run() after each and a few
  template <class F, class G, class H>
  __device__ __forceinline__ void each(const F& f, const G& g, const H& end_run) const {
    if (has_rest_) g(rest());
    each_run([&](const Vector<T>& v, uint32_t number) { f(v, number < vectors_); }, end_run);
    end_run();
  }

 private:
  static constexpr int kRun = 4;

  // f(vector, its number) of this thread's vectors, numbers ascending, the last run filled up with vectors of NaN past
  // the row's end; end_run() after every kRun
  template <class F, class G>
  __device__ __forceinline__ void each_run(const F& f, const G& end_run) const {
    for (uint32_t first = Group::rank(); first < vectors_; first += kRun * Group::kSize) {
      Vector<T> v[kRun];
      fill_with_nan(v);
      load_vectors<kAligned>(v, row_, first, Group::kSize, vectors_);
#pragma unroll
      for (uint32_t j = 0; j < kRun; ++j) f(v[j], first + j * Group::kSize);
      end_run();
    }
  }
  __device__ float rest() const { return to_float(row_[size_t(vectors_) * Vector<T>::kSize + Group::rank()]); }

  const T* const row_;
  const uint32_t vectors_;
  const bool has_rest_;
};

}  // namespace pyfastcal::cuda
