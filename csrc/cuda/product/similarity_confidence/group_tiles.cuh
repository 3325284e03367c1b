// What similarity_confidence's kernel by warpgroups is given, and which tiles a block takes in which order.
#pragma once
#include "../warpgroups/columns.cuh"
#include "sweeps.cuh"

namespace pyfastcal::cuda::similarity_confidence {

template <class T>
struct GroupArguments {
  Arguments<T> of;   // col_tiles of warpgroups::kCols; factors of rows are found on the way
  Divisor row_step;  // from one of a block's row tiles to the next; with parts: as many as there are, so no next one
  prim::TensorMap images, texts;
};

// The tiles of a block: row tile by row tile, each swept once or twice; or some of one row tile.
template <class T>
class GroupTiles {
 public:
  using Fact = warpgroups::Columns::Fact;
  __device__ GroupTiles(const GroupArguments<T>& a, bool twice) : a_(a), twice_(twice && !a.of.parts) {
    const int block = int(blockIdx.x), split = a.of.splits.remainder(block);
    first_row_tile_ = a.of.parts ? a.of.splits.quotient(block) : block;
    first_ = a.of.parts ? first_tile(split) : 0;
    const int row_tiles = a.row_step.quotient(a.of.row_tiles - first_row_tile_ + a.row_step.divisor() - 1);
    size_ = a.of.parts ? first_tile(split + 1) - first_ : row_tiles * a.of.col_tiles.divisor() << int(twice_);
  }
  __device__ int first_row(int row_tile) const {
    return (row_tile * a_.row_step.divisor() + first_row_tile_) * kTileRows;
  }
  __device__ int size() const { return size_; }
  __device__ int row_tile(int i) const { return a_.of.col_tiles.quotient(first_ + i) >> int(twice_); }
  __device__ int col_tile(int i) const { return a_.of.col_tiles.remainder(first_ + i); }
  __device__ bool sweeps_again(int i) const { return twice_ && a_.of.col_tiles.quotient(i) % 2; }
  __device__ bool ends_sweep(int i) const { return col_tile(i) + 1 == a_.of.col_tiles.divisor(); }
  __device__ bool begins_rows(int i) const { return i == 0 || (col_tile(i) == 0 && !sweeps_again(i)); }
  __device__ bool ends_rows(int i) const { return i + 1 == size_ || (ends_sweep(i) && sweeps_again(i) == twice_); }
  __device__ warpgroups::Tile operator[](int i) const {
    const int col = col_tile(i) * warpgroups::kCols;
    return {&a_.images, &a_.texts, first_row(row_tile(i)), col, a_.of.columns + col};
  }

 private:
  __device__ int first_tile(int split) const { return a_.of.splits.quotient(split * a_.of.col_tiles.divisor()); }

  const GroupArguments<T>& a_;
  const bool twice_;
  int first_row_tile_, first_, size_;
};

}  // namespace pyfastcal::cuda::similarity_confidence
