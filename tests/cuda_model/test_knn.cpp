// knn against exact distances of all pairs, on the product of gemm.cuh.
#include "knn.h"

// Past the end of a list lie the best of scores.
TEST(knn_of_lists_of_different_lengths) {
  cuda_model::settings.multiprocessors = 16;
  for (const uint32_t seed : {1u, 2u, 3u})
    check(Vectors::normal(3, 24, seed), Vectors::normal(15 * 256 + 2, 24, seed + 10), 4, {.workspace = 0x7f});
}

TEST(knn_of_few_rows) {
  check(Vectors::normal(1, 1, 0), Vectors::normal(1, 1, 1), 1);
  check(Vectors::normal(1, 1, 0), Vectors::normal(1, 1, 1), 1, {.normalize = false});
  check(Vectors::normal(3, 17, 0), Vectors::normal(9, 17, 1), 9);
  check(Vectors::normal(2, 8, 0, Dtype::kHalf), Vectors::normal(128, 8, 1, Dtype::kHalf), 128);
}

TEST(knn_in_every_dtype) {
  for (const Dtype dtype : kDtypes)
    for (const bool normalize : {false, true}) {
      check(Vectors::normal(5, 24, 2, dtype), Vectors::normal(300, 24, 3, dtype), 6, {.normalize = normalize});
      check(Vectors::normal(3, 7, 2, dtype), Vectors::normal(90, 7, 3, dtype), 2, {.normalize = normalize});
    }
  check(Vectors::normal(3, 16, 4, Dtype::kHalf), Vectors::normal(70, 16, 5, Dtype::kBFloat16), 4);
  check(Vectors::normal(3, 16, 4, Dtype::kBFloat16), Vectors::normal(70, 16, 5), 4, {.normalize = false});
}

TEST(knn_at_the_borders_of_tiles) {
  for (const int64_t bank : {255, 256, 257, 513})
    check(Vectors::normal(2, 16, 6, Dtype::kBFloat16), Vectors::normal(bank, 16, 7, Dtype::kBFloat16), 3);
  check(Vectors::normal(129, 8, 6, Dtype::kBFloat16), Vectors::normal(40, 8, 7, Dtype::kBFloat16), 3);
  check(Vectors::normal(2, 64, 6), Vectors::normal(30, 64, 7), 3);
  check(Vectors::normal(2, 65, 6), Vectors::normal(30, 65, 7), 3);
  check(Vectors::normal(2, 200, 6), Vectors::normal(600, 200, 7), 5);  // rows of queries stay in shared memory
}

TEST(knn_of_rows_that_are_not_aligned) {
  for (const int64_t padding : {0, 3, 8})
    for (const int64_t offset : {0, 1}) {
      const Vectors queries(4, 16, testing::random_normal(64, 8), Dtype::kHalf, padding, offset);
      check(queries, {50, 16, testing::random_normal(800, 9), Dtype::kHalf, padding, offset}, 5);
    }
  // one row, whose stride could be anything
  const auto one = [](uint32_t seed) { return Vectors(1, 16, testing::random_normal(16, seed), Dtype::kHalf, 1); };
  check(one(8), Vectors::normal(50, 16, 9, Dtype::kHalf), 5);
  check(Vectors::normal(4, 16, 8, Dtype::kHalf), one(9), 1);
}

TEST(knn_of_a_bank_in_parts) {
  cuda_model::settings.multiprocessors = 6;
  check(Vectors::normal(3, 16, 10, Dtype::kBFloat16), Vectors::normal(3000, 16, 11, Dtype::kBFloat16), 9);
  check(Vectors::normal(3, 16, 10), Vectors::normal(1500, 16, 11), 128);
}

TEST(knn_of_queries_in_chunks) {
  check(Vectors::normal(257, 8, 12), Vectors::normal(20, 8, 13), 2, {.list_bytes = 1});
  const Vectors both = Vectors::normal(140, 8, 12, Dtype::kHalf);
  check(both, both, 2, {.exclude_self = true, .list_bytes = 1});
}

TEST(knn_without_oneself) {
  Vectors both = Vectors::normal(40, 12, 14);
  both.set_row(7, [&](int64_t c) { return both.row(31)[c]; });
  check(both, both, 1, {.exclude_self = true});
  check(both, both, 39, {.exclude_self = true, .normalize = false});
  const Vectors many = Vectors::normal(131, 8, 15, Dtype::kBFloat16);
  check(many, many, 128, {.exclude_self = true});
}

TEST(knn_of_duplicates) {
  for (const Dtype dtype : kDtypes) {
    Vectors bank = Vectors::normal(1300, 8, 16, dtype);
    for (int64_t j = 100; j < 1200; ++j) bank.set_row(j, [&](int64_t c) { return bank.row(3)[c]; });
    Vectors queries = Vectors::normal(2, 8, 17, dtype);
    queries.set_row(0, [&](int64_t c) { return bank.row(3)[c]; });
    check(queries, bank, 4);
    check(queries, bank, 128, {.normalize = false});
  }
}

