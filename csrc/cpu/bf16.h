// Products of bf16 numbers, where the processor has instructions for them: vdpbf16ps or, 16 times as fast, the tiles
// of AMX; Arm's are in bf16_neon.h. The product of two bf16 numbers is exact in fp32, in which the sums are.
//
// Every element is one chain of steps in a fixed order over k, the same wherever its row and column lie in a block;
// which chain, depends on the instruction: vdpbf16ps adds the two products of a pair after each other, a tile the 16
// even products of 32 and the 16 odd ones apart, then both to what it has. No path from a product to its sum has more
// than depth + 2 roundings to nearest, or as large an error. Denormals count as zero and are flushed, of the input and
// of every sum.
#pragma once
#include "gemm.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

#if defined(PYFASTCAL_BF16)
inline constexpr bool kBf16Products = true;

inline constexpr int64_t kChunk = 32;  // of k, what a row of a tile holds; rows are padded with zeros to whole ones
inline int64_t whole_chunks(int64_t depth) { return (depth + kChunk - 1) / kChunk * kChunk; }

#if defined(PYFASTCAL_NEON)
using Pair = uint64_t;  // four numbers
#else
// Two bf16 numbers that follow each other in k, in each of 16 lanes.
using Pair = uint32_t;
struct Pairs {
  __m512i v;
};
inline Pairs load_pairs(const Pair* p) { return {_mm512_loadu_si512(p)}; }
inline Pairs set1_pair(const BFloat16* p) {
  int pair;
  std::memcpy(&pair, p, 4);
  return {_mm512_set1_epi32(pair)};
}
inline Pairs as_pairs(Vec a) { return {_mm512_castps_si512(a.v)}; }
inline Vec dot(Pairs a, Pairs b, Vec c) { return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)}; }

// lo and hi rounded to bf16 (to nearest, ties to even), which they become; written to p one after the other.
inline void store_rounded(BFloat16* p, Vec& lo, Vec& hi) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(hi.v, lo.v);
  _mm512_storeu_si512(p, both);
  const auto widened = [](__m256i half) {
    return Vec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  };
  lo = widened(_mm512_castsi512_si256(both)), hi = widened(_mm512_extracti64x4_epi64(both, 1));
}
#endif
inline constexpr int64_t kGroup = sizeof(Pair) / sizeof(BFloat16);  // of k, in a Pair

// n numbers and zeros, a whole chunk.
inline void copy_chunk(const BFloat16* from, int64_t n, BFloat16* out) {
  std::memcpy(out, from, sizeof(BFloat16) * n);
  for (int64_t j = n; j < kChunk; ++j) out[j] = {0};
}

// The squared lengths of a row and of what rounding took from it.
struct Rounded {
  float square, lost;
};

// A row as bf16, with zeros up to a whole chunk; the numbers from k on go to chunk(k).
template <class T, class F>
inline Rounded round_row(const T* row, int64_t n, const F& chunk) {
  Vec square[2] = {set1(0.0f), set1(0.0f)}, lost[2] = {set1(0.0f), set1(0.0f)};
  for (int64_t k = 0; k < n; k += kChunk) {
    const bool whole = k + kChunk <= n;
    const Vec x[2] = {whole ? load(row + k) : load_first(row + k, min(kLanes, n - k), 0.0f),
                      whole ? load(row + k + kLanes) : load_first(row + k + kLanes, max(0, n - k - kLanes), 0.0f)};
    Vec rounded[2] = {x[0], x[1]};
    store_rounded(chunk(k), rounded[0], rounded[1]);
    for (int j = 0; j < 2; ++j) {
      const Vec rest = x[j] - rounded[j];
      square[j] = fma(x[j], x[j], square[j]);
      lost[j] = fma(rest, rest, lost[j]);
    }
  }
  return {reduce_add(square[0] + square[1]), reduce_add(lost[0] + lost[1])};
}

