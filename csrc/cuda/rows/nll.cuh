// nll: the mean negative log-likelihood of softmax(beta * logits) with its two derivatives by beta.
//
// Rows are read as confidence reads them: once into registers up to 2048 classes, twice above. A block takes a part of
// the rows, every group of its threads rows of its own, and leaves the part's totals in the workspace; a second, small
// kernel adds the parts. Which rows make a part, and the order of every addition, follow from the shape alone: the same
// bits in every run, on every device of one kind. Powers and their sums over 64 numbers or so are fp32, all else fp64.
// A row with NaN, infinity or a label that is no class makes all three results NaN. Two launches. Workspace:
// nll_workspace().
#pragma once
#include "../../common/nll.h"
#include "../runtime/launch.cuh"
#include "row_confidence.cuh"

namespace pyfastcal::cuda {

template <class T>
struct NllArguments {
  const T* logits;
  const int64_t* labels;
  int64_t rows, stride, rows_per_part;
  uint32_t cols;
  float beta2;
  NllTotals* parts;
};

inline constexpr int kShortNllThreads = 128, kLongNllThreads = 512, kSumThreads = 512;

// Adds p, p t and p t^2, t = beta2 * (x - max) and p = 2^t. Subtracting first needs no scale: t is at most 0, and its
// error is relative. Halves, because the difference of two floats need not be one.
class PowerMoments {
 public:
  __device__ __forceinline__ PowerMoments(float max, float beta2) : half_max_(0.5f * max), beta2_(2.0f * beta2) {}

  // Nothing, if x is not one of the row.
  __device__ __forceinline__ void add(float x, bool inside = true) {
    float t = __fmaf_rn(x, 0.5f, -half_max_) * beta2_;
    t = t < kLowest ? kLowest : t;  // NaN stays; minus infinity would make it
    t = inside ? t : kLowest;
    const float p = prim::exp2_approx(t), pt = p * t;
    sum += p;
    first += pt;
    second = __fmaf_rn(pt, t, second);
  }
  template <class T>
  __device__ __forceinline__ void add(const Vector<T>& v, bool inside = true) {
    float x[Vector<T>::kSize];
    to_floats(v, x);
#pragma unroll
    for (int e = 0; e < Vector<T>::kSize; ++e) add(x[e], inside);
  }
  __device__ __forceinline__ Powers take() {
    const Powers out{sum, first, second};
    sum = first = second = 0;
    return out;
  }

  float sum = 0, first = 0, second = 0;

 private:
  static constexpr float kLowest = -150;  // whose power is zero
  float half_max_, beta2_;
};

// Of a held row: by the group, in fp32.
template <class T, class Group, int kVectors, bool kAligned>
__device__ __forceinline__ Powers powers_of(const HeldRow<T, Group, kVectors, kAligned>& row, float max, float beta2) {
  PowerMoments moments(max, beta2);
  row.each([&](const Vector<T>& v, bool inside) { moments.add(v, inside); }, [&](float x) { moments.add(x); });
  return {Group::reduce(moments.sum, Plus()), Group::reduce(moments.first, Plus()),
          Group::reduce(moments.second, Plus())};
}

// Of a row in memory: runs in fp32, the runs and the threads in double.
template <class T, class Group, bool kAligned>
__device__ __forceinline__ Powers powers_of(const StreamedRow<T, Group, kAligned>& row, float max, float beta2) {
  PowerMoments moments(max, beta2);
  Powers total{0, 0, 0};
  row.each([&](const Vector<T>& v, bool inside) { moments.add(v, inside); }, [&](float x) { moments.add(x); },
           [&] {
             const Powers run = moments.take();
             total.sum += run.sum;
             total.first += run.first;
             total.second += run.second;
           });
  return {Group::reduce(total.sum, Plus()), Group::reduce(total.first, Plus()), Group::reduce(total.second, Plus())};
}

// The totals of the rows that a group takes one after the other; the same in all its threads.
class RowTotals {
 public:
  __device__ __forceinline__ void add(Powers powers, double label_t) {  // of NaN where the row holds NaN or infinity
    if (!(label_t > -double(kInfinity))) powers.sum = kNaN;             // and all that is made of it
    add_row(powers, label_t, totals_);
    product_ *= powers.sum;  // of numbers from 1 to 2^32: a logarithm is due now and then only
    if (!(product_ < 0x1p900)) take_logarithm();
  }
  __device__ __forceinline__ NllTotals take() {
    take_logarithm();
    return totals_;
  }

