// confidence: softmax(factor * logits) at its maximum, with the factor that the predicted class picks.
//
// Up to kLongestShort classes a few lanes, or a warp, hold a row in registers: it is read once, in 16-byte vectors. A
// longer row is a block's, which reads it twice, the second time mostly from L1 or L2. Which threads add what follows
// from the number of classes alone, so a row's bits depend on nothing but its numbers. No workspace.
#pragma once
#include "rows.cuh"

namespace pyfastcal::cuda {

inline constexpr float kLog2E = 1.44269504f;

struct Peak {
  float max = -kInfinity, min = kInfinity;
  uint32_t index = 0;  // of the first maximum

  __device__ __forceinline__ void add(float x, uint32_t c) {  // c ascending; NaN is passed over
    if (x > max) {
      max = x;
      index = c;
    }
    min = fminf(min, x);
  }
  __device__ bool is_finite() const { return max < kInfinity && min > -kInfinity; }
};

__device__ __forceinline__ Peak shuffle_xor(Peak p, int step) {
  return {shuffle_xor(p.max, step), shuffle_xor(p.min, step), shuffle_xor(p.index, step)};
}

struct Higher {
  __device__ __forceinline__ Peak operator()(const Peak& a, const Peak& b) const {
    const bool take_b = b.max > a.max || (b.max == a.max && b.index < a.index);
    return {take_b ? b.max : a.max, fminf(a.min, b.min), take_b ? b.index : a.index};
  }
};

struct Plus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// e^(factor * (x - max)): exactly 1 where x is the maximum, so that the sum over a row is at least 1 and a confidence
// at most. Halves, because the difference of two floats need not be one.
class RelativePower {
 public:
  __device__ RelativePower(float max, float factor) : half_max_(0.5f * max), factor_(2.0f * (factor * kLog2E)) {}
  __device__ __forceinline__ float operator()(float x) const {
    return prim::exp2_approx(__fmaf_rn(x, 0.5f, -half_max_) * factor_);
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

// `sum` is that of the relative powers.
template <class Sum>
__device__ __forceinline__ float confidence_of(const Peak& peak, Sum sum) {
  return peak.is_finite() ? float(Sum(1) / sum) : kNaN;  // a NaN in the row is in the sum
}

// A row that the threads of a Group hold in registers: in vectors, and what is left over one by one.
template <class T, class Group, int kVectors>
class HeldRow {
 public:
  static constexpr int kMostColumns = Group::kSize * kVectors * Vector<T>::kSize;

  __device__ HeldRow(const T* row, int cols, bool aligned)
      : vectors_(cols / Vector<T>::kSize), rest_(cols % Vector<T>::kSize) {
#pragma unroll
    for (int j = 0; j < kVectors; ++j)
      if (vector(j) < vectors_) held_[j] = load_vector(row + vector(j) * Vector<T>::kSize, aligned);
    if (Group::rank() < rest_) last_ = row[vectors_ * Vector<T>::kSize + Group::rank()];
  }

  // f(x, column) of this thread's numbers, columns ascending
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
#pragma unroll
    for (int j = 0; j < kVectors; ++j)
      if (vector(j) < vectors_) {
#pragma unroll
        for (int e = 0; e < Vector<T>::kSize; ++e)
          f(to_float(held_[j].x[e]), uint32_t(vector(j) * Vector<T>::kSize + e));
      }
    if (Group::rank() < rest_) f(to_float(last_), uint32_t(vectors_ * Vector<T>::kSize + Group::rank()));
  }

  // Keeps the compiler from holding 16-bit numbers a second time, as floats, from one pass to the next.
  __device__ __forceinline__ void forget_floats() {
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int j = 0; j < kVectors; ++j)
#pragma unroll
        for (int e = 0; e < Vector<T>::kSize; e += 2) {
          uint32_t pair;
          memcpy(&pair, &held_[j].x[e], 4);
          asm volatile("" : "+r"(pair));
          memcpy(&held_[j].x[e], &pair, 4);
        }
    }
  }

 private:
  __device__ __forceinline__ static int vector(int j) { return j * Group::kSize + Group::rank(); }
  const int vectors_, rest_;
  Vector<T> held_[kVectors];
  T last_;
};

// A row that stays in memory, shared by the threads of a Group.
template <class T, class Group>
class StreamedRow {
 public:
  __device__ StreamedRow(const T* row, int64_t cols, bool aligned)
      : row_(row),
        vectors_(uint32_t(cols / Vector<T>::kSize)),
        rest_(int(cols % Vector<T>::kSize)),
        aligned_(aligned) {}