#if !defined(PYFASTCAL_NEON)
// A block of rows as multiply_panel reads them; uninitialised, and so are those behind the last that was written.
class Bf16Rows {
 public:
#if defined(PYFASTCAL_AMX)
  static constexpr int64_t kTile = 16;  // rows: their chunks lie together, so that a tile is loaded from one piece
#else
  static constexpr int64_t kTile = 1;
#endif
  static constexpr int64_t kStep = kTile == 1 ? kTileRows : 2 * kTile;  // rows that are multiplied at a time

  Bf16Rows(int64_t rows, int64_t depth)
      : depth(whole_chunks(depth)), data_((rows + kStep - 1) / kStep * kStep * whole_chunks(depth)) {}

  // The numbers of `row` from k on, a whole chunk.
  BFloat16* chunk(int64_t row, int64_t k) const {
    return data_ + row / kTile * kTile * depth + k * kTile + row % kTile * kChunk;
  }

  const int64_t depth;

 private:
  Buffer<BFloat16> data_;
};

#endif

// A matrix as panels of kPanel columns, pair by pair (or four by four) of k.
class Bf16Packed {
 public:
  Bf16Packed(int64_t cols, int64_t depth)
      : cols(cols), depth(whole_chunks(depth)), data_(panels(cols) * kPanel * whole_chunks(depth) / kGroup) {}

  // write(i, row, scratch): column i as `depth` numbers; scratch holds twice as many
  template <class F>
  void fill(const F& write) {
    parallel_tasks(panels(cols), [&](int64_t p) {
      const int64_t begin = p * kPanel, n = min(kPanel, cols - begin), pairs = depth / kGroup;
      const Buffer<BFloat16> rows(kPanel * depth);
      const Buffer<float> scratch(2 * depth);
      std::memset(rows + n * depth, 0, sizeof(BFloat16) * (kPanel - n) * depth);
      for (int64_t j = 0; j < n; ++j) write(begin + j, rows + j * depth, static_cast<float*>(scratch));
      Pair* out = data_ + p * kPanel * pairs;
      constexpr int64_t kBlock = kChunk / kGroup;  // of pairs: what is written stays in L1 between columns
      for (int64_t k0 = 0; k0 < pairs; k0 += kBlock)
        if constexpr (sizeof(Pair) == sizeof(float) && kBlock == kLanes) {
          for (int64_t j = 0; j < kPanel; j += kLanes) {
            Vec x[kLanes];
            transpose(reinterpret_cast<const float*>(rows + j * depth + kGroup * k0), depth / kGroup, x);
            for (int64_t k = 0; k < kLanes; ++k) store(reinterpret_cast<float*>(out + (k0 + k) * kPanel + j), x[k]);
          }
        } else {
          for (int64_t j = 0; j < kPanel; ++j)
            for (int64_t k = k0; k < k0 + kBlock; ++k)
              std::memcpy(out + k * kPanel + j, rows + j * depth + kGroup * k, sizeof(Pair));
        }
    });
  }
  const Pair* panel(int64_t p) const { return data_ + p * kPanel * (depth / kGroup); }

  const int64_t cols, depth;

 private:
  Buffer<Pair> data_;
};

#if defined(PYFASTCAL_NEON)
#elif defined(PYFASTCAL_AMX)
inline constexpr bool kAmx = true;

