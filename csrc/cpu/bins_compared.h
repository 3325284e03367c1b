// Few bins without a scattered store: AVX-512 compares sixteen confidences with one interior edge in an instruction,
// and adds those that reach it to that edge's sums under the mask. Cumulative sums: bin b is what reached edge b less
// what reached edge b + 1. Other instruction sets have no masks and do better with PackedHistogram.
#pragma once
#include "kernels.h"
#include "vec.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr int64_t kBlock = 2048;  // samples that are in L1 together

#if defined(PYFASTCAL_AVX512)

inline constexpr int64_t kMostCompared = 16;
inline bool can_compare(int64_t n_bins) { return n_bins <= kMostCompared; }

template <int N, bool ClosedRight>
class ComparedHistogram {
 public:
  explicit ComparedHistogram(const Bins& bins) : edges_(bins.edges) {}

  // n <= kBlock valid confidences; x is readable up to a multiple of kLanes
  void add(const float* x, const bool* correct, int64_t n) {
    __m512i sum[N];
    PYFASTCAL_UNROLL
    for (int b = 0; b < N; ++b) sum[b] = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) add_lanes(x + i, correct + i, 0xffff, sum);
    if (i < n) add_lanes(x + i, correct + i, __mmask16((1u << (n - i)) - 1), sum);
    const __m512i field = _mm512_set1_epi64(kRight / kOne - 1);
    for (int b = 0; b < N; ++b) {
      totals_[0][b] = _mm512_add_epi64(totals_[0][b], _mm512_and_si512(_mm512_srli_epi64(sum[b], kShift), field));
      totals_[1][b] = _mm512_add_epi64(totals_[1][b], _mm512_srli_epi64(sum[b], kRightShift));
      totals_[2][b] = _mm512_add_epi64(totals_[2][b], _mm512_and_si512(sum[b], _mm512_set1_epi64(kOne - 1)));
    }
  }

  // Adds what was counted to totals, (3, N).
  void flush(int64_t* totals) {
    for (int row = 0; row < 3; ++row) {
      int64_t above = 0;
      for (int b = N - 1; b >= 0; --b) {
        const int64_t reached = _mm512_reduce_add_epi64(totals_[row][b]);
        totals[row * N + b] += reached - above;
        above = reached;
      }
    }
  }

 private:
  // A 64-bit lane takes kBlock / 8 = 2^8 samples of at most 2^32: 41 bits of sum, then 9 of count, then 9 of correct.
  static constexpr int kShift = 41, kRightShift = 50;
  static constexpr int64_t kOne = int64_t(1) << kShift, kRight = int64_t(1) << kRightShift;

  void add_lanes(const float* x, const bool* correct, __mmask16 live, __m512i (&sum)[N]) const {
    const __m512 value = _mm512_loadu_ps(x), fixed = _mm512_mul_ps(value, _mm512_set1_ps(0x1p32f));  // exact
    const __m128i bytes = _mm_maskz_loadu_epi8(live, correct);
    const __mmask16 right = _mm_test_epi8_mask(bytes, bytes);
    // the conversion rounds as fixed_point() does, to nearest and ties to even
    const __m512i low = word(_mm512_castps512_ps256(fixed), __mmask8(live), __mmask8(right)),
                  high = word(_mm512_extractf32x8_ps(fixed, 1), __mmask8(live >> 8), __mmask8(right >> 8));
    sum[0] = _mm512_add_epi64(sum[0], _mm512_add_epi64(low, high));
    PYFASTCAL_UNROLL
    for (int b = 1; b < N; ++b) {
      const __mmask16 reached =
          _mm512_cmp_ps_mask(value, _mm512_set1_ps(edges_[b]), ClosedRight ? _CMP_GT_OQ : _CMP_GE_OQ);
      sum[b] = _mm512_mask_add_epi64(sum[b], __mmask8(reached), sum[b], low);
      sum[b] = _mm512_mask_add_epi64(sum[b], __mmask8(reached >> 8), sum[b], high);
    }
  }
  static __m512i word(__m256 fixed, __mmask8 live, __mmask8 right) {
    const __m512i counted = _mm512_maskz_add_epi64(live, _mm512_cvtps_epu64(fixed), _mm512_set1_epi64(kOne));
    return _mm512_mask_add_epi64(counted, right, counted, _mm512_set1_epi64(kRight));
  }

  const float* const edges_;
  __m512i totals_[3][N] = {};
};

// f(histogram) with the one for these bins.
template <int N = 1, class F>
inline void with_compared_histogram(const Bins& bins, const F& f) {
  if (bins.n_bins != N) {
    if constexpr (N < kMostCompared) with_compared_histogram<N + 1>(bins, f);
    return;
  }
  if (bins.closed_right)
    f(ComparedHistogram<N, true>(bins));
  else
    f(ComparedHistogram<N, false>(bins));
}

#else

inline bool can_compare(int64_t) { return false; }
template <class F>
inline void with_compared_histogram(const Bins&, const F&) {}

#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
