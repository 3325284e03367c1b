// What becomes of the products: running maximum, its class and sums of powers of a thread's two rows, over its columns
// of all tiles; in the end the four threads of a row put theirs together.
#pragma once
#include "plan.cuh"

namespace pyfastcal::hopper {

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Apart from a RowResults' other members: those the compiler keeps in registers at once, these arrays only when it has
// unrolled the loops over them.
struct RowState {
  // of the tiles so far: the maximum, its class, the sums of powers relative to it; the first weight's factor
  float top[2], first_sum[2], second_sum[2], factor[2];
  int best[2];
  // of this tile too; the class within it
  float tile_top[2];
  int tile_class[2];
};

template <class P>
class RowResults {
 public:
  using Accumulators = float[P::kAccumulators];

  // column, row: the thread's first in a tile.
  __device__ __forceinline__ RowResults(RowState& state, const Arguments& args, int lane, int column, int row)
      : state_(state), args_(args), lane_(lane), column_(column), row_(row), ratio_(args.second) {}

  __device__ __forceinline__ void begin(int row_tile) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state_.top[h] = -INFINITY;
      state_.first_sum[h] = state_.second_sum[h] = 0;
      state_.best[h] = 0;
      if (P::kConfidence) {
        const float gain =
            __ldg(args_.row_gain + min(row_tile * kTileRows + row_ + 8 * h, args_.rows - 1)) * 1.44269504f;
        state_.factor[h] = gain * args_.first;
      }
    }
  }

  // For every tile: begin_tops, tops for all its columns, end_tops, then sums for all its columns. tops makes logits of
  // the products, in place.
  __device__ __forceinline__ void begin_tops() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      state_.tile_top[h] = state_.top[h];
      state_.tile_class[h] = -1;
    }
  }
  __device__ __forceinline__ void tops(Accumulators& acc, int c, int from, int to) {
#pragma unroll
    for (int n = 0; n < P::kColumnGroups; ++n) {
      if (n < from || n >= to) continue;
      float4 f = make_float4(1, 0, 1, 0);
      if (P::kConfidence) f = __ldg(reinterpret_cast<const float4*>(args_.classes + c * P::kWidth + n * 8 + column_));
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = acc[4 * n + 2 * h + e];
          if (P::kConfidence) {
            x = __fmaf_rn(x, e ? f.z : f.x, e ? f.w : f.y);
            state_.tile_class[h] = x > state_.tile_top[h] ? n * 8 + e : state_.tile_class[h];
          }
          state_.tile_top[h] = fmaxf(state_.tile_top[h], x);
        }
    }
  }
  __device__ __forceinline__ void end_tops(int c) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (P::kConfidence) {
        if (state_.tile_class[h] >= 0) state_.best[h] = c * P::kWidth + state_.tile_class[h] + column_;
        const float d = state_.top[h] - state_.tile_top[h];
        state_.first_sum[h] *= exp2_approx(d * state_.factor[h]);
        if (P::kTwoWeights) state_.second_sum[h] *= exp2_approx(d * (state_.factor[h] * ratio_));
      }
      state_.top[h] = state_.tile_top[h];
    }
  }
  __device__ __forceinline__ void sums(const Accumulators& acc, int from, int to) {
    if constexpr (P::kConfidence) {
#pragma unroll
      for (int n = 0; n < P::kColumnGroups; ++n) {
        if (n < from || n >= to) continue;
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const float d = acc[4 * n + 2 * h + e] - state_.top[h];
            state_.first_sum[h] += exp2_approx(d * state_.factor[h]);
            if (P::kTwoWeights) state_.second_sum[h] += exp2_approx(d * (state_.factor[h] * ratio_));
          }
      }
    }
  }

  __device__ __forceinline__ void finish(int row_tile) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = row_tile * kTileRows + row_ + 8 * h;
      float top = fmaxf(state_.top[h], __shfl_xor_sync(~0u, state_.top[h], 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      if (!P::kConfidence) {
        if (lane_ % 4 == 0 && row < args_.rows) args_.confidence[row] = top;
        continue;
      }
      int best = state_.top[h] == top ? state_.best[h] : 0x7fffffff;
      best = min(best, __shfl_xor_sync(~0u, best, 1));
      best = min(best, __shfl_xor_sync(~0u, best, 2));
      const float d = state_.top[h] - top;
      float first = state_.first_sum[h] * exp2_approx(d * state_.factor[h]);
      float second = P::kTwoWeights ? state_.second_sum[h] * exp2_approx(d * (state_.factor[h] * ratio_)) : 0;
      first += __shfl_xor_sync(~0u, first, 1);
      first += __shfl_xor_sync(~0u, first, 2);
      second += __shfl_xor_sync(~0u, second, 1);
      second += __shfl_xor_sync(~0u, second, 2);
      if (lane_ % 4 == 0 && row < args_.rows) {
        if (best < 0 || best >= kClasses) best = 0;
        args_.prediction[row] = best;
        const bool use_second = P::kTwoWeights && __ldg(args_.class_weight + best) != args_.first;
        args_.confidence[row] = 1.0f / (use_second ? second : first);
      }
    }
  }

 private:
  RowState& state_;
  const Arguments& args_;
  const int lane_, column_, row_;
  const float ratio_;
};

}  // namespace pyfastcal::hopper
