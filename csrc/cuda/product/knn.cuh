// knn: the k nearest bank rows of every query, exact.
//
// prepare takes every row's norm and, where the product cannot read the rows in place, makes 16-bit copies. scan is the
// filter: scores from one 16-bit matrix product (larger is nearer), each compared in registers with a threshold of its
// query, the k-th best score so far less a slack. What passes is appended to a list of the query's in the workspace; a
// list that fills up is pruned. finish measures the survivors' distances by direct differences in double, as
// csrc/cpu/knn.h does, and sorts them by (distance, index). In which order a list was filled cannot show: it always
// holds its query's nearest among the rows seen, and only exact distances decide in the end.
//
// Rows that scores cannot judge (knn/search.cuh says how far these may be off), being out of fp32's safe range or zero,
// are kept out of the filter: finish measures the distance of such a bank row to every query, and of such a query to
// every bank row.
#pragma once
#include "../runtime/launch.cuh"
#include "../runtime/workspace.cuh"
#include "knn/by_warpgroups.cuh"
#include "knn/finish.cuh"
#include "knn/prepare.cuh"
#include "knn/scan.cuh"
#include "operand.cuh"
#include "warpgroups/choice.cuh"

namespace pyfastcal::cuda {

namespace knn {

struct Plan {
  bool copied, by_warpgroups;
  int64_t queries, bank, width, padded_bank, chunk;  // width: columns of a copy; chunk: queries at a time
  int k, kept, splits, multiprocessors;
  Slots slots;
  int64_t bytes;  // of the workspace
};

// Parts of the bank: as many as let the last block end soonest, a part costing a few tiles more to begin and to end.
inline int choose_splits(int64_t row_tiles, int64_t col_tiles, int64_t multiprocessors) {
  constexpr int64_t kTilesMore = 6;
  int64_t best = 1, least = INT64_MAX;
  for (int64_t splits = 1; splits <= min(col_tiles, 4 * multiprocessors); ++splits) {
    const int64_t waves = (row_tiles * splits + multiprocessors - 1) / multiprocessors;
    const int64_t time = waves * ((col_tiles + splits - 1) / splits + kTilesMore);
    if (time < least) least = time, best = splits;
  }
  return int(best);
}

struct Layout {
  Search search{};
  Copies queries{}, bank{};
  int64_t bytes;

