// bins: how many confidences fall in each bin, how many of those are correct, and the sum of the confidences. A cell is
// a bin of a group. All sums are of integers: neither the order of the samples nor that of the atomics can be seen.
//
// Up to a few hundred cells every thread has a histogram of its own in shared memory, count, correct and sum packed in
// one word per cell, laid out so that the threads of a warp never meet in a bank. Blocks add these up and add to the
// totals in global memory before a field can overflow. More cells: each thread adds to the totals directly, runs of
// samples of one cell at a time. One launch for small batches, two for larger ones. Workspace: bins_workspace().
#pragma once
#include "../../common/bins.h"
#include "../rows/rows.cuh"
#include "../runtime/launch.cuh"
#include "bins/histogram.cuh"
#include "bins/parts.cuh"

namespace pyfastcal::cuda {

// As many booleans as a vector has numbers.
template <int kSize>
struct Booleans {
  std::conditional_t<kSize == 8, uint64_t, std::conditional_t<kSize == 4, uint32_t, uint16_t>> bytes;
  __device__ __forceinline__ uint32_t operator[](int e) const { return uint32_t(bytes >> (8 * e)) & 1; }
};

__device__ __forceinline__ double to_real(double x) { return x; }
template <class T>
__device__ __forceinline__ float to_real(T x) {
  return to_float(x);
}
template <class T>
using Real = decltype(to_real(T()));

template <class T>
__device__ __forceinline__ void to_reals(const Vector<T>& v, Real<T> (&x)[Vector<T>::kSize]) {
  if constexpr (std::is_same_v<T, double>)
    memcpy(x, &v, 16);
  else
    to_floats(v, x);
}

template <class T>
struct BinArguments {
  const T* confidence;
  const bool* correct;
  const int64_t* group;
  int64_t n;
  Bins bins;
  int64_t *totals, *invalid;
  bool aligned;       // vector loads may be used
  bool edges_fit;     // in shared memory; else bins.edges are there
  bool single_block;  // nothing was cleared
};

inline constexpr int kMostBinThreads = 256;
inline constexpr int kSamples = 16;  // of a thread at a time

// Left alone, the compiler spills a register for the sake of a fifth block, but not on 9.0, where it was measured so.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
#define PYFASTCAL_BIN_BOUNDS __launch_bounds__(kMostBinThreads)
#else
#define PYFASTCAL_BIN_BOUNDS __launch_bounds__(kMostBinThreads, 4)
#endif

template <class T, class Histogram>
__global__ void PYFASTCAL_BIN_BOUNDS count_bins(BinArguments<T> a) {
  constexpr int kSize = Vector<T>::kSize, kVectors = kSamples / kSize;
  PYFASTCAL_SHARED(uint64_t, shared);
  PYFASTCAL_STATIC_SHARED(Parts, parts);
  const int64_t threads = blockDim.x, thread = threadIdx.x;
  const int n_bins = int(a.bins.n_bins), cells = n_bins * int(a.bins.n_groups);
  const bool closed_right = a.bins.closed_right;

  Histogram histogram(shared, {a.totals, cells});
  const float* edges = a.bins.edges;
  if (Histogram::kInShared || a.edges_fit) {
    float* const copy = reinterpret_cast<float*>(shared + (Histogram::kInShared ? cells * threads : 0));
#pragma unroll 1
    for (int i = int(thread); i <= n_bins; i += int(threads)) copy[i] = edges ? edges[i] : uniform_edge(i, n_bins);
    edges = copy;
    __syncthreads();
  }
  const int64_t tile = threads * kSamples;
  const int n_parts = Parts::count(n_bins);
  // whole tiles, that is, vectors, are worth the parts
  bool searched = !Histogram::kInShared || std::is_same_v<T, double> || a.group || !a.aligned || a.n < tile;
  if (!searched) {
    if (thread == 0) parts.crowded = 0;
    __syncthreads();
    parts.fill(edges, n_bins, closed_right, n_parts);
    __syncthreads();
    searched = parts.crowded;
  }
  if (a.single_block && thread == 0) *a.invalid = 0;  // before the barriers of the first flush

  uint32_t invalid = 0;
  const auto add = [&](Real<T> x, uint32_t correct, int64_t group) {
    if (valid_confidence(x) && uint64_t(group) < uint64_t(a.bins.n_groups)) {
      x = at_most_one(x);
      histogram.add(int(group) * n_bins + find_bin(x, edges, 0, n_bins - 1, closed_right),
                    Tally::pack(uint64_t(fixed_point(x)), correct));
    } else {
      ++invalid;
    }
  };

  // f(numbers, whether they are correct, the first one's place) of a thread's vectors of a tile: all loads first
  const auto each_vector = [&](int64_t begin, const auto& f) {
    Vector<T> x[kVectors];
    Booleans<kSize> correct[kVectors];
    const auto place = [&](int j) { return begin + (j * threads + thread) * kSize; };
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      memcpy(&x[j], __builtin_assume_aligned(a.confidence + place(j), 16), 16);
      memcpy(&correct[j], __builtin_assume_aligned(a.correct + place(j), kSize), kSize);
    }
#pragma unroll
    for (int j = 0; j < kVectors; ++j) {
      Real<T> real[kSize];
      to_reals(x[j], real);
      f(real, correct[j], place(j));
    }
  };
  // without a branch
  const auto add_found = [&](const Real<T>(&x)[kSize], const Booleans<kSize>& correct, int64_t) {
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      const bool valid = valid_confidence(x[e]);
      const Real<T> confidence = at_most_one(x[e]);
      const uint64_t word = Tally::pack(uint64_t(fixed_point(confidence)), correct[e]);
      histogram.add(parts.find(float(confidence), float(n_parts)), word & (0 - uint64_t(valid)));
      invalid += !valid;
    }
  };
  const auto add_searched = [&](const Real<T>(&x)[kSize], const Booleans<kSize>& correct, int64_t first) {
    int64_t group[kSize] = {};
    if (a.group) memcpy(group, __builtin_assume_aligned(a.group + first, 16), sizeof group);
#pragma unroll
    for (int e = 0; e < kSize; ++e) add(x[e], correct[e], group[e]);
  };
  const auto add_singly = [&](int64_t begin) {
#pragma unroll 1
    for (int j = 0; j < kSamples; ++j) {
      const int64_t i = begin + j * threads + thread;
      if (i < a.n) add(to_real(a.confidence[i]), a.correct[i], a.group ? a.group[i] : 0);
    }
  };

  uint32_t pending = 0;
  for (int64_t begin = blockIdx.x * tile; begin < a.n; begin += gridDim.x * tile) {
    if (!Histogram::kInShared || !a.aligned || begin + tile > a.n)
      add_singly(begin);
    else if (searched)
      each_vector(begin, add_searched);
    else
      each_vector(begin, add_found);
    pending += kSamples;
    if (pending + kSamples > Tally::kMostPacked) {
      histogram.flush(false);
      pending = 0;
    }
  }
  histogram.flush(a.single_block);
  if (invalid) Totals::add_to(a.invalid, invalid);
}

