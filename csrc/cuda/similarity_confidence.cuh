// similarity_confidence: cosine similarities and their confidence; nothing of size N x C is made.
//
// A persistent block takes kTileRows images at a time through all classes, a tile of the product after the other, and
// keeps of every row the largest logit, its first class and sums of e^(factor * (logit - largest)). The factor is that
// of the predicted class, which only the last tile decides. Three ways out:
//   - at most kFewWeights class weights are distinct (base classes all share 1): one sum for each of them, one pass;
//   - else the tile's rows of logits go to a workspace, which L2 holds for the most part, and are read again at the
//   end;
//   - else, with more than kMostScored classes, for which that would be large, the product is computed twice.
// find_weights tells the kernel which: the host need not know.
//
// What a warp makes of its 64 classes of a tile (largest, first class, sums) depends on nothing before; such parts are
// then merged from left to right. So a row's bits depend on the row, the classes and their weights alone. And where
// there are too few images to give every multiprocessor a block, the tiles of a row may be those of different blocks:
// these write their parts to the workspace, and merge_parts does the merging.
//
// Workspace: packed classes (2 bytes per number; 6 if split) and 8 bytes per class; packed images unless they are read
// in place, with 4 bytes for each if they are split; with class weights kTileRows logits in fp32 per class and block.
#pragma once
#include <climits>

#include "divisor.cuh"
#include "launch.cuh"
#include "operand.cuh"
#include "tile_rows.cuh"
#include "workspace.cuh"

namespace pyfastcal::cuda {

namespace similarity {

inline constexpr int kFewWeights = 4, kMostScored = 4096;
inline constexpr int kSharedBytes = kExchangeBytes + kTileRows * 4;  // beside the product's

struct Weights {
  int count;  // more than kFewWeights: not all are here
  float value[kFewWeights];
};

inline constexpr int kWeightThreads = 256;

// The distinct class weights, by one block: each round finds the first that differs from those before.
__global__ void __launch_bounds__(kWeightThreads)
    find_weights(const float* class_weight, int classes, Weights* weights) {
  float value[kFewWeights];
  int count = 0;
#pragma unroll
  for (int round = 0; round <= kFewWeights; ++round) {
    int first = INT_MAX;
    for (int c = int(threadIdx.x); c < classes && first == INT_MAX; c += kWeightThreads) {
      bool found = false;
#pragma unroll
      for (int j = 0; j < round; ++j) found |= class_weight[c] == value[j];
      if (!found) first = c;
    }
    first = Block<kWeightThreads>::reduce(first, [](int a, int b) { return min(a, b); });
    if (first == INT_MAX) break;
    if (round < kFewWeights) value[round] = class_weight[first];
    count = round + 1;
  }
  if (threadIdx.x == 0) {
    weights->count = count;
#pragma unroll
    for (int j = 0; j < kFewWeights; ++j)
      if (j < count) weights->value[j] = value[j];
  }
}

// What is known of a row, or of a part of its classes: the largest logit, the first class that has it, and for every
// weight the sum of powers relative to it.
struct Part {
  float top;
  int index;
  float sum[kFewWeights];
};

// The sum for the predicted class's weight, relative to the whole row's largest logit, `top`.
__device__ __forceinline__ float choose_sum(const Part& part, const Weights* weights, int n_sums, float weight,
                                            float gain, float top) {
  float chosen = part.sum[0];
  if (weights) {
    chosen = kNaN;
#pragma unroll
    for (int w = 0; w < kFewWeights; ++w)
      if (w < n_sums && weights->value[w] == weight) chosen = part.sum[w];
  }
  return chosen == 0 ? 0 : chosen * RelativePower(top, gain * weight)(part.top);
}

template <class T>
struct Arguments {
  Product<T> product;
  Slots slots;
  const float* row_factor;  // null: found on the way
  const Column* columns;
  float logit_scale;
  bool normalize;
  Factors factors;
  const Weights* weights;  // null: there are no class weights
  float* scores;           // of all tiles' columns, for kTileRows of each block or, with parts, for all rows; or null
  Part* parts;             // [row][column tile][warp], where `splits` blocks share a row tile; or null
  float* found_factor;     // with parts: where the rows' factors go
  int row_tiles, splits;
  Divisor col_tiles;
  float* confidence;
  int64_t* prediction;
};

// The tiles of a block: row tile by row tile, each swept once or twice; or some of one row tile.
template <class T>
class Sweeps {
 public:
  __device__ Sweeps(const Arguments<T>& a, int count) : a_(a), count_(count), split_(int(blockIdx.x) % a.splits) {}

