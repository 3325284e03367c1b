// What similarity_confidence does with a tile of products: largest logit, first class and sums of powers of every row.
#pragma once
#include "sweeps.cuh"

namespace pyfastcal::cuda::similarity_confidence {

inline constexpr int kSharedBytes = kExchangeBytes + kTileRows * 4;  // beside the product's

// What an owner keeps of its two rows, and what the block does with a tile. Little may be kept: the product needs most
// registers. max of floats passes NaN over; a NaN logit is in every sum.
template <class T, bool kBias>
class Epilogue {
 public:
  // n_sums: of each row; 0 where scores are stored
  __device__ Epilogue(const Arguments<T>& a, const Sweeps<T>& sweeps, int n_sums, void* shared)
      : a_(a), sweeps_(sweeps), n_sums_(n_sums), shared_(static_cast<float*>(shared)) {}

  // The product's inspector.
  __device__ __forceinline__ bool begin(int i) {
    inspected_.begin();
    return !a_.row_factor && sweeps_.begins_rows(i);
  }
  __device__ __forceinline__ void see(const unsigned char* chunk, int part) { inspected_.see(chunk, part); }

  __device__ __forceinline__ void operator()(int i, Accumulators& acc) {
    const typename Sweeps<T>::Step step = sweeps_.step(i);
    const bool last_sweep = step.sweep + 1 == sweeps_.count();
    const int first_class = step.col_tile * kTileCols + Place::warp_col();
    if (sweeps_.begins_rows(i)) find_factors(step.row);
    if (a_.parts || sweeps_.begins_rows(i)) begin_part();
    if (first_class < classes()) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Part& part = part_[half];
        make_logits(acc, half, first_class);
        if (n_sums_ == 0) store(acc, half, step.row, first_class);
        const float top = step.sweep == 0 ? find_top(acc, half, first_class) : part.top;
        if (last_sweep && n_sums_ > 0) {
          float gain = row_gain(step.row, half);
          if (step.sweep > 0) gain *= class_weight(half);
#pragma unroll
          for (int w = 0; w < kFewWeights; ++w)
            if (w < n_sums_) {
              const float factor = gain * weight(w), added = sum_of_powers(acc, half, top, factor);
              part.sum[w] = add_relative(part.sum[w], part.top, added, top, factor);
            }
        }
        part.top = fmaxf(part.top, top);
        if (a_.parts) write_part(step, half);
      }
    }
    if (a_.parts) return;
    if (step.col_tile + 1 < a_.col_tiles.divisor()) return;
    if (step.sweep == 0) decide(step.row);
    if (!last_sweep) return;
    if (n_sums_ == 0)
      sum_scores(step.row);
    else
      combine_sums(step.row);
  }

 private:
  __device__ int rows() const { return int(a_.product.a.rows); }
  __device__ int classes() const { return int(a_.product.b.rows); }
  __device__ static int row(int first_row, int half) { return first_row + OwnedRows::row(half); }
  __device__ bool writes(int first_row, int half) const {
    return Place::warp_col() == 0 && row(first_row, half) < rows();
  }
  // What makes products of row(half) with a class's factor its logits.
  __device__ float row_scale(int half) const { return a_.logit_scale * row_factor()[OwnedRows::row(half)]; }
  // The factor, but for the class's weight, of what make_logits leaves of it.
  __device__ float row_gain(int first_row, int half) const {
    const float* const weights = a_.factors.sample_weight;
    const float weight = weights ? weights[min(row(first_row, half), rows() - 1)] : 1.0f;
    return kBias ? weight : weight * row_scale(half);
  }
  __device__ float* row_factor() const { return shared_ + kExchangeBytes / 4; }  // of the row tile
  __device__ float class_weight(int half) const {
    return a_.factors.class_weight ? a_.factors.class_weight[part_[half].index] : 1.0f;
  }
  // One of the distinct class weights; 1 where the predicted class is known.
  __device__ float weight(int w) const { return a_.weights && sweeps_.count() == 1 ? a_.weights->value[w] : 1.0f; }

  __device__ __forceinline__ void begin_part() {
#pragma unroll
    for (Part& part : part_) {
      part.top = -kInfinity;
      part.index = 0;
#pragma unroll
      for (float& sum : part.sum) sum = 0;
    }
  }

  __device__ __forceinline__ void find_factors(int first_row) {
    if (!a_.row_factor)
      inspected_.finish(a_.product.a, a_.product.depth, first_row, a_.normalize, row_factor());
    else if (threadIdx.x < kTileRows)
      row_factor()[threadIdx.x] = a_.row_factor[min(first_row + int(threadIdx.x), rows() - 1)];
    __syncthreads();
    const int i = first_row + int(threadIdx.x);
    if (a_.parts && threadIdx.x < kTileRows && i < rows() && a_.splits.remainder(int(blockIdx.x)) == 0)
      a_.found_factor[i] = row_factor()[threadIdx.x];
  }

  __device__ __forceinline__ void write_part(const typename Sweeps<T>::Step& step, int half) const {
    if (row(step.row, half) >= rows()) return;
    const int64_t tile = int64_t(row(step.row, half)) * a_.col_tiles.divisor() + step.col_tile;
    a_.parts[tile * 4 + Place::warp_col() / kWarpCols] = part_[half];
  }

  // From products to logits; if there is no bias, to logits but for row_scale.
  __device__ __forceinline__ void make_logits(Accumulators& acc, int half, int first_class) const {
    float scale[4] = {};
    if constexpr (kBias) {
#pragma unroll
      for (int m = 0; m < 4; ++m) scale[m] = OwnedRows::spread(row_scale(half), m);
    }
    apply_columns(acc, half, a_.columns + first_class, [&](float x, float factor, float addend, int m) {
      return __fmaf_rn(kBias ? x * scale[m] : x, factor, addend);
    });
  }

  // The logits of the row tile.
  __device__ float* scores(int first_row) const {
    return a_.scores + (a_.parts ? int64_t(first_row) : int64_t(blockIdx.x) * kTileRows) * width();
  }
  __device__ int width() const { return a_.col_tiles.divisor() * kTileCols; }

  __device__ __forceinline__ void store(const Accumulators& acc, int half, int first_row, int first_class) const {
    float* to = scores(first_row) + int64_t(Place::row(0, half)) * width() + first_class + threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int n = 0; n < 8; ++n)
        *reinterpret_cast<float2*>(to + n * 8) = make_float2(acc[m][n][2 * half], acc[m][n][2 * half + 1]);
      to += 16 * width();
    }
  }

  // To the owners: the largest logit of the warp's classes. Where it is larger than those before, so is its index.
  __device__ __forceinline__ float find_top(const Accumulators& acc, int half, int first_class) {
    const float top = largest_of_rows(acc, half);
    const bool higher = top > part_[half].top;
    const uint32_t wanted = __ballot_sync(~0u, higher);
    if (wanted) {
      int first[4];
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        first[m] = kWarpCols;
        if (!(wanted & 0x11111111u << m)) continue;  // none of the rows that lanes m own
        const float of_row = OwnedRows::spread(top, m);
#pragma unroll
        for (int n = 7; n >= 0; --n) {
          if (acc[m][n][2 * half + 1] == of_row) first[m] = n * 8 + 1;
          if (acc[m][n][2 * half] == of_row) first[m] = n * 8;
        }
        first[m] += int(threadIdx.x) % 4 * 2;
      }
      const int index = OwnedRows::gather(first, Min());
      if (higher) part_[half].index = first_class + index;
    }
    return top;
  }

  // Largest logit and first class of whole rows, for all owners of their parts.
  __device__ __forceinline__ void decide(int first_row) {
    float top[2] = {part_[0].top, part_[1].top};
    combine(top, Max());
    int index[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) index[half] = part_[half].top == top[half] ? part_[half].index : INT_MAX;
    combine(index, Min());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      part_[half].index = index[half] == INT_MAX ? 0 : index[half];  // a row of NaN
      if (writes(first_row, half)) a_.prediction[row(first_row, half)] = part_[half].index;
      if (sweeps_.count() == 1 && n_sums_ > 0)
        part_[half].sum[0] =
            choose_sum(part_[half], a_.weights, n_sums_, class_weight(half), row_gain(first_row, half), top[half]);
      part_[half].top = top[half];
    }
  }

  __device__ __forceinline__ void combine_sums(int first_row) {
    float sum[2] = {part_[0].sum[0], part_[1].sum[0]};
    combine(sum, Plus());
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (writes(first_row, half)) {
        // (NaN by itself: but knowing it the compiler finds room for one register more on 12.0)
        const bool finite = fabsf(part_[half].top) < kInfinity;
        a_.confidence[row(first_row, half)] = finite ? confidence_of(sum[half]) : kNaN;
      }
  }

  // A warp sums a row at a time.
  __device__ __forceinline__ void sum_scores(int first_row) {
    float *const top = shared_, *const gain = shared_ + kTileRows;
    if (Place::warp_col() == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[OwnedRows::row(half)] = part_[half].top;
        gain[OwnedRows::row(half)] = row_gain(first_row, half) * class_weight(half);
      }
    }
    __syncthreads();
    const int n = min(rows() - first_row, kTileRows);
    for (int r = int(threadIdx.x) / 32; r < n; r += kProductThreads / 32) {
      const StreamedRow<float, Lanes<32>, true> logits(scores(first_row) + int64_t(r) * width(), uint32_t(classes()));
      const double sum = logits.sum(RelativePower(top[r], gain[r]));
      if (threadIdx.x % 32 == 0) a_.confidence[first_row + r] = confidence_of(sum);
    }
    // what was read here is overwritten in the next tile's epilogue, behind the barriers of its product
  }

  template <class V, class F>
  __device__ __forceinline__ void combine(V (&x)[2], const F& f) const {
    combine_across_warps(x, shared_, f);
  }

  const Arguments<T>& a_;
  const Sweeps<T>& sweeps_;
  const int n_sums_;
  float* const shared_;
  Part part_[2];  // of row(half): the warp's classes so far
  InspectedRows<T> inspected_;
};

}  // namespace pyfastcal::cuda::similarity_confidence
