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
// What a warp makes of its 64 classes of a tile (largest, first class, sums) depends on nothing before; parts are then
// merged from left to right. So a row's bits depend on the row, the classes and their weights alone.
//
// Workspace: packed classes (2 bytes per number; 6 if split) and 8 bytes per class; packed images unless they are read
// in place, with 4 bytes for each if they are split; with class weights kTileRows logits in fp32 per class and block.
#pragma once
#include <climits>

#include "divisor.cuh"
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
  float* scores;           // kTileRows x all tiles' columns for each block, or null
  int row_tiles;
  Divisor col_tiles;
  float* confidence;
  int64_t* prediction;
};

// The tiles of a block: row tile by row tile, each swept once or twice.
template <class T>
struct Sweeps {
  const Arguments<T>& a;
  const int count;

  struct Step {
    int row, sweep, col_tile;
  };
  __device__ int size() const {
    return (a.row_tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x) * count * a.col_tiles.divisor();
  }
  __device__ Step step(int i) const {
    const int of_rows = a.col_tiles.quotient(i), row_tile = count == 1 ? of_rows : of_rows / 2;
    return {(row_tile * int(gridDim.x) + int(blockIdx.x)) * kTileRows, of_rows - row_tile * count,
            i - of_rows * a.col_tiles.divisor()};
  }
  __device__ Tile<T> operator[](int i) const {
    const Step s = step(i);
    return {&a.product, s.row, int64_t(s.col_tile) * kTileCols};
  }
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
    const typename Sweeps<T>::Step step = sweeps_.step(i);
    return !a_.row_factor && step.sweep == 0 && step.col_tile == 0;
  }
  __device__ __forceinline__ void see(const unsigned char* chunk, int part) { inspected_.see(chunk, part); }

  __device__ __forceinline__ void operator()(int i, Accumulators& acc) {
    const typename Sweeps<T>::Step step = sweeps_.step(i);
    const bool last_sweep = step.sweep + 1 == sweeps_.count;
    const int first_class = step.col_tile * kTileCols + Place::warp_col();
    if (step.sweep == 0 && step.col_tile == 0) begin_rows(step.row);
    if (first_class < classes()) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        make_logits(acc, half, first_class);
        if (store_scores_) store(acc, half, first_class);
        const float top = step.sweep == 0 ? find_top(acc, half, first_class) : top_[half];
        if (last_sweep && n_sums_ > 0) {
          float gain = row_gain(step.row, half);
          if (step.sweep > 0) gain *= class_weight(half);
#pragma unroll
          for (int w = 0; w < kFewWeights; ++w)
            if (w < n_sums_) add_powers(acc, half, top, gain * weight(w), top_[half], sum_[w][half]);
        }
        top_[half] = fmaxf(top_[half], top);
      }
    }
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
    return a_.factors.class_weight ? a_.factors.class_weight[index_[half]] : 1.0f;
  }
  // One of the distinct class weights; 1 where the predicted class is known.
  __device__ float weight(int w) const { return a_.weights && sweeps_.count == 1 ? a_.weights->value[w] : 1.0f; }

  __device__ __forceinline__ void begin_rows(int first_row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      top_[half] = -kInfinity;
      index_[half] = 0;
#pragma unroll
      for (int w = 0; w < kFewWeights; ++w) sum_[w][half] = 0;
    }
    if (!a_.row_factor)
      inspected_.finish(a_.product.a, a_.product.depth, first_row, a_.normalize, row_factor());
    else if (threadIdx.x < kTileRows)
      row_factor()[threadIdx.x] = a_.row_factor[min(first_row + int(threadIdx.x), rows() - 1)];
    __syncthreads();
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

  // The rows' logits of this block.
  __device__ float* scores() const { return a_.scores + int64_t(blockIdx.x) * kTileRows * width(); }
  __device__ int width() const { return a_.col_tiles.divisor() * kTileCols; }

  __device__ __forceinline__ void store(const Accumulators& acc, int half, int first_class) const {
    float* to = scores() + int64_t(Place::row(0, half)) * width() + first_class + threadIdx.x % 4 * 2;
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
    const bool higher = top > top_[half];
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
      if (higher) index_[half] = first_class + index;
    }
    return top;
  }

  // Largest logit and first class of whole rows, for all owners of their parts.
  __device__ __forceinline__ void decide(int first_row) {
    float top[2] = {top_[0], top_[1]};
    combine(top, Max());
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (top_[half] != top[half]) index_[half] = INT_MAX;
    combine(index_, Min());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (index_[half] == INT_MAX) index_[half] = 0;  // a row of NaN
      if (writes(first_row, half)) a_.prediction[row(first_row, half)] = index_[half];
      if (sweeps_.count == 1 && n_sums_ > 0) choose_sum(half, row_gain(first_row, half), top[half]);
      top_[half] = top[half];
    }
  }

  // Leaves in sum_[0] the part's sum for the predicted class's weight, relative to top.
  __device__ __forceinline__ void choose_sum(int half, float gain, float top) {
    const float weight = class_weight(half);
    float chosen = sum_[0][half];
    if (a_.weights) {
      chosen = kNaN;
#pragma unroll
      for (int w = 0; w < kFewWeights; ++w)
        if (w < n_sums_ && a_.weights->value[w] == weight) chosen = sum_[w][half];
    }
    sum_[0][half] = chosen == 0 ? 0 : chosen * RelativePower(top, gain * weight)(top_[half]);
  }

  __device__ __forceinline__ void combine_sums(int first_row) {
    combine(sum_[0], Plus());
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (writes(first_row, half))
        a_.confidence[row(first_row, half)] = confidence_of({top_[half], top_[half], 0}, sum_[0][half]);
  }

  // A warp sums a row at a time.
  __device__ __forceinline__ void sum_scores(int first_row) {
    float *const top = shared_, *const gain = shared_ + kTileRows;
    if (Place::warp_col() == 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[OwnedRows::row(half)] = top_[half];
        gain[OwnedRows::row(half)] = row_gain(first_row, half) * class_weight(half);
      }
    }
    __syncthreads();
    const int n = min(rows() - first_row, kTileRows);
    for (int r = int(threadIdx.x) / 32; r < n; r += kProductThreads / 32) {
      const StreamedRow<float, Lanes<32>, true> logits(scores() + int64_t(r) * width(), uint32_t(classes()));
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
  // of row(half): its largest logit, the first class that has it, sums of powers relative to it
  float top_[2];
  int index_[2];
  float sum_[kFewWeights][2];
  InspectedRows<T> inspected_;
};

