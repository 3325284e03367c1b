// The arguments of similarity_confidence's kernel, and which tiles of the product a block takes in which order.
#pragma once
#include "divisor.cuh"
#include "gemm.cuh"
#include "similarity_confidence_parts.cuh"

namespace pyfastcal::cuda::similarity_confidence {

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

// The tiles of a block: row tile by row tile, each swept once or twice; or some of one row tile. What takes a division
// is found once: the product asks for tiles all the time.
template <class T>
class Sweeps {
 public:
  __device__ Sweeps(const Arguments<T>& a, int count) : a_(a), count_(count) {
    const int block = int(blockIdx.x), blocks = int(gridDim.x);
    if (a.parts) {
      const int split = block % a.splits;
      first_row_ = block / a.splits * kTileRows;
      first_col_ = split * a.col_tiles.divisor() / a.splits;
      size_ = (split + 1) * a.col_tiles.divisor() / a.splits - first_col_;
    } else {
      first_row_ = block * kTileRows;
      first_col_ = 0;
      size_ = (a.row_tiles - block + blocks - 1) / blocks * count * a.col_tiles.divisor();
    }
  }

  struct Step {
    int row, sweep, col_tile;
  };
  __device__ int count() const { return count_; }
  __device__ int size() const { return size_; }
  __device__ Step step(int i) const {
    if (a_.parts) return {first_row_, 0, first_col_ + i};
    const int of_rows = a_.col_tiles.quotient(i), row_tile = count_ == 1 ? of_rows : of_rows / 2;
    return {row_tile * int(gridDim.x) * kTileRows + first_row_, of_rows - row_tile * count_,
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
  const Arguments<T>& a_;
  const int count_;
  int first_row_, first_col_, size_;
};

}  // namespace pyfastcal::cuda::similarity_confidence
