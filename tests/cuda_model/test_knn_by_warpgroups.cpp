// knn against exact distances of all pairs, its filter on the product by warpgroups.
#include "knn.h"

namespace {

constexpr int64_t kCols = 456;  // eight chunks, the last one not whole

void check_group(const Vectors& queries, const Vectors& bank, int64_t k, Options options = {}) {
  options.by_warpgroups = true;
  check(queries, bank, k, options);
}
Vectors normal(int64_t rows, uint32_t seed, Dtype dtype = Dtype::kBFloat16, int64_t cols = kCols) {
  return Vectors::normal(rows, cols, seed, dtype);
}

}  // namespace

TEST(knn_by_warpgroups_in_every_dtype) {
  for (const Dtype dtype : kDtypes)
    for (const bool normalize : {false, true})
      check_group(normal(5, 1, dtype), normal(300, 2, dtype), 6, {.normalize = normalize});
  check_group(normal(3, 3, Dtype::kHalf), normal(70, 4, Dtype::kBFloat16), 4);
}

TEST(knn_by_warpgroups_at_the_borders_of_tiles) {
  for (const int64_t bank : {1, 127, 128, 129, 257, 385}) check_group(normal(2, 6), normal(bank, 7), 1);
  check_group(normal(129, 6), normal(140, 7), 3);
  check_group(normal(65, 6), normal(3, 7), 3);
  for (const int64_t cols : {449, 512, 520, 700})
    check_group(normal(20, 6, Dtype::kFloat, cols), normal(200, 7, Dtype::kFloat, cols), 3);
}

TEST(knn_by_warpgroups_of_rows_that_are_not_aligned) {
  for (const int64_t padding : {0, 3, 8})
    for (const int64_t offset : {0, 1}) {
      const Vectors queries(4, kCols, testing::random_normal(4 * kCols, 8), Dtype::kHalf, padding, offset);
      check_group(queries, {50, kCols, testing::random_normal(50 * kCols, 9), Dtype::kHalf, padding, offset}, 5);
    }
}

// The copy engine wants rows that do not overlap; of one row the stride may be anything.
TEST(knn_by_warpgroups_of_rows_that_overlap) {
  const Vectors bank = normal(50, 9, Dtype::kHalf);
  for (const int64_t stride : {kCols + 1, kCols - 8, int64_t(0)}) {
    const Vectors one(1, kCols, testing::random_normal(kCols, 8), Dtype::kHalf, stride - kCols);
    check_group(one, bank, 5);
    check_group(bank, one, 1);
  }
  for (const int64_t stride : {0, 8, 448}) {
    Matrix windows = bank.matrix();
    windows.rows = 5;
    windows.stride = stride;
    knn::Plan plan;
    for (const auto& [queries, rows] : {std::pair{windows, bank.matrix()}, {bank.matrix(), windows}}) {
      CHECK(plan_knn(queries, rows, 1, false, plan, ProductChoice::kWgmma) == cudaSuccess);
      CHECK(!plan.by_warpgroups);
    }
  }
}

// Odd and even numbers of tiles in a block.
TEST(knn_by_warpgroups_of_a_bank_in_parts) {
  for (const int multiprocessors : {2, 6}) {
    cuda_model::settings.multiprocessors = multiprocessors;
    check_group(normal(3, 10), normal(1200, 11), 9);
    check_group(normal(3, 10, Dtype::kFloat), normal(500, 11, Dtype::kFloat), 128);
  }
}

TEST(knn_by_warpgroups_of_queries_in_chunks) {
  const Vectors both = normal(140, 12, Dtype::kHalf);
  check_group(both, both, 2, {.exclude_self = true, .list_bytes = 1});
}

