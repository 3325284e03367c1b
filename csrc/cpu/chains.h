// Products of fp32 rows in one order of additions, whichever way they are made: sixteen chains of multiply-adds, each
// of the k that leave the same rest when divided by sixteen, joined by the tree of reduce_add. Along a row the chains
// are the lanes of a Vec: few rows are multiplied so, by class rows as they lie (dots.h). Here, of blocks of rows and
// panels of columns, they come one after the other, in the order in which the tree joins them.
#pragma once
#include "gemm.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// The chain at place i is that of rest kChain[i], and the other way round: neighbours are joined first.
inline constexpr int64_t kChains = kLanes, kLevels = 4;
inline constexpr int64_t kChain[kChains] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

// Short chains end in zeros, which add nothing.
inline int64_t chained_depth(int64_t depth) { return whole_lanes(depth); }
inline int64_t chain_length(int64_t depth) { return chained_depth(depth) / kChains; }

inline void order_chains(const float* row, int64_t depth, float* out) {
  const int64_t length = chain_length(depth);
  int64_t t = 0;
  for (; (t + kLanes) * kChains <= depth; t += kLanes) {
    Vec x[kLanes];
    transpose(row + t * kChains, kChains, x);
    for (int64_t r = 0; r < kChains; ++r) store(out + kChain[r] * length + t, x[r]);
  }
  for (; t < length; ++t)
    for (int64_t r = 0; r < kChains; ++r)
      out[kChain[r] * length + t] = t * kChains + r < depth ? row[t * kChains + r] : 0.0f;
}

// The panel in the order of chains.
inline void pack_chains(const PanelRows& p, float* out) {
  const int64_t length = chain_length(p.depth);
  pack_columns(p, true, [=](int64_t k) { return kChain[k % kChains] * length + k / kChains; }, out);
}

// As multiply, of rows and a panel in the order of chains. joined[l]: 2^l chains, which wait for the next 2^l; the last
// is the product.
template <int64_t Rows>
inline void multiply_chains(const float* a, int64_t stride, const float* panel, int64_t length,
                            Vec (&joined)[kLevels + 1][Rows][kTileVecs]) {
  for (int64_t i = 0; i < kChains; ++i) {
    Vec sum[Rows][kTileVecs];
    multiply<Rows>(a + i * length, stride, panel + i * length * kPanel, length, sum);
    int64_t level = 0;
    for (; i >> level & 1; ++level) {
      PYFASTCAL_UNROLL
      for (int64_t r = 0; r < Rows; ++r) {
        PYFASTCAL_UNROLL
        for (int64_t v = 0; v < kTileVecs; ++v) sum[r][v] = joined[level][r][v] + sum[r][v];
      }
    }
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < Rows; ++r) {
      PYFASTCAL_UNROLL
      for (int64_t v = 0; v < kTileVecs; ++v) joined[level][r][v] = sum[r][v];
    }
  }
}

// scores[i][c] = row i of a times column c of the panel times scale[c], for n rows, which are `width` apart.
inline void store_products(const float* a, int64_t n, const float* panel, int64_t depth, const float* scale,
                           float* scores, int64_t width) {
  Vec factor[kTileVecs];
  PYFASTCAL_UNROLL
  for (int64_t v = 0; v < kTileVecs; ++v) factor[v] = load(scale + v * kLanes);
  for_each_tile(n, [&](auto size, int64_t row) {
    constexpr int64_t kRows = size();
    Vec joined[kLevels + 1][kRows][kTileVecs];
    multiply_chains<kRows>(a + row * depth, depth, panel, depth / kChains, joined);
    float* const out = scores + row * width;
    PYFASTCAL_UNROLL
    for (int64_t r = 0; r < kRows; ++r) {
      PYFASTCAL_UNROLL
      for (int64_t v = 0; v < kTileVecs; ++v) store(out + r * width + v * kLanes, joined[kLevels][r][v] * factor[v]);
    }
  });
}

}  // namespace pyfastcal::PYFASTCAL_VARIANT
