// Where bins counts: a cell's tally in one word, a thread's histogram of those or its run of one cell, all totals.
#pragma once
#include "../../rows/rows.cuh"

namespace pyfastcal::cuda {

struct Tally {
  uint32_t count = 0, correct = 0;
  uint64_t sum = 0;

  // One word holds the tally of up to kMostPacked samples of at most 2^32 each.
  static constexpr uint32_t kMostPacked = 1023;
  static constexpr int kCountShift = 42, kCorrectShift = 53;

  __device__ __forceinline__ static uint64_t pack(uint64_t fixed_point, uint64_t correct) {
    return fixed_point + (uint64_t(1) << kCountShift) + (correct << kCorrectShift);
  }
  __device__ __forceinline__ void add_packed(uint64_t word) {
    sum += word & ((uint64_t(1) << kCountShift) - 1);
    count += uint32_t(word >> kCountShift) & ((1u << (kCorrectShift - kCountShift)) - 1);
    correct += uint32_t(word >> kCorrectShift);
  }
};
static_assert(Tally::kMostPacked < 1u << (Tally::kCorrectShift - Tally::kCountShift));
static_assert(uint64_t(Tally::kMostPacked) << 32 < uint64_t(1) << Tally::kCountShift);

// (3, cells) int64 in global memory: counts, correct, sums.
struct Totals {
  int64_t* data;
  int64_t cells;

  __device__ void store(int64_t cell, const Tally& t) const {
    data[cell] = t.count;
    data[cells + cell] = t.correct;
    data[2 * cells + cell] = int64_t(t.sum);
  }
  __device__ void add(int64_t cell, const Tally& t) const {
    add_to(data + cell, t.count);
    add_to(data + cells + cell, t.correct);
    add_to(data + 2 * cells + cell, t.sum);
  }
  __device__ __forceinline__ static void add_to(int64_t* total, uint64_t x) {
    if (x) atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(x));
  }
};

// A histogram per thread, [cell][thread].
class PrivateHistogram {
 public:
  static constexpr bool kInShared = true;

  __device__ PrivateHistogram(uint64_t* shared, const Totals& totals) : words_(shared + threadIdx.x), totals_(totals) {
#pragma unroll 1
    for (int c = 0; c < totals.cells; ++c) words_[c * blockDim.x] = 0;
  }
  __device__ __forceinline__ void add(int cell, uint64_t word) { words_[uint32_t(cell) * blockDim.x] += word; }

  // Of the whole block, after at most Tally::kMostPacked samples per thread. `store`: nothing else adds to the totals.
  __device__ void flush(bool store) {
    uint64_t* const of_block = words_ - threadIdx.x;
    const uint32_t lane = threadIdx.x % 32;
    __syncthreads();
    for (uint32_t c = threadIdx.x / 32; c < totals_.cells; c += blockDim.x / 32) {
      Tally t;
#pragma unroll 1
      for (uint32_t i = lane; i < blockDim.x; i += 32) {
        t.add_packed(of_block[c * blockDim.x + i]);
        of_block[c * blockDim.x + i] = 0;
      }
      t.count = __reduce_add_sync(~0u, t.count);
      t.correct = __reduce_add_sync(~0u, t.correct);
      t.sum = Lanes<32>::reduce(t.sum, [](uint64_t a, uint64_t b) { return a + b; });
      if (lane == 0) store ? totals_.store(c, t) : totals_.add(c, t);
    }
    __syncthreads();
  }

 private:
  uint64_t* const words_;
  const Totals totals_;
};

// A thread's run of samples of one cell.
class Run {
 public:
  static constexpr bool kInShared = false;

  __device__ Run(uint64_t*, const Totals& totals) : totals_(totals) {}
  __device__ __forceinline__ void add(int cell, uint64_t word) {
    if (cell != cell_) {
      write();
      cell_ = cell;
    }
    word_ += word;
  }
  __device__ void flush(bool) { write(); }

 private:
  __device__ void write() {
    if (word_ == 0) return;
    Tally t;
    t.add_packed(word_);
    totals_.add(cell_, t);
    word_ = 0;
  }
  const Totals totals_;
  int cell_ = 0;
  uint64_t word_ = 0;
};

}  // namespace pyfastcal::cuda
