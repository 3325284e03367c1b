// What the kernels of knn share: the search, the facts of its rows, and how far a score may be off.
//
// Scores. With x = b / |b| or, without normalize, x = b, the nearest rows have the largest q.x - h, where h is |x|^2 /
// 2 without normalize and 0 with it. The product runs on the rows themselves where they are 16-bit numbers of one type
// at 16-byte boundaries. Else it runs on copies: fp16, scaled by a power of two, with normalize; bf16, which has the
// range of fp32, without.
//
// Slack: twice the bound of a score's error, so that no true neighbour is lost. With u = 2^-24, L the length of the
// query's row in the product, X the largest |x|, r and R the query's and the bank's largest relative rounding error of
// a copy (measured; 0 in place), the bound is the sum of
//   - accumulation: tensor cores take a step of 16 columns in blocks of 4 products or more; a block's products and the
//   sum
//     so far are aligned to the largest, cut to no fewer than 24 bits and added (Fasi,
//     Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021). With blocks of 4, five
//     terms and the result lose less than 2^-23 of the largest each, which is at most L X, four times a step; with
//     larger ones less. So 48 u ceil(D / 16) L X in all, for mma.sync and for wgmma, in whatever order steps come;
//   - the copies: (r + R + r R) L X;
//   - the roundings of factors, h and the last operations in fp32: 8 u (L X + X^2), X^2 without normalize only.
// A hundredth more covers the products of these small numbers.
#pragma once
#include "../../../common/arguments.h"
#include "../../runtime/primitives.cuh"

namespace pyfastcal::cuda {

inline constexpr int64_t kMostNeighbours = 128;  // above, pyfastcal/ops/knn.py takes the reference

namespace knn {

struct alignas(8) Candidate {
  float score;
  int index;
};

enum class State : int { kJudged, kOutOfRange, kNotFinite };

struct Scratch;

struct QueryFacts {
  double scale;
  float length, residual;  // L and r of the slack
  State state;
};

// Over the bank; zeros to begin with.
struct Totals {
  uint32_t largest, residual;             // bits of X and R
  int not_finite_last, not_finite_first;  // 1 + the last such row; M - the first
  int out_of_range;                       // how many
};

// What the kernels share. The queries, their facts and the outputs are of one chunk, which begins at first_query.
struct Search {
  Matrix queries, bank;
  int64_t first_query;
  bool exclude_self, normalize;
  int k, splits;                // parts of the bank; a query has a list for each
  int kept, trigger, capacity;  // of a list: how many pruning keeps; when it is pruned; its room
  QueryFacts* query_facts;
  double* bank_scale;
  float* fact;        // of bank rows: score = product * fact with normalize, product - fact without; NaN: none passes
  int* out_of_range;  // bank rows
  Totals* totals;
  int* counts;       // [split][query]
  Candidate* lists;  // [split][query][capacity]
  Scratch* scratch;  // [block of scan][team]
  float* distances;  // [query][k]
  int64_t* indices;
};

__device__ inline float slack(const Search& s, const QueryFacts& query) {
  constexpr float u = 0x1p-24f;
  const float X = __uint_as_float(s.totals->largest), R = __uint_as_float(s.totals->residual), r = query.residual;
  const float accumulation = 48 * u * float((s.queries.cols + 15) / 16);
  return 2.02f * (query.length * X * (accumulation + r + R + r * R + 8 * u) + (s.normalize ? 0 : X * X * (8 * u)));
}

}  // namespace knn

}  // namespace pyfastcal::cuda
