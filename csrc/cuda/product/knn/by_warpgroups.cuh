// knn's filter on the product by warpgroups. As scan.cuh, but all of a query's scores are in one warp, which looks
// after its sixteen queries' lists alone.
#pragma once
#include "../warpgroups/product.cuh"
#include "lists.cuh"

namespace pyfastcal::cuda::knn {

struct GroupMaps {
  prim::TensorMap queries, bank;
  int depth;
};

// The tiles of one block: rows of queries, and whole tiles of the bank, one after the other.
struct GroupTiles {
  using Fact = float;
  const GroupMaps& maps;
  const float* fact;
  int row, first_col, n;
  __device__ int size() const { return n; }
  __device__ bool begins_rows(int i) const { return i == 0; }
  __device__ bool ends_rows(int i) const { return i + 1 == n; }
  __device__ warpgroups::Tile operator[](int i) const {
    return {&maps.queries, &maps.bank, row, col(i), fact + col(i)};
  }
  __device__ int col(int i) const { return first_col + i * warpgroups::kCols; }
};

inline constexpr int kGroupSharedBytes = warpgroups::Shared::kBytes<GroupTiles::Fact> + int(sizeof(Heads));

// One of the warps that multiply.
struct WarpTeam {
  static constexpr int kThreads = 32, kTeams = warpgroups::kMultiplyingWarps;
  __device__ static int number() { return (int(threadIdx.x) - warpgroups::kCopyingThreads) / 32; }
  __device__ static int rank() { return int(threadIdx.x) % 32; }
  __device__ static void sync() { __syncwarp(); }
};

class GroupScan {
 public:
  using Place = warpgroups::Place;
  using Accumulators = Place::Accumulators;

  __device__ __forceinline__ GroupScan(const Search& s, const GroupTiles& tiles, const warpgroups::Shared& shared,
                                       Heads& heads)
      : s_(s), tiles_(tiles), shared_(shared), lists_(s, heads) {}

  __device__ __forceinline__ void begin(int i) {
    i_ = i;
    longest_ = 0;
  }

  template <int p>
  __device__ __forceinline__ void part(const Accumulators& acc) {
    static_assert(Place::kColBlocks == 2 * warpgroups::kParts);
    const float* const facts = shared_.facts<float>(i_);
    const auto fact = [&](int n, int e) { return facts[Place::col(n, e)]; };
    longest_ = max(longest_, lists_.append<Place>(acc, 2 * p, tiles_.col(i_), fact));
    longest_ = max(longest_, lists_.append<Place>(acc, 2 * p + 1, tiles_.col(i_), fact));  // (in a loop it spills)
    if constexpr (p + 1 == warpgroups::kParts)
      if (__any_sync(~0u, longest_ >= s_.trigger)) cut();
  }

  __device__ void write_counts() const {
    __syncwarp();
    if (threadIdx.x % 32 < 16) lists_.write_count(Place::warp_row() + int(threadIdx.x) % 32);
  }

 private:
  __device__ __forceinline__ void cut() const {
    __syncwarp();
#pragma unroll 1
    for (int row = Place::warp_row(); row < Place::warp_row() + 16; ++row) {
      if (!lists_.full(row)) continue;
      const int left = lists_.prune(row);
      __syncwarp();
      if (lists_.crowded(left)) lists_.prune_exactly(row);
    }
    __syncwarp();
  }

  const Search& s_;
  const GroupTiles& tiles_;
  const warpgroups::Shared& shared_;
  const Lists<WarpTeam> lists_;
  int i_ = 0, longest_ = 0;
};

// Blocks as in scan.
template <class T>
__global__ void __launch_bounds__(warpgroups::kThreads, 1)
    scan_by_warpgroups(const __grid_constant__ Search s, const __grid_constant__ GroupMaps maps) {
  if constexpr (prim::kOnHopper) {
    using namespace warpgroups;
    PYFASTCAL_SHARED(unsigned char, base);
    const Shared shared(base);
    Heads& heads = *reinterpret_cast<Heads*>(base + Shared::kBytes<GroupTiles::Fact>);
    const int row_tiles = int((s.queries.rows + kTileRows - 1) / kTileRows), split = int(blockIdx.x) / row_tiles;
    const int64_t col_tiles = (s.bank.rows + kCols - 1) / kCols;
    const int begin = int(col_tiles * split / s.splits), end = int(col_tiles * (split + 1) / s.splits);
    const GroupTiles tiles{maps, s.fact, int(blockIdx.x) % row_tiles * kTileRows, begin * kCols, end - begin};
    Lists<WarpTeam>(s, heads).begin(tiles.row, split);
    if (threadIdx.x == 0) {
      shared.init();
      prim::publish_barriers();
    }
    __syncthreads();
    share_out<T>(
        tiles, shared, maps.depth, [&] { return GroupScan(s, tiles, shared, heads); },
        [](const GroupScan& scan) { scan.write_counts(); });
  } else {
    prim::trap();
  }
}

}  // namespace pyfastcal::cuda::knn