// Lists that scores cut, those that they cannot, and those that must not be.
TEST(knn_by_warpgroups_of_duplicates) {
  for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16}) {
    Vectors bank = normal(560, 16, dtype);
    for (int64_t j = 20; j < 500; ++j) bank.set_row(j, [&](int64_t c) { return bank.row(3)[c]; });
    Vectors queries = normal(20, 17, dtype);
    for (const int64_t q : {0, 9, 15, 16}) queries.set_row(q, [&](int64_t c) { return bank.row(3)[c]; });
    check_group(queries, bank, 4);
    check_group(queries, bank, 128, {.normalize = false});
  }
}

TEST(knn_by_warpgroups_of_rows_within_the_slack_of_each_other) {
  for (const bool normalize : {false, true})
    for (const float spread : {1e-3f, 1e-6f})
      check_group({2, kCols, cluster(2, kCols, spread, 18)}, {400, kCols, cluster(400, kCols, spread, 19)}, 7,
                  {.normalize = normalize});
}

TEST(knn_by_warpgroups_where_sums_round) {
  std::vector<float> far = testing::random_normal(500 * kCols, 20);
  for (float& x : far) x += 3000;
  for (const bool normalize : {false, true})
    check_group({2, kCols, {far.begin(), far.begin() + 2 * kCols}, Dtype::kHalf}, {500, kCols, far, Dtype::kHalf}, 5,
                {.normalize = normalize});
}

TEST(knn_by_warpgroups_of_equal_rows) {
  check_group(normal(2, 21), {500, kCols, std::vector<float>(500 * kCols, 1.0f), Dtype::kBFloat16}, 3);
}

TEST(knn_by_warpgroups_of_rows_of_any_size) {
  for (const float size : {1e-30f, 1e-13f, 1e20f, 1e30f}) {
    Vectors queries = normal(6, 22), bank = normal(60, 23);
    for (const int64_t q : {1, 2, 4}) queries.set_row(q, [&](int64_t c) { return queries.row(q)[c] * size; });
    for (int64_t j = 0; j < 60; j += 3) bank.set_row(j, [&](int64_t c) { return bank.row(j)[c] * size; });
    check_group(queries, bank, 8);
    check_group(queries, bank, 8, {.normalize = false});
  }
}

TEST(knn_by_warpgroups_of_zero_rows_and_rows_that_are_not_finite) {
  Vectors queries = normal(20, 24), bank = normal(150, 25);
  queries.set_row(1, [](int64_t) { return 0.0f; });
  for (const int64_t j : {4, 5, 149}) bank.set_row(j, [](int64_t) { return 0.0f; });
  check_group(queries, bank, 6);
  for (const float bad : {kNaN, kInfinity}) {
    queries.set_row(17, [&](int64_t c) { return c == 5 ? bad : 1.0f; });
    check_group(queries, bank, 6);
    check_group(queries, queries, 3, {.exclude_self = true, .normalize = false});
  }
}

// What cannot be multiplied so is multiplied as ever.
TEST(knn_takes_warpgroups_where_it_can) {
  const auto takes = [](const Vectors& queries, const Vectors& bank, ProductChoice choice) {
    knn::Plan plan;
    CHECK(plan_knn(queries.matrix(), bank.matrix(), 1, false, plan, choice) == cudaSuccess);
    return plan.by_warpgroups;
  };
  const Vectors wide = normal(3, 1), narrow = normal(3, 1, Dtype::kBFloat16, 448);
  CHECK(takes(wide, wide, ProductChoice::kWgmma));
  CHECK(!takes(narrow, narrow, ProductChoice::kWgmma));
  CHECK(!takes(wide, wide, ProductChoice::kMma));
  for (const int capability : {80, 86, 100, 120}) {
    cuda_model::settings.capability = capability;
    CHECK(!takes(wide, wide, ProductChoice::kWgmma));
  }
  cuda_model::settings.capability = 90;
  cuda_model::settings.shared_per_block = 163 * 1024;
  cuda_model::settings.device = 1;
  CHECK(!takes(wide, wide, ProductChoice::kWgmma));
}
