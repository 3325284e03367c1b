// contrast: the mean absolute difference of a row between the tuned and the zero-shot CLIP (CAC's z).
//
// A persistent block takes kTileRows images at a time through all classes, every tile first for the tuned model, then
// for the zero-shot one. The first's similarities are parked in the workspace (each thread its own: L2 keeps them), the
// second's are subtracted from them in registers. Probabilities need a sweep before, which finds the largest logit of
// every row and the sum of the powers of all, for both models. Order and bits as in similarity_confidence.cuh; models
// that are equal have equal bits, and z = 0. The product by warpgroups has kernels of its own for it
// (contrast/by_warpgroups.cuh), which take a few tiles at a time for one model (contrast/group_tiles.cuh).
//
// Workspace: packed classes of both models (2 bytes per number; 6 if split), packed images unless they are read in
// place, a factor per image and 8 bytes per class for each, 128 KiB per block. By warpgroups 64 or 128 KiB per block,
// and of probabilities 16 bytes per image.
#pragma once
#include <climits>

#include "../runtime/launch.cuh"
#include "../runtime/workspace.cuh"
#include "contrast/by_warpgroups.cuh"
#include "contrast/epilogue.cuh"
#include "gemm.cuh"
#include "warpgroups/choice.cuh"

namespace pyfastcal::cuda {

namespace contrast {

template <class T, bool kProbability>
__global__ void __launch_bounds__(kProductThreads, 1) measure(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  using E = Epilogue<T, kProbability>;
  const typename E::Sequence steps(a);
  multiply_tiles<T>(steps, a.slots, shared, E(a, steps, shared + a.slots.bytes()));
}

}  // namespace contrast

struct Contrast {
  Matrix image, text, image0, text0;  // 0: of the zero-shot model
  bool probability;
  float logit_scale;
  bool normalize;
};

// How it is run on the current device, and what workspace that takes.
class ContrastPlan {
 public:
  cudaError_t make(const Contrast& c, ProductChoice choice = ProductChoice::kAuto) {
    DeviceLimits device;
    if (const auto error = ask_device(&device)) return error;
    // One type for both products: fp16 only where all of it is.
    half_ = !must_split(c.image, c.text) && !must_split(c.image, c.text0) && !must_split(c.image0, c.text) &&
            c.image.dtype == Dtype::kHalf;
    const auto is_bfloat16 = [](const Matrix& m) { return m.dtype == Dtype::kBFloat16; };
    models_[0] = {c.image, c.text, !half_ && !(is_bfloat16(c.image) && is_bfloat16(c.text))};
    models_[1] = {c.image0, c.text0, !half_ && !(is_bfloat16(c.image0) && is_bfloat16(c.text0))};
    same_image_ = c.image.data == c.image0.data && c.image.dtype == c.image0.dtype && c.image.cols == c.image0.cols &&
                  c.image.stride == c.image0.stride && models_[0].split == models_[1].split;
    const auto chunks = [](const Matrix& m) { return (m.cols + kChunk - 1) / kChunk; };
    by_warpgroups_ = warpgroups::take(choice, warpgroups::MeasuredFaster::contrast, device,
                                      min(c.image.cols, c.image0.cols), contrast::kGroupSharedBytes,
                                      !models_[0].split && !models_[1].split && chunks(c.image) == chunks(c.image0));
    const int64_t row_tiles = (c.image.rows + kTileRows - 1) / kTileRows;
    const int64_t col_tiles = (c.text.rows + tile_cols() - 1) / tile_cols();
    blocks_ = int(min(row_tiles, int64_t(device.multiprocessors)));
    if (c.image.rows > INT_MAX - kTileRows || c.text.rows > INT_MAX - kTileCols ||
        (row_tiles / blocks_ + 1) * col_tiles > INT_MAX / (2 * contrast::kModels))
      return cudaErrorInvalidValue;
    row_tiles_ = int(row_tiles);
    col_tiles_ = int(col_tiles);
    slots_ = choose_slots(1, false, size_t(device.shared_bytes - kExchangeBytes));
    lay_out(c, nullptr);
    return slots_.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
  }
  int64_t workspace_bytes() const { return bytes_; }

  // z: one entry per image; NaN where a row, or any class, holds NaN or infinity.
  cudaError_t launch(const Contrast& c, float* z, void* workspace, cudaStream_t stream) {
    lay_out(c, workspace);
    for (int m = 0; m < contrast::kModels; ++m) {
      const Model& model = models_[m];
      if (const auto error = prepare_b(model.text, model.split, c.normalize, model.text_copy, nullptr, model.columns,
                                       int64_t(col_tiles_) * tile_cols(), stream))
        return error;
      if (m == 1 && same_image_) break;
      if (const auto error =
              prepare_a(model.image, model.split, c.normalize, model.image_copy, model.row_factor, stream))
        return error;
    }
    if (half_) return c.probability ? launch_as<__half, true>(c, z, stream) : launch_as<__half, false>(c, z, stream);
    return c.probability ? launch_as<__nv_bfloat16, true>(c, z, stream) : launch_as<__nv_bfloat16, false>(c, z, stream);
  }