  struct Step {
    int row, sweep, col_tile;
  };
  __device__ int count() const { return count_; }
  __device__ int size() const {
    if (a_.parts) return first_tile(split_ + 1) - first_tile(split_);
    return (a_.row_tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x) * count_ * a_.col_tiles.divisor();
  }
  __device__ Step step(int i) const {
    if (a_.parts) return {int(blockIdx.x) / a_.splits * kTileRows, 0, first_tile(split_) + i};
    const int of_rows = a_.col_tiles.quotient(i), row_tile = count_ == 1 ? of_rows : of_rows / 2;
    return {(row_tile * int(gridDim.x) + int(blockIdx.x)) * kTileRows, of_rows - row_tile * count_,
            i - of_rows * a_.col_tiles.divisor()};
  }
  // Whether tile i is the block's first of its rows.
  __device__ bool begins_rows(int i) const {
    const Step s = step(i);
    return a_.parts ? i == 0 : s.sweep == 0 && s.col_tile == 0;
  }
  __device__ Tile<T> operator[](int i) const {
    const Step s = step(i);
    return {&a_.product, s.row, int64_t(s.col_tile) * kTileCols};
  }

 private:
  __device__ int first_tile(int split) const { return split * a_.col_tiles.divisor() / a_.splits; }

  const Arguments<T>& a_;
  const int count_, split_;
};

// What an owner keeps of its two rows, and what the block does with a tile. Little may be kept: the product needs most
// registers. max of floats passes NaN over; a NaN logit is in every sum.
template <class T, bool kBias>
class Epilogue {
 public:
  // n_sums: of each row; 0 where scores are stored
  __device__ Epilogue(const Arguments<T>& a, const Sweeps<T>& sweeps, int n_sums, bool store_scores, void* shared)
      : a_(a), sweeps_(sweeps), n_sums_(n_sums), store_scores_(store_scores), shared_(static_cast<float*>(shared)) {}

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
        if (store_scores_) store(acc, half, step.row, first_class);
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
    if (store_scores_)
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
    if (a_.parts && threadIdx.x < kTileRows && i < rows() && int(blockIdx.x) % a_.splits == 0)
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
      if (writes(first_row, half))
        a_.confidence[row(first_row, half)] = confidence_of({part_[half].top, part_[half].top, 0}, sum[half]);
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
      if (threadIdx.x % 32 == 0) a_.confidence[first_row + r] = confidence_of({top[r], top[r], 0}, sum);
    }
    __syncthreads();
  }

  template <class V, class F>
  __device__ __forceinline__ void combine(V (&x)[2], const F& f) const {
    combine_across_warps(x, shared_, f);
  }

  const Arguments<T>& a_;
  const Sweeps<T>& sweeps_;
  const int n_sums_;
  const bool store_scores_;
  float* const shared_;
  Part part_[2];  // of row(half): the warp's classes so far
  InspectedRows<T> inspected_;
};

template <class T, bool kBias>
__global__ void __launch_bounds__(kProductThreads, 1) predict(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  const int n_weights = a.weights ? a.weights->count : 1;
  const bool few = n_weights <= kFewWeights, store_scores = !few && a.scores;
  const Sweeps<T> sweeps(a, few || store_scores ? 1 : 2);
  const int n_sums = few ? n_weights : store_scores ? 0 : 1;
  Epilogue<T, kBias> epilogue(a, sweeps, n_sums, store_scores, shared + a.slots.bytes());
  multiply_tiles<T>(sweeps, a.slots, shared, epilogue, epilogue);
}

inline constexpr int kMergeThreads = 256;

