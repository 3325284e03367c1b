// similarity: the cosine similarities of images and classes, all N x C of them, in fp32.
//
// Persistent blocks share out the product's tiles, row tile after row tile, evenly: each takes a run of them, and
// copies a tile's images anew only where the row changes. A tile leaves the registers as similarities; nothing is kept
// from one to the next. Every element is one chain of operations over its image and its class (gemm.cuh, operand.cuh):
// its bits do not depend on the rest of the batch, nor on how many multiprocessors there are.
//
// Workspace: packed classes (2 bytes per number; 6 if split) and 8 bytes per class; packed images unless they are read
// in place, and 4 bytes for each.
#pragma once
#include <climits>

#include "../runtime/launch.cuh"
#include "../runtime/workspace.cuh"
#include "gemm.cuh"
#include "similarity/by_warpgroups.cuh"
#include "similarity/share.cuh"
#include "tile_rows.cuh"
#include "warpgroups/choice.cuh"

namespace pyfastcal::cuda {

namespace similarity {

template <class T>
__global__ void __launch_bounds__(kProductThreads, 1) multiply(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  const Share<T> share(a);
  multiply_tiles<T>(share, a.slots, shared, [&](int i, Accumulators& acc) {
    const Tile<T> tile = share[i];
    const int64_t rows = a.product.a.rows, classes = a.product.b.rows, first_class = tile.col + Place::warp_col();
    if (first_class >= classes) return;
    const bool whole = classes % 2 == 0 && first_class + kWarpCols <= classes;  // then no store needs a branch
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float of_row[4];
#pragma unroll
      for (int m = 0; m < 4; ++m) of_row[m] = a.row_factor[min(tile.row + Place::row(m, half), rows - 1)];
      apply_columns(acc, half, a.columns + first_class,
                    [&](float x, float factor, float, int m) { return similarity_of(x, factor, of_row[m]); });
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        const int64_t row = tile.row + Place::row(m, half);
        if (row >= rows) continue;
        float* const to = a.out + row * classes + tile.col + Place::col(0, 0);
        if (whole) {
#pragma unroll
          for (int n = 0; n < 8; ++n) store_pair(to + n * 8, acc[m][n][2 * half], acc[m][n][2 * half + 1], 2, true);
        } else {
          const int left = int(classes - tile.col) - Place::col(0, 0);
#pragma unroll
          for (int n = 0; n < 8; ++n)
            store_pair(to + n * 8, acc[m][n][2 * half], acc[m][n][2 * half + 1], left - n * 8, classes % 2 == 0);
        }
      }
    }
  });
}

}  // namespace similarity

// How it is run on the current device, and what workspace that takes.
class SimilarityPlan {
 public:
  cudaError_t make(const Matrix& image, const Matrix& text, ProductChoice choice = ProductChoice::kAuto) {
    DeviceLimits device;
    if (const auto error = ask_device(&device)) return error;
    split_ = must_split(image, text);
    const int64_t row_tiles = (image.rows + kTileRows - 1) / kTileRows;
    by_warpgroups_ = warpgroups::take(choice, warpgroups::MeasuredFaster::similarity, device, image.cols,
                                      similarity::kGroupSharedBytes, !split_);
    const int64_t col_tiles = (text.rows + tile_cols() - 1) / tile_cols();
    tiles_ = row_tiles * col_tiles;
    blocks_ = int(min(tiles_, int64_t(device.multiprocessors)));
    if (image.rows > INT_MAX - kTileRows || text.rows > INT_MAX - kTileCols ||
        tiles_ / blocks_ + 1 + col_tiles > INT_MAX)
      return cudaErrorInvalidValue;
    col_tiles_ = int(col_tiles);
    slots_ =
        choose_slots(int((image.cols + kChunk - 1) / kChunk), !split_ && col_tiles > 1, size_t(device.shared_bytes));
    lay_out(image, text, nullptr);
    return slots_.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
  }
  int64_t workspace_bytes() const { return bytes_; }

  // out: (image.rows, text.rows), 8-byte aligned; NaN where a vector holds NaN or infinity.
  cudaError_t launch(const Matrix& image, const Matrix& text, bool normalize, float* out, void* workspace,
                     cudaStream_t stream) {
    lay_out(image, text, workspace);
    if (const auto error =
            prepare_b(text, split_, normalize, text_, nullptr, columns_, int64_t(col_tiles_) * tile_cols(), stream))
      return error;
    if (const auto error = prepare_a(image, split_, normalize, image_, row_factor_, stream)) return error;
    return !split_ && image.dtype == Dtype::kHalf ? launch_as<__half>(image, text, out, stream)
                                                  : launch_as<__nv_bfloat16>(image, text, out, stream);
  }

 private:
  int tile_cols() const { return by_warpgroups_ ? warpgroups::kCols : kTileCols; }

  void lay_out(const Matrix& image, const Matrix& text, void* workspace) {
    Workspace w(workspace);
    text_ = w.take<uint16_t>(packed_size(text, split_));
    columns_ = w.take<Column>(int64_t(col_tiles_) * tile_cols());
    const bool in_place = readable_in_place(image) && (!by_warpgroups_ || warpgroups::mappable(image));
    image_ = !split_ && in_place ? nullptr : w.take<uint16_t>(packed_size(image, split_));
    row_factor_ = w.take<float>(image.rows);
    bytes_ = w.bytes();
  }

  template <class T>
  cudaError_t launch_as(const Matrix& image, const Matrix& text, float* out, cudaStream_t stream) const {
    const Product<T> product{operand_of<T>(image, split_, image_), operand_of<T>(text, split_, text_), int(image.cols),
                             split_ ? kSplitPairs : 1};
    const similarity::Arguments<T> a{product, slots_, row_factor_, columns_, tiles_, Divisor(col_tiles_), out};
    if (by_warpgroups_) {
      similarity::GroupArguments<T> of_groups{a, {}, {}};
      if (const auto error = warpgroups::make_map(&of_groups.images, product.a, product.depth)) return error;
      if (const auto error = warpgroups::make_map(&of_groups.texts, product.b, product.depth)) return error;
      return PYFASTCAL_LAUNCH(similarity::multiply_by_warpgroups<T>, unsigned(blocks_), warpgroups::kThreads,
                              similarity::kGroupSharedBytes, stream, of_groups);
    }
    return PYFASTCAL_LAUNCH(similarity::multiply<T>, unsigned(blocks_), kProductThreads, slots_.bytes(), stream, a);
  }

  bool split_ = false, by_warpgroups_ = false;
  int64_t tiles_ = 0, bytes_ = 0;
  int blocks_ = 0, col_tiles_ = 0;
  Slots slots_{};
  uint16_t *text_ = nullptr, *image_ = nullptr;
  float* row_factor_ = nullptr;
  Column* columns_ = nullptr;
};

}  // namespace pyfastcal::cuda
