// The arguments of similarity_confidence's kernel, and which tiles of the product a block takes in which order.
#pragma once
#include "../divisor.cuh"
#include "../tile.cuh"
#include "parts.cuh"

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
  int row_tiles;
  Divisor splits, col_tiles;
  float* confidence;
  int64_t* prediction;
};

// The tiles of a block: row tile by row tile, each swept once or twice; or some of one row tile. How many is found
// once, for it takes a division and the product asks all the time; more would be too many registers.
template <class T>
class Sweeps {
 public:
  __device__ Sweeps(const Arguments<T>& a, int count) : a_(a), count_(count) {
    const int split = a.splits.remainder(int(blockIdx.x)), blocks = int(gridDim.x);
    size_ = a.parts ? first_tile(split + 1) - first_tile(split)
                    : (a.row_tiles - int(blockIdx.x) + blocks - 1) / blocks * count * a.col_tiles.divisor();
  }

  struct Step {
    int row, sweep, col_tile;
  };
  __device__ int count() const { return count_; }
  __device__ int size() const { return size_; }
  __device__ Step step(int i) const {
    if (a_.parts)
      return {a_.splits.quotient(int(blockIdx.x)) * kTileRows, 0, first_tile(a_.splits.remainder(int(blockIdx.x))) + i};
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
  __device__ int first_tile(int split) const { return a_.splits.quotient(split * a_.col_tiles.divisor()); }

  const Arguments<T>& a_;
  const int count_;
  int size_;
};

}  // namespace pyfastcal::cuda::similarity_confidence
