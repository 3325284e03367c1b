// similarity_confidence: cosine similarities and their confidence; nothing of size N x C is made.
//
// A persistent block takes kTileRows images at a time through all classes, a tile of the product after the other, and
// keeps of every row the largest logit, its first class and sums of e^(factor * (logit - largest)). The factor is that
// of the predicted class, which only the last tile decides. Three ways out:
//   - at most kFewWeights class weights are distinct (base classes all share 1): one sum for each of them, one pass;
//   - else the tile's rows of logits go to a workspace, which L2 mostly holds, and are read again at the end;
//   - else, with more than kMostScored classes, for which that would be large, the product is computed twice.
// find_weights tells the kernel which: the host need not know. By warpgroups, where that takes less time than to store
// logits, three weights and more take the third way; the second where several blocks share a row.
//
// What a warp makes of its 64 classes of a tile (largest, first class, sums) depends on nothing before; such parts are
// then merged from left to right. So a row's bits depend on the row, the classes and their weights alone. And where
// there are too few images to give every multiprocessor a block, the tiles of a row may be those of different blocks:
// these write their parts to the workspace, and merge_parts does the merging.
//
// Workspace: packed classes (2 bytes per number; 6 if split) and 8 bytes per class; packed images unless they are read
// in place, with 4 bytes for each if they are split; where logits are stored kTileRows in fp32 per class and block.
#pragma once
#include "../runtime/launch.cuh"
#include "../runtime/workspace.cuh"
#include "gemm.cuh"
#include "operand.cuh"
#include "similarity_confidence/by_warpgroups.cuh"
#include "similarity_confidence/epilogue.cuh"
#include "warpgroups/choice.cuh"

namespace pyfastcal::cuda {

namespace similarity_confidence {

inline constexpr int kMostScored = 4096;

template <class T, bool kBias>
__global__ void __launch_bounds__(kProductThreads, 1) predict(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  const int n_weights = a.weights ? a.weights->count : 1;
  const bool few = n_weights <= kFewWeights, store_scores = !few && a.scores;
  const Sweeps<T> sweeps(a, few || store_scores ? 1 : 2);
  const int n_sums = few ? n_weights : store_scores ? 0 : 1;
  Epilogue<T, kBias> epilogue(a, sweeps, n_sums, shared + a.slots.bytes());
  multiply_tiles<T>(sweeps, a.slots, shared, epilogue, epilogue);
}

}  // namespace similarity_confidence

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
  cudaError_t make(const SimilarityConfidence& s, ProductChoice choice = ProductChoice::kAuto) {
    DeviceLimits device;
    if (const auto error = ask_device(&device)) return error;
    split_ = must_split(s.image, s.text);
    const int64_t row_tiles = (s.image.rows + kTileRows - 1) / kTileRows;
    const int64_t col_tiles = (s.text.rows + kTileCols - 1) / kTileCols;
    if (s.image.rows > INT_MAX - kTileRows || s.text.rows > INT_MAX - kTileCols ||
        (row_tiles / device.multiprocessors + 1) * col_tiles > INT_MAX / 4)  // of half as wide tiles, swept twice
      return cudaErrorInvalidValue;
    row_tiles_ = int(row_tiles);
    col_tiles_ = int(col_tiles);
    // Rows that would be swept twice keep to one block: their sums can only be begun when their maxima are known.
    const bool may_sweep_twice = s.factors.class_weight && s.text.rows > similarity_confidence::kMostScored;
    // The choice hangs on columns, classes and whether they have weights, not on rows: whose bits are the same in every
    // batch.
    by_warpgroups_ = warpgroups::take(choice, warpgroups::MeasuredFaster::similarity_confidence, device, s.image.cols,
                                      similarity_confidence::kGroupSharedBytes, !split_);
    if (by_warpgroups_) col_tiles_ = int((s.text.rows + warpgroups::kCols - 1) / warpgroups::kCols);
    splits_ = may_sweep_twice ? 1 : min(col_tiles_, max(device.multiprocessors / row_tiles_, 1));
    blocks_ = splits_ > 1 ? row_tiles_ * splits_ : min(row_tiles_, device.multiprocessors);
    slots_ = choose_slots(int((s.image.cols + kChunk - 1) / kChunk), !split_,
                          size_t(device.shared_bytes - similarity_confidence::kSharedBytes));
    lay_out(s, nullptr);
    return slots_.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
  }
  int64_t workspace_bytes() const { return bytes_; }

  // One entry per image in confidence and prediction; NaN confidence where a row, or any class, holds NaN or infinity.
  cudaError_t launch(const SimilarityConfidence& s, float* confidence, int64_t* prediction, void* workspace,
                     cudaStream_t stream) {
    lay_out(s, workspace);
    if (const auto error = prepare_b(s.text, split_, s.normalize, text_, s.bias, columns_, padded_classes(), stream))
      return error;
    if (image_)
      if (const auto error = prepare_a(s.image, split_, s.normalize, image_, row_factor_, stream)) return error;
    if (weights_)
      if (const auto error =
              PYFASTCAL_LAUNCH(similarity_confidence::find_weights, 1, similarity_confidence::kWeightThreads, 0, stream,
                               s.factors.class_weight, int(s.text.rows), weights_))
        return error;
    if (!split_ && s.image.dtype == Dtype::kHalf)
      return s.bias ? launch_as<__half, true>(s, confidence, prediction, stream)
                    : launch_as<__half, false>(s, confidence, prediction, stream);
    return s.bias ? launch_as<__nv_bfloat16, true>(s, confidence, prediction, stream)
                  : launch_as<__nv_bfloat16, false>(s, confidence, prediction, stream);
  }

