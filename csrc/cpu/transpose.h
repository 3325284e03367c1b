// Sixteen rows of sixteen numbers turned into columns, in registers: what packs a matrix for gemm.h.
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

// x[i][j] becomes x[j][i].
inline void transpose(Vec (&x)[kLanes]) {
#if defined(PYFASTCAL_AVX512)
  __m512 t[16], u[16];
  PYFASTCAL_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(x[i].v, x[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(x[i].v, x[i + 1].v);
  }
  PYFASTCAL_UNROLL
  for (int i = 0; i < 16; i += 4) {
    PYFASTCAL_UNROLL
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = _mm512_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      u[i + 2 * j + 1] = _mm512_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
  }
  // u[4 r + c] has in its four quarters q the rows 4 r ... 4 r + 3 of column 4 q + c
  PYFASTCAL_UNROLL
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(u[c], u[4 + c], 0x88), b = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(u[c], u[4 + c], 0xdd), e = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0xdd);
    x[c].v = _mm512_shuffle_f32x4(a, b, 0x88);
    x[8 + c].v = _mm512_shuffle_f32x4(a, b, 0xdd);
    x[4 + c].v = _mm512_shuffle_f32x4(d, e, 0x88);
    x[12 + c].v = _mm512_shuffle_f32x4(d, e, 0xdd);
  }
#else
  float in[kLanes][kLanes], out[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) store(in[i], x[i]);
  for (int j = 0; j < kLanes; ++j)
    for (int i = 0; i < kLanes; ++i) out[j][i] = in[i][j];
  for (int j = 0; j < kLanes; ++j) x[j] = load(out[j]);
#endif
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
