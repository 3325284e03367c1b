// knn's filter where the processor has tiles for 8-bit integers and not all rows are bf16: rows as whole numbers of 16
// bits, as in limbs.h but of two limbs, of whose four products three are made. A bf16 copy has 8 bits: of rows that are
// all near one another, as features of one model are, it could reject hardly any.
//
// What the fourth product would add is no more than the lengths of both rows' second limbs multiplied; with t and T,
// those over the rows' own lengths, t T <= t^2 / 2 + T^2 / 2. So each side's residual has half of its square.
#pragma once
#include "limbs.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_AMX)

// A row as two limbs: the power of two that it was multiplied by, its squared length and the relative residual.
struct ShortRow {
  int exponent;
  float square;
  double residual;
};

// Row r of a tile of rows; of a chunk 64 bytes of the first limb in one tile, of the second in the next.
template <class T>
inline ShortRow store_short(const T* row, int64_t n, int8_t* tiles, int64_t r) {
  const int most = limb_exponent(row, n);
  if (most == std::numeric_limits<int>::max()) return {0, kNaN, 0};  // what is in the tile counts for nothing
  const int exponent = most - 8;
  const __m512 power = _mm512_set1_ps(float(exponent));
  const __m512i bias = _mm512_set1_epi32(0x80);
  const __m512i planes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  int8_t* out = tiles + r * kLimbChunk;
  Vec square[2] = {set1(0.0f), set1(0.0f)}, lost[2] = {set1(0.0f), set1(0.0f)}, second[2] = {set1(0.0f), set1(0.0f)};
  for (int64_t k = 0; k < n; k += kLimbChunk, out += 2 * kLimbBytes) {
    __m512i q[4];
    PYFASTCAL_UNROLL
    for (int64_t j = 0; j < 4; ++j) {
      const Vec x = k + kLimbChunk <= n ? load(row + k + j * kLanes) : load_some(row, k + j * kLanes, n);
      const Vec scaled{_mm512_scalef_ps(x.v, power)};
      const __m512i whole = _mm512_cvtps_epi32(scaled.v);
      const Vec rest = scaled - Vec{_mm512_cvtepi32_ps(whole)};
      const __m512i both = _mm512_add_epi32(whole, bias);  // q0 and, in an excess of 128, q1
      const __m512i low = _mm512_srai_epi32(_mm512_slli_epi32(_mm512_xor_si512(both, bias), 24), 24);
      const Vec q1{_mm512_cvtepi32_ps(low)};
      square[j & 1] = fma(scaled, scaled, square[j & 1]);
      lost[j & 1] = fma(rest, rest, lost[j & 1]);
      second[j & 1] = fma(q1, q1, second[j & 1]);
      q[j] = _mm512_shuffle_epi8(_mm512_xor_si512(both, bias), planes);
    }
    const __m512i a = _mm512_unpacklo_epi32(q[0], q[1]), b = _mm512_unpacklo_epi32(q[2], q[3]);
    _mm512_store_si512(out, _mm512_unpackhi_epi64(a, b));
    _mm512_store_si512(out + kLimbBytes, _mm512_unpacklo_epi64(a, b));
  }
  const double squares = reduce_add(square[0] + square[1]), unit = power_of_two(-exponent);
  if (squares == 0) return {0, 0, 0};
  const double t2 = reduce_add(second[0] + second[1]) / squares, r2 = reduce_add(lost[0] + lost[1]) / squares;
  return {exponent, float(squares * unit * unit), 1.01 * (std::sqrt(r2) + 0.5 * t2)};
}

class ShortRows {
 public:
  ShortRows(int64_t rows, int64_t depth)
      : chunks((depth + kLimbChunk - 1) / kLimbChunk), data_(limb_tiles(rows) * chunks * 2 * kLimbBytes) {}
  int8_t* tile(int64_t t) const { return data_ + t * chunks * 2 * kLimbBytes; }

  const int64_t chunks;

 private:
  Buffer<int8_t> data_;
};