 private:
  int64_t padded_classes() const { return int64_t(col_tiles_) * (by_warpgroups_ ? warpgroups::kCols : kTileCols); }
  void lay_out(const SimilarityConfidence& s, void* workspace) {
    Workspace w(workspace);
    const int sums = by_warpgroups_ ? similarity_confidence::kMostSums : similarity_confidence::kFewWeights;
    const bool store_scores = s.factors.class_weight && s.text.rows > sums &&
                              s.text.rows <= similarity_confidence::kMostScored && (!by_warpgroups_ || splits_ > 1);
    text_ = w.take<uint16_t>(packed_size(s.text, split_));
    const bool in_place = readable_in_place(s.image) && (!by_warpgroups_ || warpgroups::mappable(s.image));
    image_ = !split_ && in_place ? nullptr : w.take<uint16_t>(packed_size(s.image, split_));
    row_factor_ = split_ ? w.take<float>(s.image.rows) : nullptr;
    columns_ = w.take<Column>(padded_classes());
    weights_ = s.factors.class_weight ? w.take<similarity_confidence::Weights>(1) : nullptr;
    const int64_t scored_rows = int64_t(splits_ > 1 ? row_tiles_ : blocks_) * kTileRows;
    scores_ = store_scores ? w.take<float>(scored_rows * padded_classes()) : nullptr;
    parts_ = splits_ > 1 ? w.take<similarity_confidence::Part>(s.image.rows * col_tiles_ * 4) : nullptr;
    found_factor_ = splits_ > 1 ? w.take<float>(s.image.rows) : nullptr;
    bytes_ = w.bytes();
  }

  template <class T, bool kBias>
  cudaError_t launch_as(const SimilarityConfidence& s, float* confidence, int64_t* prediction,
                        cudaStream_t stream) const {
    const Product<T> product{operand_of<T>(s.image, split_, image_), operand_of<T>(s.text, split_, text_),
                             int(s.image.cols), split_ ? kSplitPairs : 1};
    const similarity_confidence::Arguments<T> a{
        product, slots_, row_factor_,   columns_,   s.logit_scale,    s.normalize,         s.factors,  weights_,
        scores_, parts_, found_factor_, row_tiles_, Divisor(splits_), Divisor(col_tiles_), confidence, prediction};
    if (by_warpgroups_) {
      if (const auto error = launch_by_warpgroups<T, kBias>(a, stream)) return error;
    } else {
      const size_t shared = slots_.bytes() + similarity_confidence::kSharedBytes;
      if (const auto error = PYFASTCAL_LAUNCH((similarity_confidence::predict<T, kBias>), unsigned(blocks_),
                                              kProductThreads, shared, stream, a))
        return error;
    }
    if (splits_ == 1) return cudaSuccess;
    return by_warpgroups_ ? launch_merge<true>(s, kBias, confidence, prediction, stream)
                          : launch_merge<false>(s, kBias, confidence, prediction, stream);
  }

  template <bool kGroups>
  cudaError_t launch_merge(const SimilarityConfidence& s, bool bias, float* confidence, int64_t* prediction,
                           cudaStream_t stream) const {
    const int rows = int(s.image.rows), per_block = similarity_confidence::kMergeThreads / 32;
    return PYFASTCAL_LAUNCH(similarity_confidence::merge_parts<kGroups>, unsigned((rows + per_block - 1) / per_block),
                            similarity_confidence::kMergeThreads, 0, stream, parts_, scores_, found_factor_,
                            s.logit_scale, bias, s.factors, weights_, rows, int(s.text.rows), col_tiles_, confidence,
                            prediction);
  }

  // A kernel for each number of sums that there may be; the device knows which.
  template <class T, bool kBias>
  cudaError_t launch_by_warpgroups(const similarity_confidence::Arguments<T>& of, cudaStream_t stream) const {
    using namespace similarity_confidence;
    const Product<T>& p = of.product;
    GroupArguments<T> a{of, Divisor(parts_ ? row_tiles_ : blocks_), {}, {}};
    if (const auto error = warpgroups::make_map(&a.images, p.a, p.depth)) return error;
    if (const auto error = warpgroups::make_map(&a.texts, p.b, p.depth)) return error;
    const auto launch_for = [&]<int kSums>() {
      return PYFASTCAL_LAUNCH((predict_by_warpgroups<T, kBias, kSums>), unsigned(blocks_), warpgroups::kThreads,
                              kGroupSharedBytes, stream, a);
    };
    if (const auto error = launch_for.template operator()<1>()) return error;
    if (!of.weights) return cudaSuccess;
    if (const auto error = launch_for.template operator()<2>()) return error;
    return p.b.rows > kMostSums ? launch_for.template operator()<0>() : cudaSuccess;
  }

  bool split_ = false, by_warpgroups_ = false;
  int row_tiles_ = 0, col_tiles_ = 0, splits_ = 1, blocks_ = 0;
  Slots slots_{};
  uint16_t *text_ = nullptr, *image_ = nullptr;
  float *row_factor_ = nullptr, *scores_ = nullptr, *found_factor_ = nullptr;
  similarity_confidence::Part* parts_ = nullptr;
  Column* columns_ = nullptr;
  similarity_confidence::Weights* weights_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace pyfastcal::cuda
