// similarity on the product by warpgroups: a tile of products is scaled and written between those of the next one.
#pragma once
#include "../warpgroups/columns.cuh"
#include "share.cuh"

namespace pyfastcal::cuda::similarity {

inline constexpr int kGroupSharedBytes = warpgroups::Shared::kBytes<warpgroups::Columns::Fact>;

template <class T>
struct GroupArguments {
  Arguments<T> of;  // tiles of warpgroups::kCols columns
  prim::TensorMap images, texts;
};

template <class T>
class GroupShare {
 public:
  using Fact = warpgroups::Columns::Fact;
  __device__ explicit GroupShare(const GroupArguments<T>& a) : a_(a), share_(a.of) {}
  __device__ int size() const { return share_.size(); }
  __device__ int row(int i) const { return int(share_.row_tile(i)) * kTileRows; }
  __device__ int col(int i) const { return share_.col_tile(i) * warpgroups::kCols; }
  __device__ bool begins_rows(int i) const { return i == 0 || share_.col_tile(i) == 0; }
  __device__ bool ends_rows(int i) const { return i + 1 == size() || share_.col_tile(i + 1) == 0; }
  __device__ warpgroups::Tile operator[](int i) const {
    return {&a_.images, &a_.texts, row(i), col(i), a_.of.columns + col(i)};
  }

 private:
  const GroupArguments<T>& a_;
  const Share<T> share_;
};

template <class T>
class GroupWriter {
 public:
  using Place = warpgroups::Place;
  using Accumulators = Place::Accumulators;

  __device__ __forceinline__ GroupWriter(const Arguments<T>& a, const GroupShare<T>& share,
                                         const warpgroups::Shared& shared)
      : a_(a), share_(share), shared_(shared) {}

  __device__ __forceinline__ void begin(int i) {
    const int64_t rows = a_.product.a.rows, classes = a_.product.b.rows;
    const int col = share_.col(i) + Place::col(0, 0);
    columns_.begin(shared_, i);
    aligned_ = classes % 2 == 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = share_.row(i) + Place::row(0, half);
      of_row_[half] = a_.row_factor[min(row, rows - 1)];
      left_[half] = row < rows ? int(classes) - col : 0;
      to_[half] = a_.out + row * classes + col;
    }
  }

  template <int p>
  __device__ __forceinline__ void part(const Accumulators& acc) {
    warpgroups::each_pair<p, 0, warpgroups::kParts>([&](int n, int half) {
      const float4 two = columns_.two(n);
      const float even = similarity_of(acc[0][n][2 * half], two.x, of_row_[half]),
                  odd = similarity_of(acc[0][n][2 * half + 1], two.z, of_row_[half]);
      store_pair(to_[half] + n * 8, even, odd, left_[half] - n * 8, aligned_);
    });
  }

 private:
  const Arguments<T>& a_;
  const GroupShare<T>& share_;
  const warpgroups::Shared& shared_;
  warpgroups::Columns columns_;
  // Of this thread's two rows: the factor, where the first of its columns goes, how many there are from there on.
  float of_row_[2];
  float* to_[2];
  int left_[2];
  bool aligned_ = false;
};

template <class T>
__global__ void __launch_bounds__(warpgroups::kThreads, 1)
    multiply_by_warpgroups(const __grid_constant__ GroupArguments<T> a) {
  if constexpr (prim::kOnHopper) {
    using namespace warpgroups;
    PYFASTCAL_SHARED(unsigned char, base);
    const Shared shared(base);
    if (threadIdx.x == 0) {
      shared.init();
      prim::publish_barriers();
    }
    __syncthreads();
    const GroupShare<T> share(a);
    share_out<T>(
        share, shared, a.of.product.depth, [&] { return GroupWriter<T>(a.of, share, shared); }, [](const auto&) {});
  } else {
    prim::trap();
  }
}

}  // namespace pyfastcal::cuda::similarity