// Zeroes the totals and the number of invalid samples, and makes edges of equal widths where they are wanted.
static __global__ void clear_counts(int64_t* totals, int64_t n, int64_t* invalid, float* edges, int n_bins) {
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = first; i < n; i += step) totals[i] = 0;
  if (edges)
    for (int64_t i = first; i <= n_bins; i += step) edges[i] = uniform_edge(i, n_bins);
  if (first == 0) *invalid = 0;
}

template <class T>
cudaError_t launch_clear_counts(const BinArguments<T>& a, float* edges, cudaStream_t stream) {
  const int64_t totals = 3 * a.bins.n_bins * a.bins.n_groups, blocks = (totals + 255) / 256;
  return PYFASTCAL_LAUNCH(clear_counts, dim3(uint32_t(blocks < 1024 ? blocks : 1024)), dim3(256), 0, stream, a.totals,
                          totals, a.invalid, edges, int(a.bins.n_bins));
}

template <class Histogram, class T>
cudaError_t launch_count_bins(BinArguments<T> a, float* workspace, int threads, size_t histogram_bytes,
                              cudaStream_t stream) {
  const size_t shared = histogram_bytes + (a.edges_fit ? size_t(a.bins.n_bins + 1) * sizeof(float) : 0);
  const int64_t tile = int64_t(threads) * kSamples, tiles = (a.n + tile - 1) / tile;
  a.single_block = Histogram::kInShared && tiles <= 4 && a.n > 0;
  int64_t blocks = 1;
  if (!a.single_block) {
    const bool make_edges = !a.edges_fit && !a.bins.edges;
    if (const auto error = launch_clear_counts(a, make_edges ? workspace : nullptr, stream)) return error;
    if (a.n == 0) return cudaSuccess;
    if (make_edges) a.bins.edges = workspace;
    if (const auto error = resident_blocks<count_bins<T, Histogram>>(threads, shared, &blocks)) return error;
    blocks = blocks < tiles ? blocks : tiles;
  }
  return PYFASTCAL_LAUNCH((count_bins<T, Histogram>), dim3(uint32_t(blocks)), dim3(threads), shared, stream, a);
}

inline bool edges_fit(const Bins& bins) { return bins.n_bins < 4096; }
// Bytes: for edges of equal widths that do not fit in shared memory.
inline int64_t bins_workspace(const Bins& bins) {
  return edges_fit(bins) || bins.edges ? 0 : (bins.n_bins + 1) * int64_t(sizeof(float));
}

// totals: (3, n_groups, n_bins) counts, correct, confidence * 2^32; invalid: the number of values that are no
// confidence or belong to no group, and are left out. Both are written, not added to. group: one entry per value, or
// null. Fewer than 2^31 cells.
inline cudaError_t launch_bins(const void* confidence, Dtype dtype, const bool* correct, const int64_t* group,
                               int64_t n, const Bins& bins, int64_t* totals, int64_t* invalid, void* workspace,
                               cudaStream_t stream) {
  const int64_t cells = bins.n_bins * bins.n_groups;
  if (cells >= int64_t(1) << 31) return cudaErrorInvalidValue;
  const auto launch = [&]<class T>(const T* data) {
    const bool aligned = is_aligned(data) && is_aligned(correct) && is_aligned(group);
    const BinArguments<T> a{data, correct, group, n, bins, totals, invalid, aligned, edges_fit(bins), false};
    float* const edges = static_cast<float*>(workspace);
    // As many threads as 48 KiB hold histograms of, but a warp may take 80 KiB: every GPU since sm_80 has 99.
    const int64_t of_warp = cells * int64_t(32 * sizeof(uint64_t)), fit = 48 * 1024 / of_warp;
    if (of_warp > 80 * 1024) return launch_count_bins<Run>(a, edges, kMostBinThreads, 0, stream);
    const int64_t warps = fit < 1 ? 1 : fit < kMostBinThreads / 32 ? fit : kMostBinThreads / 32;
    return launch_count_bins<PrivateHistogram>(a, edges, int(32 * warps), size_t(warps * of_warp), stream);
  };
  return dtype == Dtype::kDouble ? launch(static_cast<const double*>(confidence))
                                 : with_type(confidence, dtype, launch);
}

}  // namespace pyfastcal::cuda
