// That the model notices what a kernel does wrong with Hopper's copies, barriers and products: one mistake at a time in
// a kernel that is right without.
#include "notices.h"
#include "operands.h"

namespace {

enum class Mistake {
  kNone,
  // of the warpgroup that multiplies
  kNoWait,          // for a chunk
  kWrongParity,     // of that wait
  kFreeTooSoon,     // a slot whose products are under way
  kNeverFree,       // any slot
  kFreeTwice,       // a slot
  kReadAfterFree,   // a slot
  kSumsTooSoon,     // are read, with products under way
  kSumsChanged,     // then
  kSumsPinned,      // then
  kOtherSums,       // of one lane
  kNoBegin,         // of products
  kNoEnd,           // of products
  kThreadEnds,      // with products under way
  kLaneForgets,     // the sums, and the others add to them
  kLaneRests,       // while the others multiply
  kWarpRests,       // while the others multiply
  kWarpDiffers,     // in an operand
  kWarpsInCircle,   // one waits for what another does after their product
  kNoSwizzle,       // in a descriptor
  kOffset,          // in a descriptor
  kUnusedBits,      // in a descriptor
  kWrongRow,        // an operand begins within eight rows
  kOutside,         // an operand goes beyond shared memory
  kLeanOnProducts,  // as if they ordered the lanes' memory
  kOverwritten,     // a barrier
  // of the warpgroup that copies
  kFewBytes,  // expected
  kHalfTheBytes,
  kManyBytes,
  kNotFree,  // a slot, of which the products may be under way
  kAgain,    // to the same slot, for another barrier
  kNotAligned,
  kBeyondShared,
  kBeyondRows,
  kUnpublished,
  kBlockEnds,     // with a copy under way
  kTooFewToFree,  // a slot
  kReadUnwaited,
};

constexpr int kSteps = 4, kSlots = 2, kThreads = 256, kHalf = kBoxBytes / 2;
struct Shared {
  unsigned char slots[kSlots][kBoxBytes];
  prim::Barrier landed[kSlots], free[kSlots], other;
  float number;
};

// A place of the calling thread's own, behind the result.
float& seen(float* out) { return out[64 * kTile + threadIdx.x]; }

template <Mistake kMistake>
void copy_chunks(Shared* shared, const prim::TensorMap& map) {
  using enum Mistake;
  for (int step = 0; step < kSteps; ++step) {
    const int slot = step % kSlots;
    prim::Barrier* const landed = &shared->landed[slot];
    if (kMistake != kNotFree || step != 2) prim::wait(&shared->free[slot], uint32_t(step / kSlots % 2 ^ 1));
    prim::arrive_expecting(landed, kMistake == kFewBytes       ? kBoxBytes - 16
                                   : kMistake == kHalfTheBytes ? kHalf
                                   : kMistake == kManyBytes    ? kBoxBytes + 16
                                                               : kBoxBytes);
    unsigned char* const to = shared->slots[slot];
    prim::copy_box(to + (kMistake == kNotAligned ? 512 : 0), &map, 0, step * kChunk, landed);
    prim::copy_box(to + (kMistake == kBeyondShared ? 4 : 1) * kHalf, &map, 64, step * kChunk, landed);
    if (kMistake == kAgain && step == 1) prim::copy_box(to, &map, 0, 0, &shared->other);
  }
  if (kMistake == kBlockEnds) prim::copy_box(shared->slots[0], &map, 0, 0, &shared->other);
}

template <Mistake kMistake>
void multiply_chunks(Shared* shared, float* out) {
  using enum Mistake;
  const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32 % 4;
  float sums[1][16][4], others[1][16][4];
  const auto free = [&](int step) {
    for (int i = kMistake == kNeverFree; i < 1 + (kMistake == kFreeTwice); ++i)
      if (lane == 0) prim::arrive(&shared->free[step % kSlots]);
    if (kMistake == kReadAfterFree && lane == 5) seen(out) = float(shared->slots[step % kSlots][warp]);
  };
  for (int step = 0; step < kSteps; ++step) {
    const int slot = step % kSlots;
    const bool last = step == kSteps - 1;
    if (kMistake != kNoWait || step != 1)
      prim::wait(&shared->landed[slot], uint32_t(step / kSlots % 2) ^ (kMistake == kWrongParity && step == 1));
    if (kMistake == kWarpsInCircle && last && warp == 3) prim::wait(&shared->other, 0);
    uint64_t a = describe(shared->slots[slot]), b = a;
    if (kMistake == kNoSwizzle) a &= ~(uint64_t(3) << 62);
    if (kMistake == kOffset) b |= uint64_t(1) << 49;
    if (kMistake == kUnusedBits) a |= uint64_t(1) << 14;
    if (kMistake == kWrongRow) a += kRowBytes / 16;
    if (kMistake == kOutside && slot == 1) b += 64 * kRowBytes / 16;
    if (kMistake == kLeanOnProducts && last && thread == 128) shared->number = 1;
    if (kMistake != kNoBegin || step == 0) prim::begin_products();
    for (int q = 0; q < 4; ++q) {
      const bool here = last && q == 3;
      if (kMistake == kLaneRests && here && thread == 200) continue;
      if (kMistake == kWarpRests && here && warp == 2) continue;
      const bool add = (step > 0 || q > 0) && !(kMistake == kLaneForgets && here && lane == 9);
      const int other_q = kMistake == kWarpDiffers && here && warp == 1 ? 2 : q;
      prim::multiply<__half>(kMistake == kOtherSums && here && lane == 7 ? others : sums, a + 2 * uint64_t(q),
                             b + 2 * uint64_t(other_q), add);
    }
    if (kMistake != kNoEnd) prim::end_products();
    if (kMistake == kSumsChanged && last) sums[0][0][0] += 1;
    if (kMistake == kSumsPinned && last) prim::pin(sums);
    if (kMistake == kOverwritten && step == 0) shared->free[0].state = 0;
    if (kMistake == kFreeTooSoon) free(step);
    if (step == 0) continue;
    prim::wait_products<1>();
    if (kMistake != kFreeTooSoon) free(step - 1);
  }
  if (kMistake == kThreadEnds) return;
  if (kMistake != kSumsTooSoon) prim::wait_products<0>();
  if (kMistake == kWarpsInCircle && thread == 128) prim::arrive(&shared->other);
  for (int i = 0; i < 64; ++i) out[row_of(i) * kTile + column_of(i)] = sums[0][i / 4][i % 4];
  if (kMistake == kSumsTooSoon) prim::wait_products<0>();
  if (kMistake == kLeanOnProducts && thread == 129) seen(out) = shared->number;
}

// A warpgroup copies chunks of 128 rows, another multiplies the first 64 of them with all.
template <Mistake kMistake>
__global__ void pipeline(const __grid_constant__ prim::TensorMap map, float* out) {
  using enum Mistake;
  PYFASTCAL_SHARED(Shared, shared);
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < kSlots; ++slot) {
      prim::init(&shared->landed[slot], 1);
      prim::init(&shared->free[slot], kMistake == kTooFewToFree ? 3 : 4);
    }
    prim::init(&shared->other, 1);
    if (kMistake != kUnpublished) prim::publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0)
    copy_chunks<kMistake>(shared, map);
  else if (threadIdx.x >= 128)
    multiply_chunks<kMistake>(shared, out);
  else if (kMistake == kReadUnwaited && threadIdx.x == 40)
    seen(out) = float(shared->slots[0][0]);
}

