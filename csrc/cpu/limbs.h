// Rows of any dtype as whole numbers of 24 bits, and products of those, by the tiles of AMX for 8-bit integers: a
// quarter of the steps of fp32 multiply-adds.
//
// A row is scaled by a power of two, so that its largest magnitude is between 2^22 and 2^23, rounded to whole numbers,
// and each of these split into three signed bytes ("limbs"): q = 2^16 q0 + 2^8 q1 + q2. Eight of the nine products of
// limbs are made; q2 q2' is below what is rounded away anyway. Sums of products are exact, in 32 bits, so neither their
// order nor what else is in a tile can change a bit of the result.
//
// Error, against |a| |b|: rounding to whole numbers moves an entry by up to 2^-23 of its row's largest, so the product
// by up to sqrt(depth) 2^-23 for each side where all signs fall ill, a few 2^-24 otherwise; what is left out is less,
// and the rest are a few roundings, where a chain of fp32 has `depth` (docs/kernels.md measures both). It hangs on the
// lengths of the two rows, not on each product: where one entry is a million times the others, these keep few digits.
// So it is for cosines, which are measured against 1.
#pragma once
#include "bf16.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_AMX)

inline constexpr int64_t kLimbTile = 16;                       // rows, of
inline constexpr int64_t kLimbChunk = 64;                      // numbers
inline constexpr int64_t kLimbBytes = kLimbTile * kLimbChunk;  // a tile of one limb; the three follow each other
inline constexpr int64_t kLeastLimbDepth = 32;                 // below, tiles are mostly zeros
inline constexpr int64_t kMostLimbDepth = 1 << 15;             // 3 * depth * 2^14 < 2^31
inline int64_t limb_tiles(int64_t rows) { return (rows + kLimbTile - 1) / kLimbTile; }

inline double power_of_two(int exponent) {
  return _mm_cvtsd_f64(_mm_castsi128_pd(_mm_cvtsi64_si128((1023l + exponent) << 52)));
}

// Numbers from k on, zeros past the n-th.
template <class T>
inline Vec load_some(const T* row, int64_t k, int64_t n) {
  return k + kLanes <= n ? load(row + k) : load_first(row + (k < n ? k : 0), max(0, n - k), 0.0f);
}

// The power of two that a row is multiplied by; the largest int where the row is not finite.
template <class T>
inline int limb_exponent(const T* row, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const auto look = [&](__m512i& m, Vec x) {
    m = _mm512_max_epi32(m, _mm512_and_si512(_mm512_castps_si512(x.v), magnitude));
  };
  int64_t k = 0;
  for (; k + 2 * kLanes <= n; k += 2 * kLanes) look(most[0], load(row + k)), look(most[1], load(row + k + kLanes));
  for (; k < n; k += kLanes) look(most[0], load_some(row, k, n));
  const int bits = _mm512_reduce_max_epi32(_mm512_max_epi32(most[0], most[1]));
  if (bits >= 0x7f800000) return std::numeric_limits<int>::max();
  if (bits == 0) return 0;
  const float largest = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
  const int exponent = bits >> 23 ? 127 + 22 - (bits >> 23) : 22 - std::ilogb(largest);
  return exponent - (largest * power_of_two(exponent) > 0x7f7f7f);  // the most that three signed bytes hold
}

// Row r of a tile of rows: times 2^exponent, as limbs. Inside a chunk the numbers lie in an order of their own. Returns
// the sum of their squares.
template <class T>
inline float store_limbs(const T* row, int64_t n, int exponent, int8_t* tiles, int64_t r) {
  const __m512 power = _mm512_set1_ps(float(exponent));
  const __m512i bias = _mm512_set1_epi32(0x808080);  // makes signed bytes of unsigned ones, by `xor`
  const __m512i planes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  int8_t* out = tiles + r * kLimbChunk;
  Vec square[4] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
  for (int64_t k = 0; k < n; k += kLimbChunk, out += 3 * kLimbBytes) {
    __m512i q[4];
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < 4; ++j) {
      const Vec x = k + kLimbChunk <= n ? load(row + k + j * kLanes) : load_some(row, k + j * kLanes, n);
      const Vec scaled{_mm512_scalef_ps(x.v, power)};
      square[j] = fma(scaled, scaled, square[j]);
      const __m512i whole = _mm512_cvtps_epi32(scaled.v);
      q[j] = _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(whole, bias), bias), planes);
    }
    const __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpacklo_epi32(q[2], q[3]);
    _mm512_store_si512(out,
                       _mm512_unpacklo_epi64(_mm512_unpackhi_epi32(q[0], q[1]), _mm512_unpackhi_epi32(q[2], q[3])));
    _mm512_store_si512(out + kLimbBytes, _mm512_unpackhi_epi64(a, b));
    _mm512_store_si512(out + 2 * kLimbBytes, _mm512_unpacklo_epi64(a, b));
  }
  return reduce_add((square[0] + square[1]) + (square[2] + square[3]));
}