 private:
  __device__ __forceinline__ void take_logarithm() {
    totals_.value += log2(product_);
    product_ = 1;
  }
  NllTotals totals_;
  double product_ = 1;
};

template <class T>
__device__ __forceinline__ float label_logit(const NllArguments<T>& a, int64_t row, int64_t label) {
  return uint64_t(label) < a.cols ? to_float(a.logits[row * a.stride + label]) : kNaN;
}

template <class Block>
__device__ __forceinline__ NllTotals reduce_totals(const NllTotals& x) {
  return {Block::reduce(x.value, Plus()), Block::reduce(x.slope, Plus()), Block::reduce(x.curvature, Plus())};
}

// f(row, its label, whether it is one of the part, the totals so far) for each of a group's rows of the part, one after
// the other. A label is read a row ahead: what it is for is behind it in memory's queue.
template <int kThreads, class Group, class T, class F>
__device__ __forceinline__ void total_of_part(const NllArguments<T>& a, const F& f) {
  constexpr int kRows = kThreads / Group::kSize;
  const int64_t begin = blockIdx.x * a.rows_per_part,
                end = begin + a.rows_per_part < a.rows ? begin + a.rows_per_part : a.rows;
  RowTotals totals;
  const auto row_of = [&](int64_t first) { return min(first + threadIdx.x / Group::kSize, end - 1); };
  int64_t label = a.labels[row_of(begin)];
  for (int64_t first = begin; first < end; first += kRows) {
    const int64_t next_label = a.labels[row_of(first + kRows)];
    f(row_of(first), label, first + threadIdx.x / Group::kSize < end, totals);  // whole warps take part
    label = next_label;
  }
  NllTotals of_group = totals.take();
  if (Group::rank() != 0) of_group = NllTotals();
  const NllTotals sum = reduce_totals<Block<kThreads>>(of_group);
  if (threadIdx.x == 0) a.parts[blockIdx.x] = sum;
}

// Resident blocks enough to keep the memory busy, and room for the row in registers.
template <int kVectors, bool kAligned>
inline constexpr int kNllResident = kVectors > 8   ? 3
                                    : kAligned     ? 5
                                    : kVectors > 4 ? 3
                                                   : 4;

template <class T, class Group, int kVectors, bool kAligned>
__global__ void __launch_bounds__(kShortNllThreads, kNllResident<kVectors, kAligned>)
    nll_of_short_rows(NllArguments<T> a) {
  total_of_part<kShortNllThreads, Group>(a, [&](int64_t i, int64_t label, bool mine, RowTotals& totals) {
    const HeldRow<T, Group, kVectors, kAligned> row(a.logits + i * a.stride, a.cols);
    const Peak peak = row.find_peak();
    const float y = label_logit(a, i, label);  // which L1 has by now
    const Powers powers = powers_of(row, peak.max, a.beta2);
    if (mine) totals.add(powers, (double(y) - double(peak.max)) * double(a.beta2));
  });
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kLongNllThreads, 1) nll_of_long_rows(NllArguments<T> a) {
  using Group = Block<kLongNllThreads>;
  total_of_part<kLongNllThreads, Group>(a, [&](int64_t i, int64_t label, bool, RowTotals& totals) {
    const StreamedRow<T, Group, kAligned> row(a.logits + i * a.stride, a.cols);
    const Peak peak = row.find_peak();
    const float y = label_logit(a, i, label);
    totals.add(powers_of(row, peak.max, a.beta2), (double(y) - double(peak.max)) * double(a.beta2));
  });
}

static __global__ void __launch_bounds__(kSumThreads)
    sum_nll(const NllTotals* parts, int64_t n, int64_t rows, double beta, float beta2, double* out) {
  NllTotals mine;
  for (int64_t i = threadIdx.x; i < n; i += kSumThreads) {
    mine.value += parts[i].value;
    mine.slope += parts[i].slope;
    mine.curvature += parts[i].curvature;
  }
  const NllTotals sum = reduce_totals<Block<kSumThreads>>(mine);
  if (threadIdx.x == 0) {
    const Nll result = mean_nll(sum, rows, beta, beta2);
    out[0] = result.value;
    out[1] = result.slope;
    out[2] = result.curvature;
  }
}

// How the rows are parted: by the shape alone.
struct NllParts {
  NllParts(int64_t rows, int64_t cols) {
    constexpr int64_t kMost = 16384;  // parts: so many that the last wave of blocks does not count, and quick to add
    const int64_t at_once = cols <= 128 ? kShortNllThreads / 8 : cols <= 2048 ? kShortNllThreads / 32 : 1;
    const int64_t steps = (rows + at_once - 1) / at_once;
    // Some 1024 blocks fill a GPU; beyond, a block's end is paid for once in 8 steps
    const int64_t few = steps / 1024 < 8 ? steps / 1024 : 8, least = (steps + kMost - 1) / kMost;
    const int64_t of_part = few > least ? few : least;
    rows_per_part = at_once * (of_part > 1 ? of_part : 1);
    count = (rows + rows_per_part - 1) / rows_per_part;
  }
  int64_t rows_per_part, count;
};

// Bytes: the totals of each part.
inline int64_t nll_workspace(const Matrix& logits) {
  return NllParts(logits.rows, logits.cols).count * int64_t(sizeof(NllTotals));
}

template <int kMostColumns, class Group, bool kAligned, class T>
cudaError_t launch_short_nll(const NllArguments<T>& a, int64_t parts, cudaStream_t stream) {
  constexpr int kVectors = kMostColumns / (Group::kSize * Vector<T>::kSize);
  static_assert(kVectors * Group::kSize * Vector<T>::kSize == kMostColumns);
  return PYFASTCAL_LAUNCH((nll_of_short_rows<T, Group, kVectors, kAligned>), dim3(uint32_t(parts)),
                          dim3(kShortNllThreads), 0, stream, a);
}

template <bool kAligned, class T>
cudaError_t launch_nll_rows(const NllArguments<T>& a, int64_t parts, cudaStream_t stream) {
  if (a.cols <= 128) return launch_short_nll<128, Lanes<8>, kAligned>(a, parts, stream);
  if (a.cols <= 1024) return launch_short_nll<1024, Lanes<32>, kAligned>(a, parts, stream);
  if (a.cols <= 2048) return launch_short_nll<2048, Lanes<32>, kAligned>(a, parts, stream);
  return PYFASTCAL_LAUNCH((nll_of_long_rows<T, kAligned>), dim3(uint32_t(parts)), dim3(kLongNllThreads), 0, stream, a);
}

// out: value, slope, curvature. At least one row, fewer than 2^32 columns.
inline cudaError_t launch_nll(const Matrix& logits, const int64_t* labels, double beta, double* out, void* workspace,
                              cudaStream_t stream) {
  if (logits.rows < 1 || logits.cols >= int64_t(1) << 32) return cudaErrorInvalidValue;
  const float beta2 = float(beta * 1.4426950408889634);
  const NllParts parts(logits.rows, logits.cols);
  NllTotals* const totals = static_cast<NllTotals*>(workspace);
  const auto error = with_type(logits.data, logits.dtype, [&]<class T>(const T* data) {
    const NllArguments<T> a{data,  labels, logits.rows, logits.stride, parts.rows_per_part, uint32_t(logits.cols),
                            beta2, totals};
    return rows_are_aligned(data, logits.stride) ? launch_nll_rows<true>(a, parts.count, stream)
                                                 : launch_nll_rows<false>(a, parts.count, stream);
  });
  if (error != cudaSuccess) return error;
  return PYFASTCAL_LAUNCH(sum_nll, dim3(1), dim3(kSumThreads), 0, stream, totals, parts.count, logits.rows, beta, beta2,
                          out);
}

}  // namespace pyfastcal::cuda