template <class T, bool kBias>
__global__ void __launch_bounds__(kProductThreads, 1) predict(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  const int n_weights = a.weights ? a.weights->count : 1;
  const bool few = n_weights <= kFewWeights, store_scores = !few && a.scores;
  const Sweeps<T> sweeps{a, few || store_scores ? 1 : 2};
  Epilogue<T, kBias> epilogue(a, sweeps,
                              few            ? n_weights
                              : store_scores ? 0
                                             : 1,
                              store_scores, shared + a.slots.bytes());
  multiply_tiles<T>(sweeps, a.slots, shared, epilogue, epilogue);
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
    int device = 0, multiprocessors = 0, shared = 0;
    if (const auto error = cudaGetDevice(&device)) return error;
    if (const auto error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device))
      return error;
    if (const auto error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
      return error;
    split_ = must_split(s.image, s.text);
    const int64_t row_tiles = (s.image.rows + kTileRows - 1) / kTileRows;
    const int64_t col_tiles = (s.text.rows + kTileCols - 1) / kTileCols;
    blocks_ = int(min(row_tiles, int64_t(multiprocessors)));
    if (s.image.rows > INT_MAX - kTileRows || s.text.rows > INT_MAX - kTileCols ||
        (row_tiles / blocks_ + 1) * col_tiles > INT_MAX / 2)
      return cudaErrorInvalidValue;
    row_tiles_ = int(row_tiles);
    col_tiles_ = int(col_tiles);
    slots_ =
        choose_slots(int((s.image.cols + kChunk - 1) / kChunk), !split_, size_t(shared - similarity::kSharedBytes));
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
    scores_ = many_weights && s.text.rows <= similarity::kMostScored
                  ? w.take<float>(int64_t(blocks_) * kTileRows * col_tiles_ * kTileCols)
                  : nullptr;
    bytes_ = w.bytes();
  }

  template <class T>
  cudaError_t launch_as(const SimilarityConfidence& s, float* confidence, int64_t* prediction,
                        cudaStream_t stream) const {
    const Product<T> product{operand_of<T>(s.image, split_, image_), operand_of<T>(s.text, split_, text_),
                             int(s.image.cols), split_ ? kSplitPairs : 1};
    const similarity::Arguments<T> a{product,   slots_,   row_factor_, columns_,   s.logit_scale,       s.normalize,
                                     s.factors, weights_, scores_,     row_tiles_, Divisor(col_tiles_), confidence,
                                     prediction};
    const size_t shared = slots_.bytes() + similarity::kSharedBytes;
    return s.bias
               ? PYFASTCAL_LAUNCH((similarity::predict<T, true>), unsigned(blocks_), kProductThreads, shared, stream, a)
               : PYFASTCAL_LAUNCH((similarity::predict<T, false>), unsigned(blocks_), kProductThreads, shared, stream,
                                  a);
  }

  bool split_ = false;
  int row_tiles_ = 0, col_tiles_ = 0, blocks_ = 0;
  Slots slots_{};
  uint16_t *text_ = nullptr, *image_ = nullptr;
  float *row_factor_ = nullptr, *scores_ = nullptr;
  Column* columns_ = nullptr;
  similarity::Weights* weights_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace pyfastcal::cuda
