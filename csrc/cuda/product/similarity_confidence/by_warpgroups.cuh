// similarity_confidence on the product by warpgroups: what becomes of a tile of products between those of the next one,
// and the kernel. As epilogue.cuh, but a row's columns lie in four lanes of one warp: each keeps what it knows of its
// own, and they put it together when the row ends.
#pragma once
#include "../warpgroups/lengths.cuh"
#include "../warpgroups/product.cuh"
#include "parts.cuh"
#include "sweeps.cuh"

namespace pyfastcal::cuda::similarity_confidence {

template <class T>
struct GroupArguments {
  Arguments<T> of;   // col_tiles of warpgroups::kCols; factors of rows are found on the way
  Divisor row_step;  // from one of a block's row tiles to the next; with parts: as many as there are, so no next one
  prim::TensorMap images, texts;
};

// The tiles of a block: row tile by row tile; or some of one row tile.
template <class T>
class GroupTiles {
 public:
  __device__ explicit GroupTiles(const GroupArguments<T>& a) : a_(a) {
    const int block = int(blockIdx.x), split = a.of.splits.remainder(block);
    first_row_tile_ = a.of.parts ? a.of.splits.quotient(block) : block;
    first_ = a.of.parts ? first_tile(split) : 0;
    const int row_tiles = a.row_step.quotient(a.of.row_tiles - first_row_tile_ + a.row_step.divisor() - 1);
    size_ = a.of.parts ? first_tile(split + 1) - first_ : row_tiles * a.of.col_tiles.divisor();
  }
  __device__ int first_row(int row_tile) const {
    return (row_tile * a_.row_step.divisor() + first_row_tile_) * kTileRows;
  }
  __device__ int size() const { return size_; }
  __device__ int row_tile(int i) const { return a_.of.col_tiles.quotient(first_ + i); }
  __device__ int col_tile(int i) const { return a_.of.col_tiles.remainder(first_ + i); }
  __device__ bool begins_rows(int i) const { return i == 0 || col_tile(i) == 0; }
  __device__ bool ends_rows(int i) const { return i + 1 == size_ || col_tile(i) + 1 == a_.of.col_tiles.divisor(); }
  __device__ warpgroups::Tile operator[](int i) const {
    return {&a_.images, &a_.texts, first_row(row_tile(i)), col_tile(i) * warpgroups::kCols};
  }

 private:
  __device__ int first_tile(int split) const { return a_.of.splits.quotient(split * a_.of.col_tiles.divisor()); }

  const GroupArguments<T>& a_;
  int first_row_tile_, first_, size_;
};

// How many sums a row has: 1, 2 or kFewWeights.
__device__ inline int sums_of(const Weights* weights) {
  const int count = weights ? weights->count : 1;
  return count > kFewWeights ? 0 : count > 2 ? kFewWeights : count;
}

// kSums: of each row, one for each distinct class weight; 0 where logits are stored, to be summed when the row ends.
template <class T, bool kBias, int kSums>
class GroupEpilogue {
 public:
  using Place = warpgroups::Place;
  using Accumulators = Place::Accumulators;

  __device__ __forceinline__ GroupEpilogue(const GroupArguments<T>& a, const GroupTiles<T>& tiles,
                                           warpgroups::Lengths& lengths)
      : a_(a.of), tiles_(tiles), lengths_(lengths) {}

  __device__ __forceinline__ void begin(int i) {
    i_ = i;
    if (kBeginsEarly) begin_tile();
  }

  // The first looks what tile it is, behind the next one's first products; those up to kTopParts make logits and find
  // the largest, the others sum powers.
  template <int p>
  __device__ __forceinline__ void part(Accumulators& acc) {
    constexpr int kElements = 4 * Place::kColBlocks, kFirst = kBeginsEarly ? 0 : 1, kFinders = kTopParts - kFirst,
                  kAdders = warpgroups::kParts - kTopParts;
    if constexpr (p < kFirst) {
      begin_tile();
    } else if constexpr (p < kTopParts) {
#pragma unroll
      for (int n = Place::kColBlocks * (p - kFirst) / kFinders; n < Place::kColBlocks * (p - kFirst + 1) / kFinders;
           ++n)
        find_top(acc, n);
      if constexpr (p + 1 == kTopParts) end_tops();
    } else {
#pragma unroll
      for (int j = kElements * (p - kTopParts) / kAdders; j < kElements * (p - kTopParts + 1) / kAdders; ++j)
        add_power(acc[0][j / 4][j % 4], j / 2 % 2);
    }
    if constexpr (p + 1 == warpgroups::kParts) end_tile();
  }

