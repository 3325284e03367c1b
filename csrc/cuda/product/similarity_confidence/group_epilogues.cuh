// similarity_confidence on the product by warpgroups: what becomes of a tile of products between those of the next one.
// As epilogue.cuh, but a row's columns lie in four lanes of one warp: each keeps what it knows of its own, and they put
// it together when the row ends.
#pragma once
#include "../warpgroups/lengths.cuh"
#include "group_tiles.cuh"

namespace pyfastcal::cuda::similarity_confidence {

// What both know of this thread's two rows, and the largest logit of their columns so far.
template <class T, bool kBias>
class GroupRows {
 public:
  using Place = warpgroups::Place;
  using Accumulators = Place::Accumulators;

  __device__ __forceinline__ GroupRows(const GroupArguments<T>& a, const GroupTiles<T>& tiles,
                                       const warpgroups::Shared& shared, warpgroups::Lengths& lengths)
      : a_(a.of), tiles_(tiles), shared_(shared), lengths_(lengths) {}

 protected:
  __device__ __forceinline__ void begin_tile(int i) {
    i_ = i;
    columns_.begin(shared_, i);
    if (tiles_.begins_rows(i)) begin_rows();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top_of_tile_[half] = -FLT_MAX;
      first_[half] = 0;
    }
  }

  // From a product to the logit, without bias but for the row's scale.
  __device__ __forceinline__ float logit(float product, int half, float factor, float addend) const {
    return __fmaf_rn(kBias ? product * scale_[half] : product, factor, addend);
  }

  // The logits of eight columns, in place, and their largest.
  __device__ __forceinline__ void find_top(Accumulators& acc, int n) {
    const float4 two = columns_.two(n);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float &even = acc[0][n][2 * half], &odd = acc[0][n][2 * half + 1];
      even = logit(even, half, two.x, two.y);
      odd = logit(odd, half, two.z, two.w);
      first_[half] = even > top_of_tile_[half] ? n * 8 : first_[half];
      top_of_tile_[half] = fmaxf(top_of_tile_[half], even);
      first_[half] = odd > top_of_tile_[half] ? n * 8 + 1 : first_[half];
      top_of_tile_[half] = fmaxf(top_of_tile_[half], odd);
    }
  }

  __device__ __forceinline__ Part part_of_tile(int half) const {
    return {top_of_tile_[half], first_class() + Place::col(0, 0) + first_[half], {}};
  }
  // A tile's part depends on nothing before: with the rows' others it is put together here, or by merge_parts.
  __device__ __forceinline__ void store_part(const Part& part, int half) const {
    const int64_t tile = int64_t(row(half)) * a_.col_tiles.divisor() + first_class() / warpgroups::kCols;
    if (row(half) < rows()) a_.parts[tile * 4 + threadIdx.x % 4] = part;
  }
  __device__ __forceinline__ void keep_top(const Part& part, int half) {
    if (part.top > top_[half]) index_[half] = part.index;
    top_[half] = fmaxf(top_[half], part.top);
  }

  // Of the whole row: its largest logit; writes its class and gives that one's weight.
  __device__ __forceinline__ float end_tops(int half, float* class_weight) const {
    const float top = Lanes<4>::reduce(top_[half], Max());
    const int index = Lanes<4>::reduce(top_[half] == top ? index_[half] : INT_MAX, Min());
    *class_weight = a_.factors.class_weight ? a_.factors.class_weight[index] : 1.0f;
    if (writes(half)) a_.prediction[row(half)] = index;
    return top;
  }
  template <class Sum>
  __device__ __forceinline__ void end_rows(int half, Sum of_lane) const {
    const Sum sum = Lanes<4>::reduce(of_lane, Plus());
    if (writes(half)) a_.confidence[row(half)] = confidence_or_nan(sum);
  }

  __device__ int rows() const { return int(a_.product.a.rows); }
  // of the tile
  __device__ int first_row() const { return tiles_.first_row(tiles_.row_tile(i_)); }
  __device__ int first_class() const { return tiles_.col_tile(i_) * warpgroups::kCols; }
  __device__ int row(int half) const { return first_row() + Place::row(0, half); }

  const Arguments<T>& a_;
  const GroupTiles<T>& tiles_;
  int i_ = 0;
  warpgroups::Columns columns_;
  float top_[2], gain_[2];

 private:
  __device__ __forceinline__ void begin_rows() {
    float factor[2];
    lengths_.take(factor, tiles_.row_tile(i_) & 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* const weights = a_.factors.sample_weight;
      const float weight = weights ? weights[min(row(half), rows() - 1)] : 1.0f;
      if (a_.parts && first_class() == 0 && writes(half)) a_.found_factor[row(half)] = factor[half];
      scale_[half] = a_.logit_scale * factor[half];
      gain_[half] = kBias ? weight : weight * scale_[half];
      top_[half] = -FLT_MAX;  // so that a lane whose classes are all masked, or past the last, adds nothing, not NaN
      index_[half] = 0;
    }
  }
  __device__ bool writes(int half) const { return threadIdx.x % 4 == 0 && row(half) < rows(); }

  const warpgroups::Shared& shared_;
  warpgroups::Lengths& lengths_;
  float scale_[2], top_of_tile_[2];
  int index_[2], first_[2];
};

// One sweep, with as many sums as there are distinct class weights: parts up to kTopParts make logits and find the
// largest, the others sum powers.
template <class T, bool kBias, int kSums>
class GroupEpilogue : GroupRows<T, kBias> {
 public:
  using Rows = GroupRows<T, kBias>;
  using Rows::Rows;
  using typename Rows::Accumulators, typename Rows::Place;

