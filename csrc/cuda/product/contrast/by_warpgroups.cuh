// contrast on the product by warpgroups: what becomes of a tile of products between those of the next one, and the
// kernels. As epilogue.cuh, but a row's columns lie in four lanes of one warp: each keeps what it knows of its own, and
// they put it together when the row ends. What probabilities need of a whole row is found by a kernel of its own, and
// read again: a branch for it among the products would be one for every part.
#pragma once
#include <cfloat>

#include "../tile_rows.cuh"
#include "group_tiles.cuh"

namespace pyfastcal::cuda::contrast {

// What both epilogues know of their tile: from products to similarities or logits.
template <class T, bool kProbability>
class GroupScores {
 public:
  using Place = warpgroups::Place;
  using Accumulators = Place::Accumulators;

  __device__ __forceinline__ GroupScores(const GroupArguments<T>& a, const GroupTiles<T>& tiles,
                                         const warpgroups::Shared& shared)
      : a_(a), tiles_(tiles), shared_(shared) {}

 protected:
  __device__ __forceinline__ typename GroupTiles<T>::Step begin_scores(int i) {
    const auto step = tiles_.step(i);
    const Model<T>& model = a_.of.models[step.model];
    first_row_ = step.row;
    columns_.begin(shared_, i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float factor = model.row_factor[min(row(half), rows() - 1)];
      scale_[half] = kProbability ? factor * a_.of.logit_scale : factor;
    }
    return step;
  }

  __device__ __forceinline__ void make_scores(float (&x)[4], int n, int half) {
    const float4 two = columns_.two(n);
    float &even = x[2 * half], &odd = x[2 * half + 1];
    even = score<kProbability>(even, scale_[half], two.x, two.y);
    odd = score<kProbability>(odd, scale_[half], two.z, two.w);
  }

  __device__ int rows() const { return int(a_.of.models[0].product.a.rows); }
  __device__ int row(int half) const { return first_row_ + Place::row(0, half); }
  __device__ bool writes(int half) const { return threadIdx.x % 4 == 0 && row(half) < rows(); }

  const GroupArguments<T>& a_;
  const GroupTiles<T>& tiles_;
  const warpgroups::Shared& shared_;
  int first_row_ = 0;

 private:
  warpgroups::Columns columns_;
  float scale_[2];
};

// Of every row and model the largest logit and the inverse of the sum of the powers relative to it.
template <class T>
class GroupSums : GroupScores<T, true> {
 public:
  using Scores = GroupScores<T, true>;
  using Scores::Scores;
  using typename Scores::Accumulators, typename Scores::Place;

  __device__ __forceinline__ void begin(int i) {
    const auto step = this->begin_scores(i);
    model_ = step.model;
    ends_ = step.col_tile + 1 == this->a_.of.col_tiles.divisor();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (step.col_tile == 0) {
        top_[half] = -FLT_MAX;  // so that a lane whose classes are all past the last adds nothing, not NaN
        sum_[half] = 0;
      }
      top_of_tile_[half] = top_[half];
      added_[half] = 0;
    }
  }

  template <int p>
  __device__ __forceinline__ void part(Accumulators& acc) {
    constexpr int kTopParts = warpgroups::kParts / 2;
    warpgroups::each_pair<p, 0, kTopParts>([&](int n, int half) {
      float (&x)[4] = acc[0][n];
      this->make_scores(x, n, half);
      top_of_tile_[half] = fmaxf(top_of_tile_[half], fmaxf(x[2 * half], x[2 * half + 1]));
    });
    if constexpr (p == kTopParts)
#pragma unroll
      for (int half = 0; half < 2; ++half) power_[half] = RelativePower(top_of_tile_[half], 1.0f);
    warpgroups::each_pair<p, kTopParts, warpgroups::kParts>([&](int n, int half) {
      const float (&x)[4] = acc[0][n];
      added_[half] += power_[half](x[2 * half]) + power_[half](x[2 * half + 1]);
    });
    if constexpr (p + 1 == warpgroups::kParts) end_tile();
  }

 private:
  __device__ __forceinline__ void end_tile() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum_[half] = add_relative(sum_[half], top_[half], added_[half], top_of_tile_[half], 1.0f);
      top_[half] = top_of_tile_[half];
    }
    if (!ends_) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float top = Lanes<4>::reduce(top_[half], Max()), power = RelativePower(top, 1.0f)(top_[half]);
      const float sum = Lanes<4>::reduce(sum_[half] == 0 ? 0 : sum_[half] * power, Plus());
      if (this->writes(half)) this->a_.sums_of(model_)[this->row(half)] = {top, 1.0f / sum};
    }
  }

  int model_ = 0;
  bool ends_ = false;
  // Of this thread's two rows, its columns so far; and the same of this tile's columns.
  float top_[2], sum_[2], top_of_tile_[2], added_[2];
  RelativePower power_[2];
};

