// Products of bf16 numbers on 64-bit Arm (FEAT_BF16): bfmmla adds the products of two rows and two columns, four
// numbers of each, to 2 x 2 sums.
//
// For an element that is two steps, each what bfdot does: two products, exact in fp32, are added, then what they make
// is to the sum. Both additions are rounded to odd: of what does not fit, only that there was something is kept, in the
// last bit. That is off by less than 2u, u = 2^-24, twice the bound of rounding to nearest; but a product goes through
// depth / 2 + 1 additions only, and (1 + 2u)^(depth / 2 + 1) <= (1 + u)^(depth + 2), so the bound of bf16.h holds. It
// does for processors with FEAT_EBF16 too, where a program may set FPCR.EBF: then both are rounded to nearest or as
// FPCR says. Denormals count as zero and are flushed; a copy's own are kept by its rounding and left out of the
// products.
#pragma once
#include "bf16.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

inline constexpr bool kAmx = false;

struct Tiles {
  Tiles() {}  // not trivial, so that none is called unused
};

// As on x86, two numbers that follow each other in k in each of 16 lanes, by bfdot: for few rows, which no tile is
// worth.
struct Pairs {
  bfloat16x8_t v[4];
};
PYFASTCAL_NEON_INLINE Pairs as_pairs(Vec a) {
  return {vreinterpretq_bf16_f32(a.v[0]), vreinterpretq_bf16_f32(a.v[1]), vreinterpretq_bf16_f32(a.v[2]),
          vreinterpretq_bf16_f32(a.v[3])};
}
PYFASTCAL_NEON_INLINE Pairs load_pairs(const void* p) { return as_pairs(load(static_cast<const float*>(p))); }
PYFASTCAL_NEON_INLINE Pairs set1_pair(const BFloat16* p) {
  float pair;
  std::memcpy(&pair, p, 4);
  return as_pairs(set1(pair));
}
PYFASTCAL_NEON_INLINE Vec dot(Pairs a, Pairs b, Vec c) {
  for (int i = 0; i < 4; ++i) c.v[i] = vbfdotq_f32(c.v[i], a.v[i], b.v[i]);
  return c;
}

// kChunk numbers of a row of Bf16Rows: groups of four, between which lie those of the other rows of its tile.
struct Chunk {
  BFloat16* first;
  void put(int64_t group, uint16x4_t numbers) const { vst1_u16(&first[group * kTileRows * kGroup].bits, numbers); }
};

// lo and hi rounded to bf16, which they become; 32 numbers, put(i, numbers) those from 4 i on
template <class F>
PYFASTCAL_NEON_INLINE void round_to_bf16(Vec& lo, Vec& hi, const F& put) {
  const auto round = [&](int64_t group, float32x4_t& x) {
    const uint16x4_t rounded = vreinterpret_u16_bf16(vcvt_bf16_f32(x));
    put(group, rounded);
    x = vreinterpretq_f32_u32(vshll_n_u16(rounded, 16));
  };
  PYFASTCAL_UNROLL
  for (int i = 0; i < 4; ++i) round(i, lo.v[i]), round(4 + i, hi.v[i]);
}
inline void store_rounded(BFloat16* p, Vec& lo, Vec& hi) {
  round_to_bf16(lo, hi, [p](int64_t i, uint16x4_t numbers) { vst1_u16(&p[i * kGroup].bits, numbers); });
}
inline void store_rounded(Chunk out, Vec& lo, Vec& hi) {
  round_to_bf16(lo, hi, [out](int64_t i, uint16x4_t numbers) { out.put(i, numbers); });
}

inline void copy_chunk(const BFloat16* from, int64_t n, Chunk out) {
  BFloat16 whole[kChunk];
  copy_chunk(from, n, whole);
  for (int64_t i = 0; i < kChunk / kGroup; ++i) out.put(i, vld1_u16(&whole[i * kGroup].bits));
}