  __device__ __forceinline__ void begin(int i) {
    this->begin_tile(i);
    const bool begins = this->tiles_.begins_rows(i);
#pragma unroll
    for (int w = 0; w < kSums; ++w)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        added_[w][half] = 0;
        if (begins) sum_[w][half] = 0;
      }
  }

  template <int p>
  __device__ __forceinline__ void part(Accumulators& acc) {
    constexpr int kElements = 4 * Place::kColBlocks, kAdders = warpgroups::kParts - kTopParts;
    if constexpr (p < kTopParts) {
#pragma unroll
      for (int n = Place::kColBlocks * p / kTopParts; n < Place::kColBlocks * (p + 1) / kTopParts; ++n)
        this->find_top(acc, n);
    } else {
      if constexpr (p == kTopParts) begin_powers();
#pragma unroll
      for (int j = kElements * (p - kTopParts) / kAdders; j < kElements * (p - kTopParts + 1) / kAdders; ++j)
#pragma unroll
        for (int w = 0; w < kSums; ++w) added_[w][j / 2 % 2] += power_[w][j / 2 % 2](acc[0][j / 4][j % 4]);
    }
    if constexpr (p + 1 == warpgroups::kParts) end_tile();
  }

 private:
  static constexpr int kTopParts = warpgroups::kParts / 2;  // with fewer, two sums are too many registers
  static_assert(kSums >= 1 && kSums <= kMostSums);

  __device__ __forceinline__ void begin_powers() {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int w = 0; w < kSums; ++w)
        power_[w][half] = RelativePower(this->part_of_tile(half).top, this->gain_[half] * weight(w));
  }

  __device__ __forceinline__ void end_tile() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Part part = this->part_of_tile(half);
      if (this->a_.parts) {
#pragma unroll
        for (int w = 0; w < kSums; ++w) part.sum[w] = added_[w][half];
        this->store_part(part, half);
        continue;
      }
#pragma unroll
      for (int w = 0; w < kSums; ++w)
        sum_[w][half] =
            add_relative(sum_[w][half], this->top_[half], added_[w][half], part.top, this->gain_[half] * weight(w));
      this->keep_top(part, half);
    }
    if (this->tiles_.ends_rows(this->i_) && !this->a_.parts)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float class_weight;
        const float top = this->end_tops(half, &class_weight);
        Part part{this->top_[half], 0, {}};
#pragma unroll
        for (int w = 0; w < kSums; ++w) part.sum[w] = sum_[w][half];
        this->end_rows(half, choose_sum(part, this->a_.weights, kSums, class_weight, this->gain_[half], top));
      }
  }

  __device__ float weight(int w) const { return this->a_.weights ? this->a_.weights->value[w] : 1.0f; }

  // Of this thread's two rows, its columns: sums of powers relative to the largest so far; and of this tile's columns.
  float sum_[kSums][2], added_[kSums][2];
  RelativePower power_[kSums][2];
};

// Two sweeps: the first finds the largest logit and so the class weight, the second sums powers. With parts there is
// the first alone, and logits are stored for merge_parts to sum, in the same order.
template <class T, bool kBias>
class GroupSweeps : GroupRows<T, kBias> {
 public:
  using Rows = GroupRows<T, kBias>;
  using Rows::Rows;
  using typename Rows::Accumulators, typename Rows::Place;

  __device__ __forceinline__ void begin(int i) {
    this->begin_tile(i);
    again_ = this->tiles_.sweeps_again(i);
    added_[0] = added_[1] = 0;
  }

  template <int p>
  __device__ __forceinline__ void part(Accumulators& acc) {
    constexpr int kBlocks = Place::kColBlocks / warpgroups::kParts;
    if (again_) {
#pragma unroll
      for (int n = kBlocks * p; n < kBlocks * (p + 1); ++n) add_powers(acc, n);
    } else {
#pragma unroll
      for (int n = kBlocks * p; n < kBlocks * (p + 1); ++n) {
        this->find_top(acc, n);
        if (this->a_.parts) store(acc, n);
      }
    }
    if constexpr (p + 1 == warpgroups::kParts) end_tile();
  }

 private:
  __device__ __forceinline__ void add_powers(const Accumulators& acc, int n) {
    const float4 two = this->columns_.two(n);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      added_[half] += power_[half](this->logit(acc[0][n][2 * half], half, two.x, two.y));
      added_[half] += power_[half](this->logit(acc[0][n][2 * half + 1], half, two.z, two.w));
    }
  }

  __device__ __forceinline__ void store(const Accumulators& acc, int n) const {
    const int64_t width = int64_t(this->a_.col_tiles.divisor()) * warpgroups::kCols;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<float2*>(this->a_.scores + this->row(half) * width + this->first_class() + Place::col(n, 0)) = {
          acc[0][n][2 * half], acc[0][n][2 * half + 1]};
  }

  __device__ __forceinline__ void end_tile() {
    const bool ends = this->tiles_.ends_sweep(this->i_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Part part = this->part_of_tile(half);
      if (this->a_.parts) {
        this->store_part(part, half);
      } else if (again_) {
        sum_[half] += double(added_[half]);
        if (ends) this->end_rows(half, sum_[half]);
      } else {
        this->keep_top(part, half);
        if (!ends) continue;
        float class_weight;
        const float top = this->end_tops(half, &class_weight);
        power_[half] = RelativePower(top, this->gain_[half] * class_weight);
        sum_[half] = 0;
      }
    }
  }

  bool again_ = false;
  double sum_[2];  // of this thread's two rows, its columns: powers relative to the row's largest
  float added_[2];
  RelativePower power_[2];
};

}  // namespace pyfastcal::cuda::similarity_confidence
