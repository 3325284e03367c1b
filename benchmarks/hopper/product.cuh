// The two warpgroups that multiply, each 64 rows of a tile with all its classes.
#pragma once
#include "epilogue.cuh"

namespace pyfastcal::hopper {

template <class P>
class Multiplier {
 public:
  using Accumulators = float[P::kAccumulators];

  __device__ __forceinline__ Multiplier(RowState& state, const Shared<P>& shared, const Walk& walk,
                                        const Arguments& args, int thread)
      : shared_(shared),
        walk_(walk),
        args_(args),
        warpgroup_(__shfl_sync(~0u, thread / 128, 0)),
        lane_(thread % 32),
        rows_(state, args, lane_, thread % 4 * 2, thread / 32 * 16 + lane_ / 4) {}

  // One set of accumulators: a warpgroup multiplies, or is busy with its epilogue. With a lead the first begins ahead
  // of the second, whose products fill the tensor cores during its epilogue.
  __device__ __forceinline__ void run_one_set() {
    float acc[P::kAccumulators];
    uint32_t turn_parity = 0;
    for (int group = walk_.first; group < walk_.groups; group += walk_.step, ++group_number_) {
      const int row_tile = group * P::kCluster + walk_.rank;
      rows_.begin(row_tile);
      for (int c = 0; c < P::kTiles; ++c) {
        if (P::kLead > 0 && warpgroup_ == 1) shared_.turn().wait(turn_parity, args_.report, kTurn);
        turn_parity ^= 1;
        pin(acc);
#pragma unroll
        for (int k = 0; k < kChunks; ++k) {
          const int before = last_slot_;
          issue(acc, c, k);
          if (P::kLead > 0 && k == P::kLead - 1 && warpgroup_ == 0 && lane_ == 0) shared_.turn().arrive();
          if (k > 0) {
            wait_products<1>();
            release_slot(before);
            release_rows(c, k - 1);
          }
        }
        wait_products<0>();
        pin(acc);
        release_slot(last_slot_);
        release_rows(c, kChunks - 1);
        rows_.begin_tops();
        rows_.tops(acc, c, 0, P::kColumnGroups);
        rows_.end_tops(c);
        rows_.sums(acc, 0, P::kColumnGroups);
      }
      rows_.finish(row_tile);
    }
  }

  // Two sets: a tile is multiplied into one while the other, the tile before it, goes through its epilogue.
  __device__ __forceinline__ void run_two_sets() {
    float even[P::kAccumulators], odd[P::kAccumulators];
    int before = -1;  // the tile of rows before this one
    for (int group = walk_.first; group < walk_.groups; group += walk_.step, ++group_number_) {
      const int row_tile = group * P::kCluster + walk_.rank;
      for (int c = 0; c < P::kTiles; c += 2) {
        multiply_tile(even, odd, c, c ? c - 1 : P::kTiles - 1, c ? row_tile : before, c > 0 || before >= 0);
        multiply_tile(odd, even, c + 1, c, row_tile, true);
      }
      before = row_tile;
    }
    wait_products<0>();
    pin(odd);
    if (before >= 0) {
      release_slot(last_slot_);
      rows_.begin_tops();
      rows_.tops(odd, P::kTiles - 1, 0, P::kColumnGroups);
      rows_.end_tops(P::kTiles - 1);
      rows_.sums(odd, 0, P::kColumnGroups);
      rows_.finish(before);
    }
  }

 private:
  // Classes c into `now`, with the epilogue of the tile before in `last`, if there is one: classes last_c of
  // last_tile's rows. Maxima behind the first two chunks, a sixth of the sums behind each other one.
  __device__ __forceinline__ void multiply_tile(Accumulators& now, Accumulators& last, int c, int last_c, int last_tile,
                                                bool any) {
    pin(now);
#pragma unroll
    for (int k = 0; k < kChunks; ++k) {
      const int before = last_slot_;
      issue(now, c, k);
      if (k == 0) {
        wait_products<1>();
        pin(last);
        if (any) {
          release_slot(before);
          release_rows(last_c, kChunks - 1);
          if (last_c == 0) rows_.begin(last_tile);
          rows_.begin_tops();
          rows_.tops(last, last_c, 0, P::kColumnGroups / 2);
        }
      } else {
        if (any) {
          if (k == 1) {
            rows_.tops(last, last_c, P::kColumnGroups / 2, P::kColumnGroups);
            rows_.end_tops(last_c);
          } else {
            rows_.sums(last, P::kColumnGroups * (k - 2) / 6, P::kColumnGroups * (k - 1) / 6);
          }
        }
        wait_products<1>();
        release_slot(before);
        release_rows(c, k - 1);
      }
    }
    if (any && last_c == P::kTiles - 1) rows_.finish(last_tile);
  }

  // A chunk's products, as a group; then on to the next slot.
  __device__ __forceinline__ void issue(Accumulators& acc, int c, int k) {
    if (P::kResident && c == 0) shared_.rows_landed(k).wait(group_number_ & 1, args_.report, kRowsLanded);
    shared_.slot_landed(slot_).wait(parity_, args_.report, kSlotLanded);
    const uint32_t slot = shared_.ring + slot_ * P::kSlotBytes;
    const uint32_t rows = P::kResident ? shared_.rows + k * kRowChunkBytes : slot;
    const uint64_t a = describe(rows + warpgroup_ * (64 * kChunkRowBytes)),
                   b = describe(slot + (P::kResident ? 0 : kRowChunkBytes));
    begin_products();
#pragma unroll
    for (int q = 0; q < 4; ++q) multiply(acc, a + 2 * q, b + 2 * q, k > 0 || q > 0);
    end_products();
    last_slot_ = slot_;
    if (++slot_ == P::kRing) {
      slot_ = 0;
      parity_ ^= 1;
    }
  }

  // A warp has read a slot: tells every block that copies into it. Resident rows are free behind their last classes.
  __device__ __forceinline__ void release_slot(int slot) const {
    if constexpr (P::kCluster == 1) {
      if (lane_ == 0) shared_.slot_free(slot).arrive();
    } else {
      if (lane_ < P::kCluster) shared_.slot_free(slot).arrive_at(uint32_t(lane_));
    }
  }
  __device__ __forceinline__ void release_rows(int c, int k) const {
    if (P::kResident && c == P::kTiles - 1 && lane_ == 0) shared_.rows_free(k).arrive();
  }

  const Shared<P> shared_;
  const Walk walk_;
  const Arguments& args_;
  const int warpgroup_, lane_;
  RowResults<P> rows_;
  int last_slot_ = 0, group_number_ = 0;
  uint32_t parity_ = 0;  // of the slot's phase
  int slot_ = 0;
};

}  // namespace pyfastcal::hopper
