// What the halves of a block share: the arguments, the way through the tiles, shared memory with its barriers.
#pragma once
#include "configurations.h"
#include "wgmma.cuh"

namespace pyfastcal::hopper {

inline constexpr int kThreads = 384;  // a warpgroup that copies, two that multiply, each 64 rows of a tile
inline constexpr int kMultiplyingWarps = 8;

struct Arguments {
  const float2* classes;      // a class's logits are product * x + y; (0, -infinity) behind the last class
  const float* row_gain;      // a row's factor
  const float* class_weight;  // first or second, for every class
  float first, second;        // the weights; the first is 1
  int rows, row_tiles;
  float* confidence;
  int* prediction;
  volatile int* report;  // 0 to 3: what was waited for too long; 4: a block's cycles / 16
};

// What is waited for, as the report calls it.
enum Waiting { kRowsFree = 1, kSlotFree = 2, kRowsLanded = 3, kSlotLanded = 4, kTurn = 5 };

// A configuration's numbers, as constants for device code.
template <int kIndex>
struct Plan {
  static constexpr Configuration kIs = kConfigurations[kIndex];
  static constexpr int kWidth = kIs.width, kTiles = kIs.tiles(), kRing = kIs.ring, kCluster = kIs.cluster;
  static constexpr int kSets = kIs.sets, kLead = kIs.lead;
  static constexpr bool kResident = kIs.resident;
  static constexpr bool kConfidence = kIs.epilogue != Epilogue::maximum;
  static constexpr bool kTwoWeights = kIs.epilogue == Epilogue::two_weights;
  static constexpr int kSlotBytes = kIs.slot_bytes(), kClassChunkBytes = kIs.class_chunk_bytes();
  static constexpr int kResidentBytes = kIs.resident_bytes(), kTileBytes = kIs.tile_bytes();
  static constexpr int kAccumulators = kWidth / 2;  // of a thread
  static constexpr int kColumnGroups = kWidth / 8;  // of 8 classes, of which a thread has two, for two rows
  static_assert(kIs.shared_bytes() <= 232448 && kWidth % (8 * kCluster) == 0 && kLead <= kRing);
  static_assert(kSets == 1 || kTiles % 2 == 0);
};

// A cluster takes every step-th group of tiles' rows, a block one of each group.
struct Walk {
  int groups, step, first, rank;
};

// A configuration's kernel, for a launch: of kThreads, with kernel.cuh's parameters. Defined in kernel.cu.
template <int kIndex>
const void* kernel_address();

template <class P>
struct Shared {
  uint32_t rows, ring, barriers;

  __device__ __forceinline__ explicit Shared(const void* raw) {
    const uint32_t base = (shared_address(raw) + 1023) & ~1023u;
    rows = base;
    ring = base + P::kResidentBytes;
    barriers = base + P::kTileBytes;
  }
  __device__ __forceinline__ Barrier slot_landed(int slot) const { return {barriers + 8 * slot}; }
  __device__ __forceinline__ Barrier slot_free(int slot) const { return {barriers + 8 * (P::kRing + slot)}; }
  __device__ __forceinline__ Barrier rows_landed(int k) const { return {barriers + 8 * (2 * P::kRing + k)}; }
  __device__ __forceinline__ Barrier rows_free(int k) const { return {barriers + 8 * (2 * P::kRing + kChunks + k)}; }
  __device__ __forceinline__ Barrier turn() const { return {barriers + 8 * (2 * P::kRing + 2 * kChunks)}; }

  // By one thread.
  __device__ __forceinline__ void init() const {
    for (int s = 0; s < P::kRing; ++s) {
      slot_landed(s).init(1);
      slot_free(s).init(kMultiplyingWarps * P::kCluster);
    }
    for (int k = 0; k < kChunks; ++k) {
      rows_landed(k).init(1);
      rows_free(k).init(kMultiplyingWarps);
    }
    turn().init(4);
    publish_barriers();
  }
};

}  // namespace pyfastcal::hopper