// What a row's parts make of it, by a warp: lane w has those of warp w, as in the product.
__global__ void __launch_bounds__(kMergeThreads)
    merge_parts(const Part* parts, const float* scores, const float* row_factor, float logit_scale, bool bias,
                Factors factors, const Weights* weights, int rows, int classes, int col_tiles, float* confidence,
                int64_t* prediction) {
  const int row = int(blockIdx.x) * (kMergeThreads / 32) + int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  if (row >= rows) return;
  const int n_weights = weights ? weights->count : 1, n_sums = n_weights <= kFewWeights ? n_weights : 0;
  const float sample_weight = factors.sample_weight ? factors.sample_weight[row] : 1.0f;
  const float gain = bias ? sample_weight : sample_weight * (logit_scale * row_factor[row]);
  Part mine{-kInfinity, 0, {}};
  for (int t = 0; t < col_tiles; ++t) {
    if (lane >= 4 || t * kTileCols + lane * kWarpCols >= classes) break;
    const Part part = parts[(int64_t(row) * col_tiles + t) * 4 + lane];
#pragma unroll
    for (int w = 0; w < kFewWeights; ++w)
      if (w < n_sums) {
        const float factor = gain * (weights ? weights->value[w] : 1.0f);
        mine.sum[w] = add_relative(mine.sum[w], mine.top, part.sum[w], part.top, factor);
      }
    if (part.top > mine.top) mine.index = part.index;
    mine.top = fmaxf(mine.top, part.top);
  }
  const float top = Lanes<4>::reduce(mine.top, Max());
  int index = Lanes<4>::reduce(mine.top == top ? mine.index : INT_MAX, Min());
  if (index == INT_MAX) index = 0;  // a row of NaN
  const float class_weight = factors.class_weight ? factors.class_weight[index] : 1.0f;
  if (n_sums > 0) {
    const float sum = Lanes<4>::reduce(choose_sum(mine, weights, n_sums, class_weight, gain, top), Plus());
    if (lane == 0) confidence[row] = confidence_of({top, top, 0}, sum);
  } else {
    const float of_row = __shfl_sync(~0u, top, 0), factor = __shfl_sync(~0u, gain * class_weight, 0);
    const StreamedRow<float, Lanes<32>, true> logits(scores + int64_t(row) * col_tiles * kTileCols, uint32_t(classes));
    const double sum = logits.sum(RelativePower(of_row, factor));
    if (lane == 0) confidence[row] = confidence_of({of_row, of_row, 0}, sum);
  }
  if (lane == 0) prediction[row] = index;
}

}  // namespace similarity

struct SimilarityConfidence {
  Matrix image, text;
  float logit_scale;
  const float* bias;  // per class, or null
  Factors factors;
  bool normalize;
};

// How it is run on the current device, and what workspace that takes.
class SimilarityConfidencePlan {
 public:
  cudaError_t make(const SimilarityConfidence& s) {
    DeviceLimits device;
    if (const auto error = ask_device(&device)) return error;
    split_ = must_split(s.image, s.text);
    const int64_t row_tiles = (s.image.rows + kTileRows - 1) / kTileRows;
    const int64_t col_tiles = (s.text.rows + kTileCols - 1) / kTileCols;
    if (s.image.rows > INT_MAX - kTileRows || s.text.rows > INT_MAX - kTileCols ||
        (row_tiles / device.multiprocessors + 1) * col_tiles > INT_MAX / 2)
      return cudaErrorInvalidValue;
    row_tiles_ = int(row_tiles);
    col_tiles_ = int(col_tiles);
    // Rows that would be swept twice keep to one block: their sums can only be begun when their maxima are known.
    const bool may_sweep_twice = s.factors.class_weight && s.text.rows > similarity::kMostScored;
    splits_ = may_sweep_twice ? 1 : min(col_tiles_, max(device.multiprocessors / row_tiles_, 1));
    blocks_ = splits_ > 1 ? row_tiles_ * splits_ : min(row_tiles_, device.multiprocessors);
    slots_ = choose_slots(int((s.image.cols + kChunk - 1) / kChunk), !split_,
                          size_t(device.shared_bytes - similarity::kSharedBytes));
    lay_out(s, nullptr);
    return slots_.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
  }
  int64_t workspace_bytes() const { return bytes_; }

