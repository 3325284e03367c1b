// Sixteen rows of sixteen numbers as columns, in registers: what packs a matrix for gemm.h, or is multiplied at once.
#pragma once
#include "rows.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// float(a * factor) in each lane: two roundings, as of one number.
inline Vec times(Vec a, double factor) {
#if defined(PYFASTCAL_AVX512)
  const __m512d f = _mm512_set1_pd(factor);
  const __m256 lo = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(low(a)), f));
  const __m256 hi = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtps_pd(high(a)), f));
  return {_mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1)};
#else
  float x[kLanes];
  store(x, a);
  for (int64_t i = 0; i < kLanes; ++i) x[i] = float(x[i] * factor);
  return load(x);
#endif
}

// x[k] = entry k of sixteen rows, which are `stride` apart. What leads to the last shuffles is loaded in halves of
// rows: on Intel a shuffle has one port, a half that comes from memory two.
inline void transpose(const float* rows, int64_t stride, Vec (&x)[kLanes]) {
#if defined(PYFASTCAL_AVX512)
  PYFASTCAL_UNROLL
  for (int h = 0; h < 2; ++h) {
    __m512 u[2][4];  // u[g][c]: of rows 8 g to 8 g + 7, columns c and c + 4 of the half
    PYFASTCAL_UNROLL
    for (int g = 0; g < 2; ++g) {
      __m512 l[4], t[4];
      PYFASTCAL_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* row = rows + (8 * g + i) * stride + 8 * h;
        l[i] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(row)), _mm256_loadu_ps(row + 4 * stride), 1);
      }
      PYFASTCAL_UNROLL
      for (int i = 0; i < 4; i += 2) {
        t[i] = _mm512_unpacklo_ps(l[i], l[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(l[i], l[i + 1]);
      }
      PYFASTCAL_UNROLL
      for (int i = 0; i < 2; ++i) {
        u[g][2 * i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        u[g][2 * i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
      }
    }
    PYFASTCAL_UNROLL
    for (int c = 0; c < 4; ++c) {
      x[8 * h + c].v = _mm512_shuffle_f32x4(u[0][c], u[1][c], 0x88);
      x[8 * h + 4 + c].v = _mm512_shuffle_f32x4(u[0][c], u[1][c], 0xdd);
    }
  }
#elif defined(PYFASTCAL_AVX2)
  PYFASTCAL_UNROLL
  for (int q = 0; q < 8; ++q) {  // four columns of eight rows
    const int column = 4 * (q / 2);
    __m256 l[4], t[4];
    PYFASTCAL_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float* row = rows + (8 * (q % 2) + i) * stride + column;
      l[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)), _mm_loadu_ps(row + 4 * stride), 1);
    }
    PYFASTCAL_UNROLL
    for (int i = 0; i < 4; i += 2) {
      t[i] = _mm256_unpacklo_ps(l[i], l[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(l[i], l[i + 1]);
    }
    PYFASTCAL_UNROLL
    for (int i = 0; i < 2; ++i) {
      (q % 2 ? x[column + 2 * i].hi : x[column + 2 * i].lo) = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      (q % 2 ? x[column + 2 * i + 1].hi : x[column + 2 * i + 1].lo) = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    }
  }
#elif defined(PYFASTCAL_NEON)
  PYFASTCAL_UNROLL
  for (int q = 0; q < 16; ++q) {  // four columns of four rows
    const int column = 4 * (q / 4), quarter = q % 4;
    float32x4_t l[4];
    float64x2_t t[4];
    PYFASTCAL_UNROLL
    for (int i = 0; i < 4; ++i) l[i] = vld1q_f32(rows + (4 * quarter + i) * stride + column);
    PYFASTCAL_UNROLL
    for (int i = 0; i < 4; i += 2) {
      t[i] = vreinterpretq_f64_f32(vtrn1q_f32(l[i], l[i + 1]));
      t[i + 1] = vreinterpretq_f64_f32(vtrn2q_f32(l[i], l[i + 1]));
    }
    PYFASTCAL_UNROLL
    for (int i = 0; i < 2; ++i) {
      x[column + i].v[quarter] = vreinterpretq_f32_f64(vtrn1q_f64(t[i], t[i + 2]));
      x[column + 2 + i].v[quarter] = vreinterpretq_f32_f64(vtrn2q_f64(t[i], t[i + 2]));
    }
  }
#else
  float out[kLanes][kLanes];
  for (int64_t k = 0; k < kLanes; ++k)
    for (int64_t j = 0; j < kLanes; ++j) out[k][j] = rows[j * stride + k];
  for (int64_t k = 0; k < kLanes; ++k) x[k] = load(out[k]);
#endif
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