// This thread's tiles, 8 of 16 rows of 64 bytes, while one of these lives.
class Tiles {
 public:
  Tiles() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    asm volatile("" : : "r"(&shape) : "memory");  // GCC's intrinsics do not say that they read memory
    _tile_loadconfig(&shape);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// As multiply_panel of fp32. Tiles: 0 to 3 are the sums of 32 rows and 32 columns, 4 and 5 rows, 6 and 7 columns.
template <class F>
inline void multiply_panel(const Bf16Rows& a, int64_t rows, const Pair* panel, const F& tile) {
  static_assert(kPanel == 32);
  alignas(64) float sums[32 * kPanel];
  constexpr int64_t kRowBytes = kPanel * sizeof(float);
  const int64_t depth = a.depth;
  asm volatile("" : : : "memory");
  for (int64_t row = 0; row < rows; row += 32) {
    const BFloat16 *upper = a.chunk(row, 0), *lower = a.chunk(row + 16, 0);
    const Pair* b = panel;
    const bool both = rows - row > 16;
    // the panel stays in L1 for the next rows, these do not (a third faster)
    _tile_zero(0);
    _tile_zero(1);
    if (both) {
      _tile_zero(2);
      _tile_zero(3);
      for (int64_t k = 0; k < depth; k += kChunk, b += kChunk / 2 * kPanel) {
        _tile_loadd(6, b, kRowBytes);
        _tile_stream_loadd(4, upper + 16 * k, 64);
        _tile_loadd(7, b + 16, kRowBytes);
        _tile_stream_loadd(5, lower + 16 * k, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(2, sums + 16 * kPanel, kRowBytes);
      _tile_stored(3, sums + 16 * kPanel + 16, kRowBytes);
    } else {
      for (int64_t k = 0; k < depth; k += kChunk, b += kChunk / 2 * kPanel) {
        _tile_loadd(6, b, kRowBytes);
        _tile_stream_loadd(4, upper + 16 * k, 64);
        _tile_loadd(7, b + 16, kRowBytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
      }
    }
    _tile_stored(0, sums, kRowBytes);
    _tile_stored(1, sums + 16, kRowBytes);
    const auto run = [&](auto size, int64_t r) {
      constexpr int64_t n = size();
      Vec acc[n][kTileVecs];
      PYFASTCAL_UNROLL
      for (int64_t i = 0; i < n; ++i) {
        PYFASTCAL_UNROLL
        for (int64_t v = 0; v < kTileVecs; ++v) acc[i][v] = load(sums + (r + i) * kPanel + v * kLanes);
      }
      tile(row + r, acc);
    };
    const int64_t left = min(32, rows - row);
    int64_t r = 0;
    for (; r + 4 <= left; r += 4) run(std::integral_constant<int64_t, 4>(), r);
    for (; r < left; ++r) run(std::integral_constant<int64_t, 1>(), r);
  }
}

#else
inline constexpr bool kAmx = false;

struct Tiles {
  Tiles() {}  // not trivial, so that none is called unused
};

template <int64_t Rows>
inline void multiply(const BFloat16* a, const Pair* panel, int64_t depth, Vec (&acc)[Rows][kTileVecs]) {
  PYFASTCAL_UNROLL
  for (int64_t r = 0; r < Rows; ++r) {
    PYFASTCAL_UNROLL
    for (int64_t v = 0; v < kTileVecs; ++v) acc[r][v] = set1(0.0f);
  }
  for (int64_t k = 0; k < depth; k += 2, panel += kPanel) {
    Pairs b[kTileVecs];
    PYFASTCAL_UNROLL
    for (int64_t v = 0; v < kTileVecs; ++v) b[v] = load_pairs(panel + v * kLanes);
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < Rows; ++r) {
      const Pairs x = set1_pair(a + r * depth + k);
      PYFASTCAL_UNROLL
      for (int64_t v = 0; v < kTileVecs; ++v) acc[r][v] = dot(x, b[v], acc[r][v]);
    }
  }
}

// As multiply_panel of fp32.
template <class F>
inline void multiply_panel(const Bf16Rows& a, int64_t rows, const Pair* panel, const F& tile) {
  const auto run = [&](auto size, int64_t row) {
    Vec acc[size()][kTileVecs];
    multiply<size()>(a.chunk(row, 0), panel, a.depth, acc);
    tile(row, acc);
  };
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) run(std::integral_constant<int64_t, kTileRows>(), row);
  for (; row + 2 <= rows; row += 2) run(std::integral_constant<int64_t, 2>(), row);
  for (; row < rows; ++row) run(std::integral_constant<int64_t, 1>(), row);
}

#endif

#else
inline constexpr bool kBf16Products = false;
#endif

}  // namespace pyfastcal::PYFASTCAL_VARIANT

#if defined(PYFASTCAL_BF16) && defined(PYFASTCAL_NEON)
#include "bf16_neon.h"
#endif