 private:
  // as the work is: 4 instructions an element, then 1 and 3 for each sum
  static constexpr int kTopParts = kSums == 0 ? 32 : kSums == 1 ? 16 : kSums == 2 ? 12 : 8;
  static constexpr bool kBeginsEarly = kSums == kFewWeights;  // no register is left to put that off
  static constexpr int kStoredSums = kSums == 0 ? 1 : kSums;

  __device__ int rows() const { return int(a_.product.a.rows); }
  __device__ int row(int half) const { return first_row_ + Place::row(0, half); }

  __device__ __forceinline__ void begin_tile() {
    const int row_tile = tiles_.row_tile(i_);
    first_class_ = tiles_.col_tile(i_) * warpgroups::kCols;
    first_row_ = tiles_.first_row(row_tile);
    ends_ = tiles_.ends_rows(i_);
    if (tiles_.begins_rows(i_)) begin_rows(row_tile);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top_of_tile_[half] = -FLT_MAX;
      first_[half] = 0;
#pragma unroll
      for (int w = 0; w < kSums; ++w) added_[w][half] = 0;
    }
  }

  __device__ __forceinline__ void begin_rows(int row_tile) {
    float factor[2];
    lengths_.take(factor, row_tile & 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* const weights = a_.factors.sample_weight;
      const float weight = weights ? weights[min(row(half), rows() - 1)] : 1.0f;
      if (a_.parts && first_class_ == 0 && threadIdx.x % 4 == 0 && row(half) < rows())
        a_.found_factor[row(half)] = factor[half];
      scale_[half] = a_.logit_scale * factor[half];
      gain_[half] = kBias ? weight : weight * scale_[half];
      top_[half] = -FLT_MAX;  // so that a lane whose classes are all masked, or past the last, adds nothing, not NaN
      index_[half] = 0;
#pragma unroll
      for (int w = 0; w < kSums; ++w) sum_[w][half] = 0;
    }
  }

  // From products of eight columns to logits (without bias but for the row's scale), and their largest.
  __device__ __forceinline__ void find_top(Accumulators& acc, int n) {
    const float4 two = __ldg(reinterpret_cast<const float4*>(a_.columns + first_class_ + Place::col(n, 0)));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float (&x)[4] = acc[0][n];
      float &even = x[2 * half], &odd = x[2 * half + 1];
      even = __fmaf_rn(kBias ? even * scale_[half] : even, two.x, two.y);
      odd = __fmaf_rn(kBias ? odd * scale_[half] : odd, two.z, two.w);
      first_[half] = even > top_of_tile_[half] ? n * 8 : first_[half];
      top_of_tile_[half] = fmaxf(top_of_tile_[half], even);
      first_[half] = odd > top_of_tile_[half] ? n * 8 + 1 : first_[half];
      top_of_tile_[half] = fmaxf(top_of_tile_[half], odd);
      if (kSums == 0) *reinterpret_cast<float2*>(scores(half) + first_class_ + Place::col(n, 0)) = {even, odd};
    }
  }

  __device__ __forceinline__ void end_tops() {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int w = 0; w < kSums; ++w) power_[w][half] = RelativePower(top_of_tile_[half], gain_[half] * weight(w));
  }

  __device__ __forceinline__ void add_power(float x, int half) {
#pragma unroll
    for (int w = 0; w < kSums; ++w) added_[w][half] += power_[w][half](x);
  }

  // The tile's part depends on nothing before: with the rows' others it is put together here, or by merge_parts.
  __device__ __forceinline__ void end_tile() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int index = first_class_ + Place::col(0, 0) + first_[half];
      if (a_.parts) {
        Part part{top_of_tile_[half], index, {}};
#pragma unroll
        for (int w = 0; w < kSums; ++w) part.sum[w] = added_[w][half];
        const int64_t tile = int64_t(row(half)) * a_.col_tiles.divisor() + first_class_ / warpgroups::kCols;
        if (row(half) < rows()) a_.parts[tile * 4 + threadIdx.x % 4] = part;
        continue;
      }
