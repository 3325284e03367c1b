// What contrast's kernels by warpgroups are given, and which tiles of the two products a block takes in which order.
#pragma once
#include "../warpgroups/columns.cuh"
#include "steps.cuh"

namespace pyfastcal::cuda::contrast {

inline constexpr int kRun = 2;

inline constexpr int kGroupSharedBytes = warpgroups::Shared::kBytes<warpgroups::Columns::Fact>;

template <class T>
struct GroupArguments {
  Arguments<T> of;  // col_tiles of warpgroups::kCols; parked: a run of tiles for each block
  bool same_images;
  Divisor blocks, tiles_of_rows, tiles_of_run;  // of both models
  float2* sums;                                 // of [model][row] the largest logit, the inverse of the sum of powers
  prim::TensorMap images[kModels], texts[kModels];

  __device__ float2* sums_of(int model) const { return sums + model * of.models[0].product.a.rows; }
  __device__ float4* parked(int place) const {
    constexpr int kSize = kTileRows * warpgroups::kCols / 4;
    return of.parked + (int64_t(blockIdx.x) * (tiles_of_run.divisor() / kModels) + place) * kSize;
  }
};

// The tiles of a block: row tile by row tile, its column tiles run by run: all of a run for one model, then all for the
// other, which the next run begins with: so the rows in shared memory change once in a run. Where both models have the
// same images they stay anyway, and a run is one tile: the fewer are parked, the more of them L2 keeps.
template <class T>
class GroupTiles {
 public:
  using Fact = warpgroups::Columns::Fact;
  __device__ explicit GroupTiles(const GroupArguments<T>& a)
      : a_(a), row_tiles_(a.blocks.quotient(a.of.row_tiles - int(blockIdx.x) + a.blocks.divisor() - 1)) {}

  struct Step {
    int row, model, col_tile;
    bool parks;           // the run's first model
    int place, of_model;  // in the run; of how many
  };
  __device__ int size() const { return row_tiles_ * a_.tiles_of_rows.divisor(); }
  __device__ Step step(int i) const {
    const int row_tile = a_.tiles_of_rows.quotient(i), of_row = i - row_tile * a_.tiles_of_rows.divisor();
    const int run = a_.tiles_of_run.quotient(of_row), of_run = of_row - run * a_.tiles_of_run.divisor();
    const int length = a_.tiles_of_run.divisor() / kModels, first = run * length;
    const int of_model = min(length, a_.of.col_tiles.divisor() - first);
    const bool parks = of_run < of_model;
    const int place = parks ? of_run : of_run - of_model;
    return {(row_tile * a_.blocks.divisor() + int(blockIdx.x)) * kTileRows,
            parks ? run % kModels : 1 - run % kModels,
            first + place,
            parks,
            place,
            of_model};
  }
  // Of a row tile.
  __device__ bool begins(int i) const { return a_.tiles_of_rows.remainder(i) == 0; }
  __device__ bool ends(int i) const { return a_.tiles_of_rows.remainder(i) + 1 == a_.tiles_of_rows.divisor(); }
  // Of what is in shared memory.
  __device__ bool begins_rows(int i) const {
    const Step s = step(i);
    return begins(i) || (!a_.same_images && !s.parks && s.place == 0);
  }
  __device__ bool ends_rows(int i) const {
    const Step s = step(i);
    return ends(i) || (!a_.same_images && s.parks && s.place + 1 == s.of_model);
  }
  __device__ warpgroups::Tile operator[](int i) const {
    const Step s = step(i);
    const int col = s.col_tile * warpgroups::kCols;
    return {&a_.images[s.model], &a_.texts[s.model], s.row, col, a_.of.models[s.model].columns + col};
  }

 private:
  const GroupArguments<T>& a_;
  const int row_tiles_;
};

}  // namespace pyfastcal::cuda::contrast