 private:
  struct Model {
    Matrix image, text;
    bool split;
    uint16_t *image_copy = nullptr, *text_copy = nullptr;
    float* row_factor = nullptr;
    Column* columns = nullptr;
  };

  int tile_cols() const { return by_warpgroups_ ? warpgroups::kCols : kTileCols; }
  int tiles_of_run() const { return same_image_ ? 1 : contrast::kRun; }

  void lay_out(const Contrast& c, void* workspace) {
    Workspace w(workspace);
    for (int m = 0; m < contrast::kModels; ++m) {
      Model& model = models_[m];
      model.text_copy = w.take<uint16_t>(packed_size(model.text, model.split));
      model.columns = w.take<Column>(int64_t(col_tiles_) * tile_cols());
      if (m == 1 && same_image_) {
        model.image_copy = models_[0].image_copy;
        model.row_factor = models_[0].row_factor;
      } else {
        const bool in_place =
            !model.split && readable_in_place(model.image) && (!by_warpgroups_ || warpgroups::mappable(model.image));
        model.image_copy = in_place ? nullptr : w.take<uint16_t>(packed_size(model.image, model.split));
        model.row_factor = w.take<float>(model.image.rows);
      }
    }
    const int parked = (by_warpgroups_ ? tiles_of_run() : 1) * tile_cols();
    parked_ = w.take<float4>(int64_t(blocks_) * kTileRows * parked / 4);
    sums_ = by_warpgroups_ && c.probability ? w.take<float2>(contrast::kModels * c.image.rows) : nullptr;
    bytes_ = w.bytes();
  }

  template <class T, bool kProbability>
  cudaError_t launch_as(const Contrast& c, float* z, cudaStream_t stream) const {
    contrast::Arguments<T> a{{}, slots_, c.logit_scale, parked_, row_tiles_, Divisor(col_tiles_), z};
    for (int m = 0; m < contrast::kModels; ++m) {
      const Model& model = models_[m];
      a.models[m] = {{operand_of<T>(model.image, model.split, model.image_copy),
                      operand_of<T>(model.text, model.split, model.text_copy), int(model.image.cols),
                      model.split ? kSplitPairs : 1},
                     model.row_factor,
                     model.columns};
    }
    if (by_warpgroups_) return launch_by_warpgroups<T, kProbability>(a, stream);
    return PYFASTCAL_LAUNCH((contrast::measure<T, kProbability>), unsigned(blocks_), kProductThreads,
                            slots_.bytes() + kExchangeBytes, stream, a);
  }

  template <class T, bool kProbability>
  cudaError_t launch_by_warpgroups(const contrast::Arguments<T>& of, cudaStream_t stream) const {
    using namespace contrast;
    const Divisor tiles_of_rows(kModels * of.col_tiles.divisor());
    GroupArguments<T> a{of, same_image_, Divisor(blocks_), tiles_of_rows, Divisor(kModels * tiles_of_run()), sums_,
                        {}, {}};
    for (int m = 0; m < kModels; ++m) {
      const Product<T>& p = of.models[m].product;
      if (const auto error = warpgroups::make_map(&a.images[m], p.a, p.depth)) return error;
      if (const auto error = warpgroups::make_map(&a.texts[m], p.b, p.depth)) return error;
    }
    if constexpr (kProbability) {
      GroupArguments<T> of_sums = a;
      of_sums.tiles_of_run = tiles_of_rows;  // all of one model, then all of the other
      if (const auto error = PYFASTCAL_LAUNCH(sum_by_warpgroups<T>, unsigned(blocks_), warpgroups::kThreads,
                                              contrast::kGroupSharedBytes, stream, of_sums))
        return error;
    }
    return PYFASTCAL_LAUNCH((measure_by_warpgroups<T, kProbability>), unsigned(blocks_), warpgroups::kThreads,
                            contrast::kGroupSharedBytes, stream, a);
  }

  Model models_[contrast::kModels];
  bool half_ = false, same_image_ = false, by_warpgroups_ = false;
  int row_tiles_ = 0, col_tiles_ = 0, blocks_ = 0;
  Slots slots_{};
  float4* parked_ = nullptr;
  float2* sums_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace pyfastcal::cuda