// Tiles of rows, the left side of a product, become tiles of columns, the right side: in fours of numbers.
inline void transpose_tiles(int8_t* tiles, int64_t count) {
  for (int64_t j = 0; j < count; ++j, tiles += kLimbBytes) {
    Vec x[kLanes];
    transpose(reinterpret_cast<const float*>(tiles), kLimbChunk / 4, x);
    for (int64_t i = 0; i < kLanes; ++i) store(reinterpret_cast<float*>(tiles + i * kLimbChunk), x[i]);
  }
}

// Rows in tiles.
class LimbRows {
 public:
  LimbRows(int64_t rows, int64_t depth)
      : chunks((depth + kLimbChunk - 1) / kLimbChunk), data_(limb_tiles(rows) * chunks * 3 * kLimbBytes) {}

  int8_t* tile(int64_t t) const { return data_ + t * chunks * 3 * kLimbBytes; }

  // Row i of m as row `at`. Returns what makes whole numbers over 2^22 those of the row or, with normalize, of the row
  // of length 1; NaN where the row is not finite.
  double store(const Matrix& m, int64_t i, bool normalize, int64_t at) const {
    double scale = kNaN;
    with_type(m, [&](auto* data) {
      const auto* row = data + i * m.stride;
      const int exponent = limb_exponent(row, m.cols);
      const bool finite = exponent != std::numeric_limits<int>::max();
      const float square = store_limbs(row, m.cols, finite ? exponent : 0, tile(at / kLimbTile), at % kLimbTile);
      if (!finite) return;
      const double unit = power_of_two(-exponent);
      scale = 0x1p22 * unit * (normalize ? inverse_norm(std::sqrt(double(square)) * unit) : 1.0);
    });
    return scale;
  }

  const int64_t chunks;

 private:
  Buffer<int8_t> data_;
};

// row(i, the products of row i of a tile of rows with 16 columns, over 2^16) for i in [0, 16)
template <class F>
inline void multiply_limbs(const int8_t* a, const int8_t* b, int64_t chunks, const F& row) {
  alignas(64) int32_t sums[5][kLimbTile * kLanes];
  asm volatile("" : : : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  // The columns stay in L1 for the next rows, these do not. A step waits for the last one on the same sums, so those of
  // 2^16 are in two tiles and no two steps that follow each other share one.
  for (int64_t c = 0; c < chunks; ++c, a += 3 * kLimbBytes, b += 3 * kLimbBytes) {
    _tile_loadd(7, b, 64);
    _tile_stream_loadd(5, a, 64);
    _tile_dpbssd(0, 5, 7);
    _tile_stream_loadd(6, a + kLimbBytes, 64);
    _tile_dpbssd(1, 6, 7);
    _tile_stream_loadd(5, a + 2 * kLimbBytes, 64);
    _tile_dpbssd(2, 5, 7);
    _tile_loadd(7, b + kLimbBytes, 64);
    _tile_dpbssd(4, 5, 7);
    _tile_dpbssd(3, 6, 7);
    _tile_stream_loadd(5, a, 64);
    _tile_dpbssd(1, 5, 7);
    _tile_loadd(7, b + 2 * kLimbBytes, 64);
    _tile_dpbssd(2, 5, 7);
    _tile_dpbssd(4, 6, 7);
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  _tile_stored(4, sums[4], 64);
  const Vec up = set1(256.0f), down = set1(0x1p-8f);
  for (int64_t i = 0; i < kLimbTile; ++i) {
    const auto sum = [&](int j) { return _mm512_load_si512(sums[j] + i * kLanes); };
    const auto wide = [](__m512i x) { return Vec{_mm512_cvtepi32_ps(x)}; };
    const Vec low = fma(wide(sum(4)), down, wide(_mm512_add_epi32(sum(2), sum(3))));
    row(i, fma(wide(sum(0)), set1(65536.0f), fma(wide(sum(1)), up, low)));
  }
}

#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