TEST(knn_of_rows_within_the_slack_of_each_other) {
  const int64_t d = 16;
  for (const bool normalize : {false, true})
    for (const float spread : {1e-3f, 1e-6f})
      check({2, d, cluster(2, d, spread, 18)}, {1000, d, cluster(1000, d, spread, 19)}, 7, {.normalize = normalize});
}

// A query that its copy holds exactly: only the bank's copies are rounded.
TEST(knn_where_the_bank_rounds) {
  const Vectors queries(1, 16, std::vector<float>(16, 1.0f));
  std::vector<float> bank = testing::random_normal(1000 * 16, 33, 3e-3f);
  for (float& x : bank) x += 5;
  for (const bool normalize : {false, true}) check(queries, {1000, 16, bank}, 7, {.normalize = normalize});
}

// In place there is no copy to round, but sums far larger than their differences.
TEST(knn_where_sums_round) {
  std::vector<float> far = testing::random_normal(700 * 16, 20);
  for (float& x : far) x += 3000;
  check({2, 16, {far.begin(), far.begin() + 32}, Dtype::kHalf}, {700, 16, far, Dtype::kHalf}, 5, {.normalize = false});
  check({2, 16, {far.begin(), far.begin() + 32}, Dtype::kHalf}, {700, 16, far, Dtype::kHalf}, 5);
}

TEST(knn_of_equal_rows) {
  const Vectors bank(700, 8, std::vector<float>(700 * 8, 1.0f), Dtype::kBFloat16);
  check(Vectors::normal(2, 8, 21, Dtype::kBFloat16), bank, 3);
}

TEST(knn_of_rows_of_any_size) {
  for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16})
    for (const float size : {1e-30f, 1e-13f, 1e20f, 1e30f}) {
      Vectors queries = Vectors::normal(6, 8, 22, dtype), bank = Vectors::normal(60, 8, 23, dtype);
      for (const int64_t q : {1, 2, 4}) queries.set_row(q, [&](int64_t c) { return queries.row(q)[c] * size; });
      for (int64_t j = 0; j < 60; j += 3) bank.set_row(j, [&](int64_t c) { return bank.row(j)[c] * size; });
      check(queries, bank, 8);
      check(queries, bank, 8, {.normalize = false});
    }
}

// Products below fp32's range: scores with a few bits, or none.
TEST(knn_of_tiny_rows) {
  for (const Dtype dtype : {Dtype::kFloat, Dtype::kBFloat16})
    for (const bool normalize : {false, true})
      check(Vectors::normal(20, 8, 34, dtype, 3e-23f), Vectors::normal(300, 8, 35, dtype, 3e-23f), 3,
            {.normalize = normalize});
}

TEST(knn_of_zero_rows) {
  Vectors queries = Vectors::normal(3, 8, 24), bank = Vectors::normal(50, 8, 25);
  queries.set_row(1, [](int64_t) { return 0.0f; });
  for (const int64_t j : {4, 5, 49}) bank.set_row(j, [](int64_t) { return 0.0f; });
  for (const bool normalize : {false, true}) check(queries, bank, 6, {.normalize = normalize});
  check(queries, {700, 8, std::vector<float>(700 * 8, 0.0f)}, 4);
}

TEST(knn_of_rows_that_are_not_finite) {
  for (const Dtype dtype : kDtypes)
    for (const float bad : {kNaN, kInfinity}) {
      Vectors x = Vectors::normal(20, 8, 26, dtype), bank = Vectors::normal(40, 8, 27, dtype);
      const auto spoil = [&](int64_t c) { return c == 5 ? bad : 1.0f; };
      x.set_row(6, spoil);
      check(x, bank, 3);
      check(x, x, 3, {.exclude_self = true, .normalize = false});  // row 6 spoils all but has no neighbours itself
      Vectors whole = Vectors::normal(20, 8, 28, dtype);
      check(whole, x, 3, {.exclude_self = true});  // query 6 is not compared with row 6
      x.set_row(9, spoil);
      check(whole, x, 3, {.exclude_self = true});
    }
}

TEST(knn_in_little_shared_memory) {
  cuda_model::settings.shared_per_block = 100 * 1024;
  cuda_model::settings.device = 1;
  check(Vectors::normal(3, 200, 29, Dtype::kHalf), Vectors::normal(600, 200, 30, Dtype::kHalf), 5);
}

TEST(knn_picks_candidates_of_all_signs) {
  const Vectors queries = Vectors::normal(2, 8, 31);
  check(queries, Vectors::normal(400, 8, 32), 128);  // scores around 0: the threshold falls among negative ones
  std::vector<float> behind(400 * 8);
  for (size_t i = 0; i < behind.size(); ++i) behind[i] = -queries.row(0)[i % 8] - 0.01f * float(i % 13);
  check(queries, {400, 8, behind}, 5);
}