  // One entry per image in confidence and prediction; NaN confidence where a row, or any class, holds NaN or infinity.
  cudaError_t launch(const SimilarityConfidence& s, float* confidence, int64_t* prediction, void* workspace,
                     cudaStream_t stream) {
    lay_out(s, workspace);
    if (const auto error =
            prepare_b(s.text, split_, s.normalize, text_, s.bias, columns_, int64_t(col_tiles_) * kTileCols, stream))
      return error;
    if (image_)
      if (const auto error = prepare_a(s.image, split_, s.normalize, image_, row_factor_, stream)) return error;
    if (weights_)
      if (const auto error = PYFASTCAL_LAUNCH(similarity::find_weights, 1, similarity::kWeightThreads, 0, stream,
                                              s.factors.class_weight, int(s.text.rows), weights_))
        return error;
    return !split_ && s.image.dtype == Dtype::kHalf ? launch_as<__half>(s, confidence, prediction, stream)
                                                    : launch_as<__nv_bfloat16>(s, confidence, prediction, stream);
  }

 private:
  void lay_out(const SimilarityConfidence& s, void* workspace) {
    Workspace w(workspace);
    const bool many_weights = s.factors.class_weight && s.text.rows > similarity::kFewWeights;
    text_ = w.take<uint16_t>(packed_size(s.text, split_));
    image_ = !split_ && readable_in_place(s.image) ? nullptr : w.take<uint16_t>(packed_size(s.image, split_));
    row_factor_ = split_ ? w.take<float>(s.image.rows) : nullptr;
    columns_ = w.take<Column>(int64_t(col_tiles_) * kTileCols);
    weights_ = s.factors.class_weight ? w.take<similarity::Weights>(1) : nullptr;
    const int64_t scored_rows = int64_t(splits_ > 1 ? row_tiles_ : blocks_) * kTileRows;
    scores_ = many_weights && s.text.rows <= similarity::kMostScored
                  ? w.take<float>(scored_rows * col_tiles_ * kTileCols)
                  : nullptr;
    parts_ = splits_ > 1 ? w.take<similarity::Part>(s.image.rows * col_tiles_ * 4) : nullptr;
    found_factor_ = splits_ > 1 ? w.take<float>(s.image.rows) : nullptr;
    bytes_ = w.bytes();
  }

  template <class T>
  cudaError_t launch_as(const SimilarityConfidence& s, float* confidence, int64_t* prediction,
                        cudaStream_t stream) const {
    const Product<T> product{operand_of<T>(s.image, split_, image_), operand_of<T>(s.text, split_, text_),
                             int(s.image.cols), split_ ? kSplitPairs : 1};
    const similarity::Arguments<T> a{
        product, slots_, row_factor_,   columns_,   s.logit_scale, s.normalize,         s.factors,  weights_,
        scores_, parts_, found_factor_, row_tiles_, splits_,       Divisor(col_tiles_), confidence, prediction};
    const size_t shared = slots_.bytes() + similarity::kSharedBytes;
    const auto kernel = s.bias ? similarity::predict<T, true> : similarity::predict<T, false>;
    if (const auto error = PYFASTCAL_LAUNCH(kernel, unsigned(blocks_), kProductThreads, shared, stream, a))
      return error;
    if (splits_ == 1) return cudaSuccess;
    const int rows = int(s.image.rows), per_block = similarity::kMergeThreads / 32;
    return PYFASTCAL_LAUNCH(similarity::merge_parts, unsigned((rows + per_block - 1) / per_block),
                            similarity::kMergeThreads, 0, stream, parts_, scores_, found_factor_, s.logit_scale,
                            s.bias != nullptr, s.factors, weights_, rows, int(s.text.rows), col_tiles_, confidence,
                            prediction);
  }

  bool split_ = false;
  int row_tiles_ = 0, col_tiles_ = 0, splits_ = 1, blocks_ = 0;
  Slots slots_{};
  uint16_t *text_ = nullptr, *image_ = nullptr;
  float *row_factor_ = nullptr, *scores_ = nullptr, *found_factor_ = nullptr;
  similarity::Part* parts_ = nullptr;
  Column* columns_ = nullptr;
  similarity::Weights* weights_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace pyfastcal::cuda