#pragma unroll
      for (int w = 0; w < kSums; ++w)
        sum_[w][half] =
            add_relative(sum_[w][half], top_[half], added_[w][half], top_of_tile_[half], gain_[half] * weight(w));
      if (top_of_tile_[half] > top_[half]) index_[half] = index;
      top_[half] = fmaxf(top_[half], top_of_tile_[half]);
    }
    if (ends_ && !a_.parts) end_rows();
  }

  __device__ __forceinline__ void end_rows() {
    float top[2], factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top[half] = Lanes<4>::reduce(top_[half], Max());
      const int index = Lanes<4>::reduce(top_[half] == top[half] ? index_[half] : INT_MAX, Min());
      const float class_weight = a_.factors.class_weight ? a_.factors.class_weight[index] : 1.0f;
      const bool writes = threadIdx.x % 4 == 0 && row(half) < rows();
      if (writes) a_.prediction[row(half)] = index;
      factor[half] = gain_[half] * class_weight;
      if constexpr (kSums > 0) {
        Part part{top_[half], index, {}};
#pragma unroll
        for (int w = 0; w < kSums; ++w) part.sum[w] = sum_[w][half];
        const float chosen = choose_sum(part, a_.weights, kSums, class_weight, gain_[half], top[half]);
        const float sum = Lanes<4>::reduce(chosen, Plus());
        if (writes) a_.confidence[row(half)] = confidence_or_nan(sum);
      }
    }
    if constexpr (kSums == 0) sum_scores(top, factor);
  }

  // A warp sums its rows, four at a time.
  __device__ __forceinline__ void sum_scores(const float (&top)[2], const float (&factor)[2]) {
    constexpr int kTogether = 4;
    __syncwarp();
#pragma unroll 1
    for (int r = 0; r < 16; r += kTogether) {
      RelativePower power[kTogether];
      double sum[kTogether];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        const int owner = (r + j) % 8 * 4;
        power[j] = RelativePower(__shfl_sync(~0u, r < 8 ? top[0] : top[1], owner),
                                 __shfl_sync(~0u, r < 8 ? factor[0] : factor[1], owner));
      }
      sum_stored(scores() + int64_t(Place::warp_row() + r) * width(), width(), power, sum);
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        const int row = first_row_ + Place::warp_row() + r + j;
        if (threadIdx.x % 32 == 0 && row < rows()) a_.confidence[row] = confidence_or_nan(sum[j]);
      }
    }
    __syncwarp();  // they are overwritten now
  }

  // The logits of the row tile.
  __device__ int width() const { return a_.col_tiles.divisor() * warpgroups::kCols; }
  __device__ float* scores() const {
    return a_.scores + (a_.parts ? int64_t(first_row_) : int64_t(blockIdx.x) * kTileRows) * width();
  }
  __device__ float* scores(int half) const { return scores() + int64_t(Place::row(0, half)) * width(); }

  __device__ float weight(int w) const { return a_.weights ? a_.weights->value[w] : 1.0f; }

  const Arguments<T>& a_;
  const GroupTiles<T>& tiles_;
  warpgroups::Lengths& lengths_;
  int i_ = 0, first_row_ = 0, first_class_ = 0;
  bool ends_ = false;
  // Of this thread's two rows, its columns so far: the largest logit, its class, sums of powers relative to it; the
  // row's factors; and the same of this tile's columns.
  float top_[2], sum_[kStoredSums][2], gain_[2], scale_[2];
  int index_[2];
  float top_of_tile_[2], added_[kStoredSums][2];
  int first_[2];
  RelativePower power_[kStoredSums][2];
};

// Does nothing where a row has another number of sums (the host knows only the most that there can be).
template <class T, bool kBias, int kSums>
__global__ void __launch_bounds__(warpgroups::kThreads, 1)
    predict_by_warpgroups(const __grid_constant__ GroupArguments<T> a) {
  if constexpr (prim::kOnHopper) {
    using namespace warpgroups;
    using Epilogue = GroupEpilogue<T, kBias, kSums>;
    if (sums_of(a.of.weights) != kSums) return;
    PYFASTCAL_SHARED(unsigned char, base);
    const Shared shared(base);
    Lengths& lengths = *reinterpret_cast<Lengths*>(base + kSharedBytes);
    if (threadIdx.x == 0) {
      shared.init();
      lengths.init();
      prim::publish_barriers();
    }
    __syncthreads();
    const GroupTiles<T> tiles(a);
    const auto measure = [&] {
      uint32_t parity = 1;
#pragma unroll 1
      for (int64_t row = tiles.first_row(0); row < a.of.product.a.rows; row += a.row_step.divisor() * kTileRows) {
        lengths.measure(a.of.product.a, a.of.product.depth, row, a.of.normalize, parity);
        parity ^= 1;
      }
    };
    share_out<T>(
        tiles, shared, a.of.product.depth, measure, [&] { return Epilogue(a, tiles, lengths); }, [](const auto&) {});
  } else {
    prim::trap();
  }
}

}  // namespace pyfastcal::cuda::similarity_confidence
