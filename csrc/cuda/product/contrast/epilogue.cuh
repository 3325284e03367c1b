// What contrast does with a tile of products: similarities or probabilities, and the differences between both models'.
#pragma once
#include "../tile_rows.cuh"
#include "steps.cuh"

namespace pyfastcal::cuda::contrast {

template <class T, bool kProbability>
class Epilogue {
 public:
  static constexpr int kSweeps = kProbability ? 2 : 1;
  using Sequence = Steps<T, kSweeps>;

  __device__ Epilogue(const Arguments<T>& a, const Sequence& steps, void* shared)
      : a_(a), steps_(steps), shared_(shared) {}

  __device__ __forceinline__ void operator()(int i, Accumulators& acc) {
    const typename Sequence::Step step = steps_.step(i);
    const int first_class = step.col_tile * kTileCols + Place::warp_col();
    if (step.sweep == 0 && step.col_tile == 0 && step.model == 0) begin();
    if (first_class < classes()) {
      const Model<T>& model = a_.models[step.model];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = model.row_factor[min(step.row + OwnedRows::row(half), rows() - 1)];
        make_scores(acc, half, model.columns + first_class, kProbability ? factor * a_.logit_scale : factor);
        if constexpr (kProbability) {
          if (step.sweep == 0)
            add_to_sums(acc, half, step.model);
          else
            make_probabilities(acc, half, step.model);
        }
      }
      if (step.sweep + 1 == kSweeps) {
        if (step.model == 0)
          park(acc);
        else
          add_differences(acc);
      }
    }
    if (step.col_tile + 1 < a_.col_tiles.divisor() || step.model + 1 < kModels) return;
    if (step.sweep + 1 < kSweeps)
      finish_sums();
    else
      write(step.row);
  }

 private:
  __device__ int rows() const { return int(a_.models[0].product.a.rows); }
  __device__ int classes() const { return int(a_.models[0].product.b.rows); }

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total_[half] = 0;
#pragma unroll
      for (int m = 0; m < kModels; ++m) {
        top_[m][half] = -kInfinity;
        sum_[m][half] = 0;
      }
    }
  }

  // From products to similarities or logits. factor: the owners'.
  __device__ __forceinline__ static void make_scores(Accumulators& acc, int half, const Column* columns, float factor) {
    float of_row[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) of_row[m] = OwnedRows::spread(factor, m);
    apply_columns(acc, half, columns, [&](float x, float column, float addend, int m) {
      return score<kProbability>(x, of_row[m], column, addend);
    });
  }

  __device__ __forceinline__ void add_to_sums(const Accumulators& acc, int half, int model) {
    const float top = largest_of_rows(acc, half), before = of_model(top_, model, half);
    const float added = sum_of_powers(acc, half, top, 1.0f);
    const float sum = add_relative(of_model(sum_, model, half), before, added, top, 1.0f);
#pragma unroll
    for (int m = 0; m < kModels; ++m)
      if (m == model) {
        top_[m][half] = fmaxf(before, top);
        sum_[m][half] = sum;
      }
  }
  // x[model][half], from registers
  __device__ __forceinline__ static float of_model(const float (&x)[kModels][2], int model, int half) {
    return model == 0 ? x[0][half] : x[1][half];
  }

  // From parts of rows to rows, and from sums to their inverses.
  __device__ __forceinline__ void finish_sums() {
#pragma unroll
    for (int m = 0; m < kModels; ++m) {
      float top[2] = {top_[m][0], top_[m][1]};
      combine_across_warps(top, shared_, Max());
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float power = RelativePower(top[half], 1.0f)(top_[m][half]);
        sum_[m][half] = sum_[m][half] == 0 ? 0 : sum_[m][half] * power;
        top_[m][half] = top[half];
      }
      combine_across_warps(sum_[m], shared_, Plus());
#pragma unroll
      for (int half = 0; half < 2; ++half) sum_[m][half] = 1.0f / sum_[m][half];
    }
  }

  __device__ __forceinline__ void make_probabilities(Accumulators& acc, int half, int model) const {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const RelativePower power(OwnedRows::spread(of_model(top_, model, half), m), 1.0f);
      const float inverse = OwnedRows::spread(of_model(sum_, model, half), m);
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) acc[m][n][2 * half + e] = power(acc[m][n][2 * half + e]) * inverse;
    }
  }

  __device__ float4* parked() const { return a_.parked + int64_t(blockIdx.x) * (32 * kProductThreads) + threadIdx.x; }

  __device__ __forceinline__ void park(const Accumulators& acc) const {
    float4* const to = parked();
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float (&x)[4] = acc[m][n];
        to[(m * 8 + n) * kProductThreads] = make_float4(x[0], x[1], x[2], x[3]);
      }
  }

  // Adds |parked - acc|: a warp's columns in fp32, then in double.
  __device__ __forceinline__ void add_differences(const Accumulators& acc) {
    const float4* const from = parked();
    float sum[2][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      sum[0][m] = sum[1][m] = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float4 tuned = from[(m * 8 + n) * kProductThreads];
        const float (&x)[4] = acc[m][n];
        sum[0][m] += fabsf(tuned.x - x[0]) + fabsf(tuned.y - x[1]);
        sum[1][m] += fabsf(tuned.z - x[2]) + fabsf(tuned.w - x[3]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) total_[half] += double(OwnedRows::gather(sum[half], Plus()));
  }

  __device__ __forceinline__ void write(int first_row) {
    float total[2] = {float(total_[0]), float(total_[1])};
    combine_across_warps(total, shared_, Plus());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + OwnedRows::row(half);
      if (Place::warp_col() == 0 && row < rows()) a_.z[row] = total[half] / float(classes());
    }
  }

  const Arguments<T>& a_;
  const Sequence& steps_;
  void* const shared_;
  // of the owned rows: sum of differences; of probabilities the largest logit, and the sum of powers or its inverse
  double total_[2];
  float top_[kModels][2], sum_[kModels][2];
};

}  // namespace pyfastcal::cuda::contrast