// A block of rows as multiply_panel reads them, a tile's together, four numbers of each in turn; uninitialised, and so
// are those behind the last that was written.
class Bf16Rows {
 public:
  static constexpr int64_t kStep = kTileRows;  // rows that are multiplied at a time

  Bf16Rows(int64_t rows, int64_t depth)
      : depth(whole_chunks(depth)), data_((rows + kStep - 1) / kStep * kStep * whole_chunks(depth)) {}

  // Where the numbers of `row` from k on go, a whole chunk.
  Chunk chunk(int64_t row, int64_t k) const {
    return {data_ + row / kStep * kStep * depth + k * kStep + row % kStep * kGroup};
  }

  const int64_t depth;

 private:
  Buffer<BFloat16> data_;
};

// Rows is even; a: the first of them, of a tile of Bf16Rows.
template <int64_t Rows>
PYFASTCAL_NEON_INLINE void multiply(const BFloat16* a, const Pair* panel, int64_t depth, Vec (&acc)[Rows][kTileVecs]) {
  constexpr int64_t kHalf = 4, kPairs = Rows / 2;  // a panel's pairs of columns in halves: both at once do not fit
  const auto load8 = [](const void* p) { return vreinterpretq_bf16_u16(vld1q_u16(static_cast<const uint16_t*>(p))); };
  float32x4_t sum[kPairs][2 * kHalf];  // of rows 2 r, 2 r + 1 and columns 2 c, 2 c + 1
  PYFASTCAL_UNROLL
  for (int64_t r = 0; r < kPairs; ++r) {
    PYFASTCAL_UNROLL
    for (int64_t c = 0; c < 2 * kHalf; ++c) sum[r][c] = vdupq_n_f32(0.0f);
  }
  for (int64_t k = 0; k < depth; k += kGroup, a += kTileRows * kGroup, panel += kPanel) {
    bfloat16x8_t x[kPairs];
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < kPairs; ++r) x[r] = load8(a + 2 * r * kGroup);
    PYFASTCAL_UNROLL
    for (int64_t half = 0; half < 2; ++half) {
      bfloat16x8_t y[kHalf];
      PYFASTCAL_UNROLL
      for (int64_t c = 0; c < kHalf; ++c) y[c] = load8(panel + 2 * (half * kHalf + c));
      PYFASTCAL_UNROLL
      for (int64_t c = 0; c < kHalf; ++c) {
        PYFASTCAL_UNROLL
        for (int64_t r = 0; r < kPairs; ++r) {
          float32x4_t& s = sum[r][half * kHalf + c];
          s = vbfmmlaq_f32(s, x[r], y[c]);
        }
      }
    }
  }
  PYFASTCAL_UNROLL
  for (int64_t r = 0; r < kPairs; ++r) {
    PYFASTCAL_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float64x2_t left = vreinterpretq_f64_f32(sum[r][2 * i]), right = vreinterpretq_f64_f32(sum[r][2 * i + 1]);
      acc[2 * r][0].v[i] = vreinterpretq_f32_f64(vzip1q_f64(left, right));
      acc[2 * r + 1][0].v[i] = vreinterpretq_f32_f64(vzip2q_f64(left, right));
    }
  }
}

// As multiply_panel of fp32.
template <class F>
inline void multiply_panel(const Bf16Rows& a, int64_t rows, const Pair* panel, const F& tile) {
  static_assert(kTileRows == 6 && kTileVecs == 1);
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) {
    Vec acc[kTileRows][kTileVecs];
    multiply<kTileRows>(a.chunk(row, 0).first, panel, a.depth, acc);
    tile(row, acc);
  }
  for (; row < rows; row += 2) {  // the second may be none: its sums are dropped
    Vec acc[2][kTileVecs];
    multiply<2>(a.chunk(row, 0).first, panel, a.depth, acc);
    if (row + 1 < rows) {
      tile(row, acc);
    } else {
      Vec one[1][kTileVecs] = {{acc[0][0]}};
      tile(row, one);
    }
  }
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