  Layout(const Plan& plan, void* workspace) {
    Workspace w(workspace);
    Search& s = search;
    s.k = plan.k;
    s.kept = plan.kept;
    s.trigger = trigger_of(plan.kept);
    s.capacity = capacity_of(plan.kept);
    s.splits = plan.splits;
    s.totals = w.take<Totals>(1);
    s.bank_scale = w.take<double>(plan.bank);
    s.fact = w.take<float>(plan.padded_bank);
    s.out_of_range = w.take<int>(plan.bank);
    s.query_facts = w.take<QueryFacts>(plan.chunk);
    s.counts = w.take<int>(plan.chunk * plan.splits);
    s.lists = w.take<Candidate>(plan.chunk * plan.splits * s.capacity);
    const int64_t teams = plan.by_warpgroups ? WarpTeam::kTeams : BlockTeam::kTeams;
    s.scratch = w.take<Scratch>((plan.chunk + kTileRows - 1) / kTileRows * plan.splits * teams);
    if (plan.copied) {
      queries = {w.take<uint16_t>(plan.chunk * plan.width), plan.width};
      bank = {w.take<uint16_t>(plan.bank * plan.width), plan.width};
    }
    bytes = w.bytes();
  }
};

inline Matrix rows_from(const Matrix& m, int64_t first, int64_t n) {
  const int64_t size = m.dtype == Dtype::kFloat ? 4 : 2;
  return {static_cast<const char*>(m.data) + first * m.stride * size, m.dtype, n, m.cols, m.stride};
}

template <class T>
Operand<T> operand(const Matrix& m, const Copies& copies) {
  if (copies.data) return {reinterpret_cast<const T*>(copies.data), m.rows, copies.width, 0};
  return {static_cast<const T*>(m.data), m.rows, m.stride, 0};
}

template <class T>
cudaError_t launch_scan(const Layout& layout, const Plan& plan, int64_t blocks, cudaStream_t stream) {
  const Search& s = layout.search;
  const Operand<T> queries = operand<T>(s.queries, layout.queries), bank = operand<T>(s.bank, layout.bank);
  const int depth = int(plan.width);
  if (plan.by_warpgroups) {
    GroupMaps maps{{}, {}, depth};
    if (const auto error = warpgroups::make_map(&maps.queries, queries, depth)) return error;
    if (const auto error = warpgroups::make_map(&maps.bank, bank, depth)) return error;
    return PYFASTCAL_LAUNCH(scan_by_warpgroups<T>, unsigned(blocks), warpgroups::kThreads, kGroupSharedBytes, stream, s,
                            maps);
  }
  const Product<T> product{queries, bank, depth, 1};
  return PYFASTCAL_LAUNCH(scan<T>, unsigned(blocks), kProductThreads, plan.slots.bytes() + sizeof(ScanShared), stream,
                          s, product, plan.slots);
}

}  // namespace knn

// The workspace holds, in bytes: 16 per bank row and 4 more for the bank; per query 24 and, for each part of the bank,
// a list of 8 (2 K + 363); copies, where they are made, 2 D per row of both. Queries are taken in chunks whose lists
// fit in list_bytes.
inline cudaError_t plan_knn(const Matrix& queries, const Matrix& bank, int64_t k, bool exclude_self, knn::Plan& plan,
                            ProductChoice choice = ProductChoice::kAuto, int64_t list_bytes = int64_t(1) << 29) {
  DeviceLimits device;
  if (const auto error = ask_device(&device)) return error;
  plan = {};
  plan.copied = must_split(queries, bank) || !readable_in_place(queries) || !readable_in_place(bank);
  plan.queries = queries.rows;
  plan.bank = bank.rows;
  plan.width = packed_width(bank);
  const int64_t col_tiles = (bank.rows + kTileCols - 1) / kTileCols;
  plan.padded_bank = col_tiles * kTileCols;
  plan.k = int(k);
  plan.kept = plan.k + exclude_self;
  plan.multiprocessors = device.multiprocessors;
  plan.by_warpgroups =
      warpgroups::take(choice, warpgroups::MeasuredFaster::knn, device, plan.width, knn::kGroupSharedBytes,
                       bank.rows <= INT_MAX - kTileCols &&
                           (plan.copied || (warpgroups::mappable(queries) && warpgroups::mappable(bank))));
  const int64_t parts = plan.by_warpgroups ? (bank.rows + warpgroups::kCols - 1) / warpgroups::kCols : col_tiles;
  plan.splits = knn::choose_splits((queries.rows + kTileRows - 1) / kTileRows, parts, plan.multiprocessors);
  const int64_t list = plan.splits * int64_t(sizeof(knn::Candidate)) * knn::capacity_of(plan.kept);
  plan.chunk = min(queries.rows, max(list_bytes / list / kTileRows, int64_t(1)) * kTileRows);
  plan.slots =
      choose_slots(int((bank.cols + kChunk - 1) / kChunk), true, size_t(device.shared_bytes) - sizeof(knn::ScanShared));
  plan.bytes = knn::Layout(plan, nullptr).bytes;
  return plan.slots.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
}

// queries.rows > 0, bank.rows < 2^31, k <= kMostNeighbours; workspace: plan.bytes.
inline cudaError_t launch_knn(const Matrix& queries, const Matrix& bank, bool exclude_self, bool normalize,
                              float* distances, int64_t* indices, const knn::Plan& plan, void* workspace,
                              cudaStream_t stream) {
  using namespace knn;
  Layout layout(plan, workspace);
  Search& s = layout.search;
  s.bank = bank;
  s.exclude_self = exclude_self;
  s.normalize = normalize;
  if (const auto error = cudaMemsetAsync(s.totals, 0, sizeof(Totals), stream)) return error;
  const int64_t blocks = min((plan.padded_bank + kPrepareRows - 1) / kPrepareRows, int64_t(16) * plan.multiprocessors);
  if (const auto error = PYFASTCAL_LAUNCH(prepare_bank, unsigned(blocks), kPrepareThreads, 0, stream, s, layout.bank,
                                          plan.padded_bank))
    return error;
  const bool as_half = plan.copied ? normalize : bank.dtype == Dtype::kHalf;
  for (s.first_query = 0; s.first_query < queries.rows; s.first_query += plan.chunk) {
    const int64_t n = min(plan.chunk, queries.rows - s.first_query), row_tiles = (n + kTileRows - 1) / kTileRows;
    s.queries = rows_from(queries, s.first_query, n);
    s.distances = distances + s.first_query * plan.k;
    s.indices = indices + s.first_query * plan.k;
    if (const auto error = PYFASTCAL_LAUNCH(prepare_queries, unsigned((n + kPrepareRows - 1) / kPrepareRows),
                                            kPrepareThreads, 0, stream, s, layout.queries))
      return error;
    if (const auto error = as_half ? launch_scan<__half>(layout, plan, row_tiles * plan.splits, stream)
                                   : launch_scan<__nv_bfloat16>(layout, plan, row_tiles * plan.splits, stream))
      return error;
    if (const auto error = PYFASTCAL_LAUNCH(finish, unsigned(n), kFinishThreads, 0, stream, s)) return error;
  }
  return cudaSuccess;
}

}  // namespace pyfastcal::cuda