// Whether the result is right.
template <Mistake kMistake>
bool runs_right() {
  Rows<__half> rows(kTile, kSteps * kChunk, 64);
  rows.fill_with_integers(1);
  if (kMistake == Mistake::kBeyondRows) rows.map.data += rows.map.stride;
  DeviceArray<float> out(64 * kTile + kThreads);
  CHECK(PYFASTCAL_LAUNCH(pipeline<kMistake>, 1, kThreads, sizeof(Shared), nullptr, rows.map, out.data()) ==
        cudaSuccess);
  for (int i = 0; i < 64; i += 3)
    for (int j = 0; j < kTile; ++j) {
      float exact = 0;
      for (int k = 0; k < rows.cols; ++k) exact += rows.at(i, k) * rows.at(j, k);
      if (out[size_t(i * kTile + j)] != exact) return false;
    }
  return true;
}

// Only without the thread sanitizer, which would take long for nothing else.
template <Mistake kMistake>
void expect_end(const char* words, bool noticed = !kThread) {
  if (noticed) testing::expect_end([] { runs_right<kMistake>(); }, words);
}
// Where warps run one after the other: what is noticed first depends on it.
bool in_order() { return cuda_model::settings.schedule == cuda_model::Schedule::kForward; }
template <Mistake kMistake>
void expect_race() {
  expect_end<kMistake>("data race", kThread && in_order());
}
// A race, and what it may come to if copies land and products read their operands as said here.
template <Mistake kMistake>
void expect_wrong(bool copies_land_early, bool products_read_early) {
  cuda_model::settings.copies_land_early = copies_land_early;
  cuda_model::settings.products_read_early = products_read_early;
  expect_race<kMistake>();
  if (!kThread && in_order()) CHECK(!runs_right<kMistake>());
}

}  // namespace

using enum Mistake;

TEST(model_notices_nothing_where_all_is_right) { CHECK(runs_right<kNone>()); }

TEST(model_notices_a_wait_for_a_copy_that_is_missing) {
  expect_wrong<kNoWait>(false, true);
  expect_wrong<kWrongParity>(false, true);
  expect_race<kReadUnwaited>();
}

