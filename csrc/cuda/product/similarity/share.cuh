// The arguments of similarity's kernels, which tiles of the product a block takes, and how a similarity is made and
// written.
#pragma once
#include "../divisor.cuh"
#include "../operand.cuh"

namespace pyfastcal::cuda::similarity {

template <class T>
struct Arguments {
  Product<T> product;
  Slots slots;
  const float* row_factor;
  const Column* columns;
  int64_t tiles;
  Divisor col_tiles;
  float* out;
};

// The tiles of a block.
template <class T>
class Share {
 public:
  __device__ explicit Share(const Arguments<T>& a) : a_(a) {
    const int64_t begin = a.tiles * blockIdx.x / gridDim.x, end = a.tiles * (blockIdx.x + 1) / gridDim.x;
    first_row_ = begin / a.col_tiles.divisor();
    first_col_ = int(begin % a.col_tiles.divisor());
    size_ = int(end - begin);
  }
  __device__ int size() const { return size_; }
  __device__ int64_t row_tile(int i) const { return first_row_ + a_.col_tiles.quotient(first_col_ + i); }
  __device__ int col_tile(int i) const { return a_.col_tiles.remainder(first_col_ + i); }
  __device__ Tile<T> operator[](int i) const {
    return {&a_.product, row_tile(i) * kTileRows, int64_t(col_tile(i)) * kTileCols};
  }

 private:
  const Arguments<T>& a_;
  int64_t first_row_;  // of tiles
  int first_col_, size_;
};

__device__ __forceinline__ float similarity_of(float product, float of_col, float of_row) {
  return product * of_col * of_row;
}

// Four neighbouring lanes write 32 bytes of a row, a sector of L2 where the classes are a multiple of eight. First to
// leave L2, which is for the product's operands.
__device__ __forceinline__ void store_pair(float* to, float even, float odd, int left, bool aligned) {
  if (aligned && left >= 2) {
    __stcs(reinterpret_cast<float2*>(to), make_float2(even, odd));
  } else {
    if (left >= 1) __stcs(to, even);
    if (left >= 2) __stcs(to + 1, odd);
  }
}

}  // namespace pyfastcal::cuda::similarity