struct LimbFilter {
  // Queries as columns.
  class Queries {
   public:
    Queries(const Matrix& m, bool normalize)
        : facts(m.rows), scale(panels(m.rows) * kPanel), packed_(panels(m.rows) * kPanel, m.cols) {
      parallel_tasks(limb_tiles(panels(m.rows) * kPanel), [&](int64_t t) {
        const Buffer<float> scratch(m.cols);
        const int64_t first = t * kLimbTile, n = max(0, min(kLimbTile, m.rows - first));
        for (int64_t i = first; i < first + kLimbTile; ++i) scale[i] = 0;
        for (int64_t i = first; i < first + n; ++i) {
          const float* row = float_rows(m, i, 1, scratch).data;
          const double factor = facts[i].take(m, row, normalize);
          const ShortRow q = store_short(row, m.cols, packed_.tile(t), i - first);
          facts[i].residual = q.residual;
          scale[i] = float(0x1p8 * factor * power_of_two(-q.exponent));
        }
        transpose_tiles(packed_.tile(t), 2 * packed_.chunks);
      });
    }
    const int8_t* columns(int64_t t) const { return packed_.tile(t); }
    // Those of the squared lengths, the conversions, and what first limbs may be longer than their rows.
    int64_t roundings() const { return packed_.chunks * 2 + 64; }

    Buffer<FilterQuery> facts;
    Buffer<float> scale;

   private:
    ShortRows packed_;
  };

  // Bank rows, a block at a time.
  class Rows {
   public:
    static constexpr int64_t kRows = 128;
    explicit Rows(const Matrix& bank) : bank_(bank), rows_(kRows, bank.cols) {}

    double load(int64_t row0, int64_t n, float* square) {
      double residual = 0;
      with_type(bank_, [&](auto* data) {
        for (int64_t r = 0; r < n; ++r) {
          const ShortRow b =
              store_short(data + (row0 + r) * bank_.stride, bank_.cols, rows_.tile(r / kLimbTile), r % kLimbTile);
          square[r] = b.square;
          scale_[r] = float(power_of_two(-b.exponent));
          if (b.square > kSmallestSquare && b.square < kLargestSquare) residual = std::fmax(residual, b.residual);
        }
      });
      return residual;
    }

    template <class F>
    void multiply(int64_t n, const Queries& queries, int64_t p, const F& tile) const {
      alignas(64) int32_t sums[4][kLimbTile * kLanes];
      const int64_t chunks = rows_.chunks;
      const Vec factor[2] = {PYFASTCAL_VARIANT::load(queries.scale + p * kPanel),
                             PYFASTCAL_VARIANT::load(queries.scale + p * kPanel + kLanes)};
      asm volatile("" : : : "memory");
      for (int64_t r = 0; r < n; r += kLimbTile) {
        const int8_t *a = rows_.tile(r / kLimbTile), *b = queries.columns(2 * p), *b2 = queries.columns(2 * p + 1);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t c = 0; c < chunks; ++c, a += 2 * kLimbBytes, b += 2 * kLimbBytes, b2 += 2 * kLimbBytes) {
          _tile_loadd(6, b, 64);
          _tile_stream_loadd(4, a, 64);
          _tile_dpbssd(0, 4, 6);
          _tile_stream_loadd(5, a + kLimbBytes, 64);
          _tile_dpbssd(1, 5, 6);
          _tile_loadd(7, b2, 64);
          _tile_dpbssd(2, 4, 7);
          _tile_dpbssd(3, 5, 7);
          _tile_loadd(6, b + kLimbBytes, 64);
          _tile_dpbssd(1, 4, 6);
          _tile_loadd(7, b2 + kLimbBytes, 64);
          _tile_dpbssd(3, 4, 7);
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        _tile_stored(2, sums[2], 64);
        _tile_stored(3, sums[3], 64);
        const auto run = [&](auto size, int64_t i) {
          constexpr int64_t count = size();
          Vec acc[count][kTileVecs];
          PYFASTCAL_UNROLL
          for (int64_t j = 0; j < count; ++j) {
            PYFASTCAL_UNROLL
            for (int64_t v = 0; v < kTileVecs; ++v) {
              const auto sum = [&](int64_t s) {
                return Vec{_mm512_cvtepi32_ps(_mm512_load_si512(sums[2 * v + s] + (i + j) * kLanes))};
              };
              acc[j][v] = fma(sum(0), set1(256.0f), sum(1)) * factor[v] * set1(scale_[r + i + j]);
            }
          }
          tile(r + i, acc);
        };
        const int64_t left = min(kLimbTile, n - r);
        int64_t i = 0;
        for (; i + 4 <= left; i += 4) run(std::integral_constant<int64_t, 4>(), i);
        for (; i < left; ++i) run(std::integral_constant<int64_t, 1>(), i);
      }
    }

   private:
    const Tiles tiles_;
    const Matrix& bank_;
    ShortRows rows_;
    float scale_[kRows];
  };

  static constexpr int64_t kOperandBytes = 2, kQueryBytes = 1 << 20, kQueryPanels = 32;
};

#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT
