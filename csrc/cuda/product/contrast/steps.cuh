// The arguments of contrast's kernel, and which tiles of the two products a block takes in which order.
#pragma once
#include "../divisor.cuh"
#include "../operand.cuh"
#include "../tile.cuh"

namespace pyfastcal::cuda::contrast {

inline constexpr int kModels = 2;  // tuned, zero-shot

// From a product to a similarity, 0 past the last class, or to a logit, -infinity there. scale: of the row.
template <bool kLogit>
__device__ __forceinline__ float score(float product, float scale, float factor, float addend) {
  const float x = __fmul_rn(product, scale);
  return kLogit ? __fmaf_rn(x, factor, addend) : __fmul_rn(x, factor);
}

template <class T>
struct Model {
  Product<T> product;
  const float* row_factor;
  const Column* columns;
};

template <class T>
struct Arguments {
  Model<T> models[kModels];
  Slots slots;
  float logit_scale;
  float4* parked;  // kTileRows x kTileCols numbers for each block
  int row_tiles;
  Divisor col_tiles;
  float* z;
};

// The tiles of a block: row tile by row tile, in each of kSweeps sweeps the column tiles, every one for both models.
// What takes a division is found once: the product asks for tiles all the time.
template <class T, int kSweeps>
class Steps {
 public:
  __device__ explicit Steps(const Arguments<T>& a) : a_(a) {
    const int row_tiles = (a.row_tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x);
    size_ = row_tiles * kSweeps * a.col_tiles.divisor() * kModels;
  }

  struct Step {
    int row, sweep, col_tile, model;
  };
  __device__ int size() const { return size_; }
  __device__ Step step(int i) const {
    const int of_tiles = i / kModels, of_rows = a_.col_tiles.quotient(of_tiles), row_tile = of_rows / kSweeps;
    return {(row_tile * int(gridDim.x) + int(blockIdx.x)) * kTileRows, of_rows % kSweeps,
            of_tiles - of_rows * a_.col_tiles.divisor(), i % kModels};
  }
  __device__ Tile<T> operator[](int i) const {
    const Step s = step(i);
    return {&a_.models[s.model].product, s.row, int64_t(s.col_tile) * kTileCols};
  }

 private:
  const Arguments<T>& a_;
  int size_;
};

}  // namespace pyfastcal::cuda::contrast