TEST(model_notices_a_copy_that_comes_too_soon) {
  expect_wrong<kFreeTooSoon>(true, false);
  expect_race<kReadAfterFree>();
  expect_race<kTooFewToFree>();
  expect_end<kNotFree>("a phase that never ends", !kThread && in_order());
  expect_end<kFreeTwice>("wait: the next phase ended too", !kThread && in_order());
  if (!cuda_model::settings.copies_land_early) expect_end<kAgain>("another copy is under way to there");
}

TEST(model_notices_phases_that_never_end) {
  expect_end<kNeverFree>("a phase that never ends");
  expect_end<kManyBytes>("a phase that never ends");
  expect_end<kWarpsInCircle>("a phase that never ends");
}

TEST(model_notices_bytes_that_are_not_expected) {
  expect_end<kFewBytes>("more bytes landed than a barrier's phase expected");
  expect_end<kHalfTheBytes>("a box landed in another phase of its barrier than it was issued in");
}

template <int kTo, int kFrom, int kBytes>
__global__ void copy_some(const unsigned char* from) {
  PYFASTCAL_SHARED(unsigned char, shared);
  auto* const barrier = reinterpret_cast<prim::Barrier*>(shared);
  prim::init(barrier, 1);
  prim::publish_barriers();
  prim::copy_bytes(shared + 16 + kTo, from + kFrom, kBytes, barrier);
  prim::arrive_expecting(barrier, kBytes);
  prim::wait(barrier, 0);
}

template <int kTo, int kFrom, int kBytes>
void expect_end_of_bytes(const char* message, bool noticed = !kThread) {
  if (!noticed) return;
  testing::expect_end(
      [] {
        DeviceArray<unsigned char> from(64);
        for (size_t i = 0; i < 64; ++i) from[i] = 1;
        if (prim::launch(copy_some<kTo, kFrom, kBytes>, 1, 1, 64, nullptr, from.data()) != cudaSuccess) std::abort();
      },
      message);
}

TEST(model_notices_misplaced_bytes) {
  const char* const multiples = "copy_bytes: addresses and bytes must be multiples of 16";
  expect_end_of_bytes<8, 0, 16>(multiples);
  expect_end_of_bytes<0, 4, 16>(multiples);
  expect_end_of_bytes<0, 0, 24>(multiples);
  expect_end_of_bytes<0, 0, 0>(multiples);
  expect_end_of_bytes<0, 0, 64>("a copy to what is not wholly in dynamic shared memory");
  expect_end_of_bytes<0, 48, 32>("heap-buffer-overflow", kAddress);
}

TEST(model_notices_misplaced_copies) {
  expect_end<kNotAligned>("copy_box: address not 1024-byte aligned");
  expect_end<kBeyondShared>("a copy to what is not wholly in dynamic shared memory");
  expect_end<kBeyondRows>("heap-buffer-overflow", kAddress);
}

TEST(model_notices_barriers_that_copies_cannot_use) {
  expect_end<kUnpublished>("a copy for a barrier that was not published");
  expect_end<kOverwritten>("a barrier was overwritten");
}

TEST(model_notices_ends_that_leave_something_under_way) {
  expect_end<kThreadEnds>("a thread ended without waiting for its products");
  expect_end<kNoEnd>("a thread ended without waiting for its products");
  if (!cuda_model::settings.copies_land_early) expect_end<kBlockEnds>("a block ended ");
}

TEST(model_notices_sums_that_are_touched_too_soon) {
  CHECK(!runs_right<kSumsTooSoon>());
  expect_end<kSumsChanged>("accumulators were changed while products were under way to them");
  expect_end<kSumsPinned>("pin: products are under way to these accumulators");
  expect_end<kNoBegin>("multiply: begin_products() is missing");
  expect_race<kLeanOnProducts>();
}

TEST(model_notices_lanes_and_warps_that_multiply_differently) {
  expect_end<kLaneForgets>("multiply: the lanes of a warp differ");
  expect_end<kLaneRests>("wait_products: the lanes of a warp have issued different products");
  expect_end<kOtherSums>("multiply: the lanes of a warp differ in their accumulators");
  expect_end<kWarpRests>("the warps of a warpgroup issued different products");
  expect_end<kWarpDiffers>("the warps of a warpgroup issued different products");
}

TEST(model_notices_descriptors_of_something_else) {
  expect_end<kNoSwizzle>("multiply: a descriptor with another swizzle than that of 128 bytes");
  expect_end<kOffset>("multiply: a descriptor with a base offset, which the model does not know");
  expect_end<kUnusedBits>("multiply: a descriptor with unused bits that are set");
  expect_end<kWrongRow>("multiply: an operand whose rows do not begin at a multiple of 1024 bytes");
  expect_end<kOutside>("multiply: an operand that is not in dynamic shared memory");
}