// The mean of the differences.
template <class T, bool kProbability>
class GroupDifferences : GroupScores<T, kProbability> {
 public:
  using Scores = GroupScores<T, kProbability>;
  using Scores::Scores;
  using typename Scores::Accumulators, typename Scores::Place;

  __device__ __forceinline__ void begin(int i) {
    const auto step = this->begin_scores(i);
    parks_ = step.parks;
    ends_ = this->tiles_.ends(i);
    if constexpr (kProbability) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 sum = __ldg(this->a_.sums_of(step.model) + min(this->row(half), this->rows() - 1));
        power_[half] = RelativePower(sum.x, 1.0f);
        inverse_[half] = sum.y;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (this->tiles_.begins(i)) total_[half] = 0;
      sum_[half] = 0;
    }
    parked_ = this->a_.parked(step.place) + (int(threadIdx.x) - warpgroups::kCopyingThreads);
    if (!parks_)
#pragma unroll
      for (int n = 0; n < kAhead; ++n) other_[n] = __ldcg(parked_ + n * kThreads);
  }

  template <int p>
  __device__ __forceinline__ void part(Accumulators& acc) {
    warpgroups::each_pair<p, 0, warpgroups::kParts>([&](int n, int half) { take(acc[0][n], n, half); });
    if constexpr (p + 1 == warpgroups::kParts) end_tile();
  }

 private:
  static constexpr int kThreads = 32 * warpgroups::kMultiplyingWarps, kAhead = 4;

  __device__ __forceinline__ void take(float (&x)[4], int n, int half) {
    this->make_scores(x, n, half);
    float &even = x[2 * half], &odd = x[2 * half + 1];
    if constexpr (kProbability) {
      even = power_[half](even) * inverse_[half];
      odd = power_[half](odd) * inverse_[half];
    }
    if (parks_) {
      if (half == 1) __stcg(parked_ + n * kThreads, make_float4(x[0], x[1], x[2], x[3]));
    } else {
      float4& other = other_[n % kAhead];
      sum_[half] += fabsf((half == 0 ? other.x : other.z) - even) + fabsf((half == 0 ? other.y : other.w) - odd);
      if (half == 1 && n + kAhead < Place::kColBlocks) other = __ldcg(parked_ + (n + kAhead) * kThreads);
    }
  }

  __device__ __forceinline__ void end_tile() {
#pragma unroll
    for (int half = 0; half < 2; ++half) total_[half] += double(sum_[half]);
    if (!ends_) return;
    const float classes = float(this->a_.of.models[0].product.b.rows);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = float(Lanes<4>::reduce(total_[half], Plus()));
      if (this->writes(half)) this->a_.of.z[this->row(half)] = total / classes;
    }
  }

  bool parks_ = false, ends_ = false;
  // Of this thread's two rows, its columns: the sum of differences so far, and of this tile's; of probabilities what is
  // known of the row.
  double total_[2];
  float sum_[2];
  RelativePower power_[2];
  float inverse_[2];
  float4* parked_ = nullptr;
  float4 other_[kAhead];  // what the other model left of the next blocks of columns
};

template <class T, class Epilogue>
__device__ __forceinline__ void run_by_warpgroups(const GroupArguments<T>& a) {
  using namespace warpgroups;
  PYFASTCAL_SHARED(unsigned char, base);
  const Shared shared(base);
  if (threadIdx.x == 0) {
    shared.init();
    prim::publish_barriers();
  }
  __syncthreads();
  const GroupTiles<T> tiles(a);
  share_out<T>(
      tiles, shared, a.of.models[0].product.depth, [&] { return Epilogue(a, tiles, shared); }, [](const auto&) {});
}

template <class T>
__global__ void __launch_bounds__(warpgroups::kThreads, 1)
    sum_by_warpgroups(const __grid_constant__ GroupArguments<T> a) {
  if constexpr (prim::kOnHopper)
    run_by_warpgroups<T, GroupSums<T>>(a);
  else
    prim::trap();
}

template <class T, bool kProbability>
__global__ void __launch_bounds__(warpgroups::kThreads, 1)
    measure_by_warpgroups(const __grid_constant__ GroupArguments<T> a) {
  if constexpr (prim::kOnHopper)
    run_by_warpgroups<T, GroupDifferences<T, kProbability>>(a);
  else
    prim::trap();
}

}  // namespace pyfastcal::cuda::contrast