  // f(x, column) of this thread's numbers, columns ascending; end_run() after every few of them
  template <class F, class G>
  __device__ __forceinline__ void each(const F& f, const G& end_run) const {
    constexpr uint32_t kSize = Vector<T>::kSize, kRun = 16 / kSize;
    for (uint32_t first = Group::rank(); first < vectors_; first += kRun * Group::kSize) {
      Vector<T> v[kRun];
#pragma unroll
      for (uint32_t j = 0; j < kRun; ++j)
        if (first + j * Group::kSize < vectors_)
          v[j] = load_vector(row_ + size_t(first + j * Group::kSize) * kSize, aligned_);
#pragma unroll
      for (uint32_t j = 0; j < kRun; ++j)
        if (first + j * Group::kSize < vectors_) {
#pragma unroll
          for (uint32_t e = 0; e < kSize; ++e) f(to_float(v[j].x[e]), (first + j * Group::kSize) * kSize + e);
        }
      end_run();
    }
    if (Group::rank() < rest_)
      f(to_float(row_[size_t(vectors_) * kSize + Group::rank()]), vectors_ * kSize + Group::rank());
    end_run();
  }

  __device__ Peak find_peak() const {
    Peak peak;
    each([&](float x, uint32_t c) { peak.add(x, c); }, [] {});
    return Group::reduce(peak, Higher());
  }

  // The runs are added in double: the error does not grow with the number of classes.
  __device__ double sum(const RelativePower& power) const {
    double total = 0;
    float run = 0;
    each([&](float x, uint32_t) { run += power(x); },
         [&] {
           total += run;
           run = 0;
         });
    return Group::reduce(total, Plus());
  }

 private:
  const T* const row_;
  const uint32_t vectors_;
  const int rest_;
  const bool aligned_;
};

template <class T>
struct ConfidenceArguments {
  const T* logits;
  int64_t rows, cols, stride;
  bool aligned;
  Factors factors;
  float* confidence;
  int64_t* prediction;
};

inline constexpr int kShortRowThreads = 128, kLongRowThreads = 512;
inline constexpr int kLongestShort = 2048;

template <class T, class Group, int kVectors>
__global__ void __launch_bounds__(kShortRowThreads, kVectors <= 8 ? 8 : 3)
    confidence_of_short_rows(ConfidenceArguments<T> a) {
  const int64_t row = int64_t(blockIdx.x) * (kShortRowThreads / Group::kSize) + threadIdx.x / Group::kSize;
  const int64_t i = row < a.rows ? row : a.rows - 1;  // whole warps take part
  HeldRow<T, Group, kVectors> held(a.logits + i * a.stride, int(a.cols), a.aligned);
  Peak peak;
  held.each([&](float x, uint32_t c) { peak.add(x, c); });
  peak = Group::reduce(peak, Higher());
  const RelativePower power(peak.max, factor_of(a.factors, peak.index, i));
  held.forget_floats();
  float sum = 0;
  held.each([&](float x, uint32_t) { sum += power(x); });
  sum = Group::reduce(sum, Plus());
  if (Group::rank() == 0 && row < a.rows) {
    a.confidence[i] = confidence_of(peak, sum);
    a.prediction[i] = peak.index;
  }
}

template <class T>
__global__ void __launch_bounds__(kLongRowThreads) confidence_of_long_rows(ConfidenceArguments<T> a) {
  using Group = Block<kLongRowThreads>;
  const int64_t i = blockIdx.x;
  const StreamedRow<T, Group> row(a.logits + i * a.stride, a.cols, a.aligned);
  const Peak peak = row.find_peak();
  const double sum = row.sum(RelativePower(peak.max, factor_of(a.factors, peak.index, i)));
  if (Group::rank() == 0) {
    a.confidence[i] = confidence_of(peak, sum);
    a.prediction[i] = peak.index;
  }
}

template <int kMostColumns, class Group, class T>
cudaError_t launch_short_rows(const ConfidenceArguments<T>& a, cudaStream_t stream) {
  constexpr int kVectors = kMostColumns / (Group::kSize * Vector<T>::kSize), kRows = kShortRowThreads / Group::kSize;
  static_assert(HeldRow<T, Group, kVectors>::kMostColumns == kMostColumns);
  const dim3 grid(uint32_t((a.rows + kRows - 1) / kRows));
  return PYFASTCAL_LAUNCH((confidence_of_short_rows<T, Group, kVectors>), grid, dim3(kShortRowThreads), 0, stream, a);
}

// confidence, prediction: one entry per row; NaN confidence where a row holds NaN or infinity. Any columns up to 2^32,
// up to 2^31 rows.
inline cudaError_t launch_confidence(const Matrix& logits, const Factors& factors, float* confidence,
                                     int64_t* prediction, cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  return with_type(logits.data, logits.dtype, [&]<class T>(const T* data) {
    const ConfidenceArguments<T> a{
        data,    logits.rows, logits.cols, logits.stride, rows_are_aligned(data, logits.rows, logits.stride),
        factors, confidence,  prediction};
    if (a.cols <= 128) return launch_short_rows<128, Lanes<8>>(a, stream);
    if (a.cols <= 1024) return launch_short_rows<1024, Lanes<32>>(a, stream);
    if (a.cols <= kLongestShort) return launch_short_rows<kLongestShort, Lanes<32>>(a, stream);
    return PYFASTCAL_LAUNCH(confidence_of_long_rows<T>, dim3(uint32_t(a.rows)), dim3(kLongRowThreads), 0, stream, a);
  });
}

}  // namespace pyfastcal::cuda
