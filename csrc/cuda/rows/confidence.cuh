// confidence: softmax(factor * logits) at its maximum, with the factor that the predicted class picks.
//
// Up to 2048 classes a few lanes, or a warp, hold a row in registers: it is read once, in 16-byte vectors. A
// longer row is a block's, which reads it twice, the second time mostly from L1 or L2. Which threads add what follows
// from the number of classes alone, so a row's bits depend on nothing but its numbers. No workspace.
#pragma once
#include "../runtime/launch.cuh"
#include "row_confidence.cuh"

namespace pyfastcal::cuda {

template <class T>
struct ConfidenceArguments {
  const T* logits;
  int64_t rows, stride;
  uint32_t cols;
  Factors factors;
  float* confidence;
  int64_t* prediction;
};

inline constexpr int kShortRowThreads = 128, kLongRowThreads = 512;

// Resident blocks enough to keep the memory busy, and room for the row in registers.
template <int kVectors, bool kAligned>
inline constexpr int kResident = kVectors > 8 ? 3
                                 : kAligned   ? 8
                                              : 5;

template <class T, class Group, int kVectors, bool kAligned>
__global__ void __launch_bounds__(kShortRowThreads, kResident<kVectors, kAligned>)
    confidence_of_short_rows(ConfidenceArguments<T> a) {
  const int64_t row = int64_t(blockIdx.x) * (kShortRowThreads / Group::kSize) + threadIdx.x / Group::kSize;
  const int64_t i = row < a.rows ? row : a.rows - 1;  // whole warps take part
  const T* logits = a.logits + i * a.stride;
  const HeldRow<T, Group, kVectors, kAligned> held(logits, a.cols);
  const Peak peak = held.find_peak();
  const uint32_t prediction = first_maximum<Group>(peak, logits, a.cols);
  const float sum = held.sum(RelativePower(peak.max, factor_of(a.factors, prediction, i)));
  if (Group::rank() == 0 && row < a.rows) {
    a.confidence[i] = confidence_of(sum);
    a.prediction[i] = prediction;
  }
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kLongRowThreads) confidence_of_long_rows(ConfidenceArguments<T> a) {
  using Group = Block<kLongRowThreads>;
  const int64_t i = blockIdx.x;
  const T* logits = a.logits + i * a.stride;
  const StreamedRow<T, Group, kAligned> row(logits, a.cols);
  const Peak peak = row.find_peak();
  const uint32_t prediction = first_maximum<Group>(peak, logits, a.cols);
  const double sum = row.sum(RelativePower(peak.max, factor_of(a.factors, prediction, i)));
  if (Group::rank() == 0) {
    a.confidence[i] = confidence_of(sum);
    a.prediction[i] = prediction;
  }
}

template <int kMostColumns, class Group, bool kAligned, class T>
cudaError_t launch_short_rows(const ConfidenceArguments<T>& a, cudaStream_t stream) {
  constexpr int kVectors = kMostColumns / (Group::kSize * Vector<T>::kSize), kRows = kShortRowThreads / Group::kSize;
  static_assert(kVectors * Group::kSize * Vector<T>::kSize == kMostColumns);
  const dim3 grid(uint32_t((a.rows + kRows - 1) / kRows));
  return PYFASTCAL_LAUNCH((confidence_of_short_rows<T, Group, kVectors, kAligned>), grid, dim3(kShortRowThreads), 0,
                          stream, a);
}

template <bool kAligned, class T>
cudaError_t launch_rows(const ConfidenceArguments<T>& a, cudaStream_t stream) {
  if (a.cols <= 128) return launch_short_rows<128, Lanes<8>, kAligned>(a, stream);
  if (a.cols <= 1024) return launch_short_rows<1024, Lanes<32>, kAligned>(a, stream);
  if (a.cols <= 2048) return launch_short_rows<2048, Lanes<32>, kAligned>(a, stream);
  return PYFASTCAL_LAUNCH((confidence_of_long_rows<T, kAligned>), dim3(uint32_t(a.rows)), dim3(kLongRowThreads), 0,
                          stream, a);
}

// confidence, prediction: one entry per row; NaN confidence where a row holds NaN or infinity, or nothing but
// minus infinity, which masks a class. Fewer than 2^31 rows and 2^32 columns.
inline cudaError_t launch_confidence(const Matrix& logits, const Factors& factors, float* confidence,
                                     int64_t* prediction, cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  if (logits.rows >= int64_t(1) << 31 || logits.cols >= int64_t(1) << 32) return cudaErrorInvalidValue;
  return with_type(logits.data, logits.dtype, [&]<class T>(const T* data) {
    const ConfidenceArguments<T> a{data,    logits.rows, logits.stride, uint32_t(logits.cols),
                                   factors, confidence,  prediction};
    return rows_are_aligned(data, logits.stride) ? launch_rows<true>(a, stream) : launch_rows<false>(a, stream);
  });
}

}  // namespace pyfastcal::cuda
