// similarity: against the definition in fp64, at the tails of all sizes, whatever block has a tile.
#include "similarity.h"

TEST(similarity_of_tails) {
  for (const auto& [n, c, d] : {std::array{1, 1, 1},
                                {3, 2, 7},
                                {65, 63, 8},
                                {128, 64, 64},
                                {129, 65, 65},
                                {5, 257, 72},
                                {2, 256, 130},
                                {130, 1, 9}}) {
    check_sizes<__nv_bfloat16>(n, c, d);
    check_sizes<__half>(n, c, d);
  }
}

TEST(similarity_of_fp32_and_of_mixed_types) {
  for (const auto& [n, c, d] : {std::array{1, 1, 1}, {66, 5, 9}, {129, 1, 65}, {4, 260, 70}})
    check_sizes<float>(n, c, d, {}, 3e-7);
  check_against_definition(Features<__half>(3, 24, 1), Features<__nv_bfloat16>(5, 24, 2), {}, 3e-7);
  check_against_definition(Features<float>(3, 24, 1), Features<__half>(5, 24, 2), {}, 3e-7);
  check_against_definition(Features<__nv_bfloat16>(3, 24, 1), Features<float>(5, 24, 2), {}, 3e-7);
}

// Blocks of one tile and of several, that begin within a row of tiles and change to the next.
TEST(similarity_of_tiles_shared_out) {
  const Features<__nv_bfloat16> image(260, 8, 1), text(514, 8, 2);
  for (const int multiprocessors : {1, 4, 100}) {
    cuda_model::settings.multiprocessors = multiprocessors;
    const uint64_t before = cuda_model::counters.blocks;
    check_against_definition(image, text);
    const uint64_t prepared = 768 / 8 + (260 + 7) / 8;
    CHECK_EQUAL(cuda_model::counters.blocks - before, prepared + uint64_t(std::min(multiprocessors, 9)));
  }
}

// A warp's classes that are all there, and those that lack a few, in rows of even and odd length.
TEST(similarity_at_the_last_classes) {
  for (const int64_t classes : {62, 63, 64, 65, 126, 128, 316, 318, 320})
    check_against_definition(Features<__nv_bfloat16>(3, 16, 1), Features<__nv_bfloat16>(classes, 16, 2));
}

// Rows that a block keeps between tiles, and devices with less shared memory.
TEST(similarity_of_kept_rows) {
  cuda_model::settings.multiprocessors = 1;
  for (const size_t shared : {227, 163, 99}) {
    cuda_model::settings.shared_per_block = shared * 1024;
    cuda_model::settings.device = shared == 227 ? 0 : shared == 163 ? 1 : 2;
    check_sizes<__nv_bfloat16>(shared == 227 ? 130 : 3, 260, 200);
    if (shared == 227) check_sizes<float>(3, 260, 200, {}, 3e-7);  // of which none are kept
  }
}

// Launches of one kernel that take more and less shared memory, whichever comes first.
TEST(similarity_of_many_columns_beside_few) {
  const Features<__nv_bfloat16> image(2, 512, 1), text(260, 512, 2), image2(2, 256, 3), text2(260, 256, 4);
  for (const bool more_first : {false, true}) {
    cuda_model::settings.device = 3 + 2 * int(cuda_model::settings.schedule) + more_first;
    for (const bool more : {more_first, !more_first, more_first})
      more ? check_against_definition(image, text) : check_against_definition(image2, text2);
  }
}

TEST(similarity_as_it_is) {
  check_against_definition(Features<__nv_bfloat16>(66, 40, 1), Features<__nv_bfloat16>(7, 40, 2), {false});
  check_against_definition(Features<__half>(3, 40, 1), Features<__half>(70, 40, 2), {false});
  for (const double length : {1e-36, 1.0, 1e36}) {
    Features<float> image(3, 40, 1), text(7, 40, 2);
    for (int64_t i = 0; i < 3; ++i) image.scale(i, length);
    for (int64_t c = 0; c < 7; ++c) text.scale(c, 1 / length);
    check_against_definition(image, text, {false}, 3e-7);
  }
}

// A vector that has no length is similar to none.
TEST(similarity_of_no_direction) {
  Features<__nv_bfloat16> image(3, 16, 1), text(5, 16, 2);
  image.scale(1, 0);
  text.scale(2, 0);
  for (const bool normalize : {true, false}) {
    const DeviceArray<float> out = run(image.matrix(), text.matrix(), {normalize});
    for (size_t i = 0; i < 15; ++i) CHECK_EQUAL(out[i] == 0, i / 5 == 1 || i % 5 == 2, i);
  }
}

template <class T>
static void check_lengths(std::initializer_list<double> lengths, double error) {
  const auto [image, text] = of_lengths<T>(lengths);
  check_against_definition(image, text, {}, error);
}
TEST(similarity_of_extreme_lengths) {
  check_lengths<float>({1e-37, 1e-20, 1e-13, 1e-10, 1, 1e10, 1e18, 1e20, 1e30, 5e37}, 3e-7);
  check_lengths<__nv_bfloat16>({1e-37, 1e-20, 1e-13, 1e-10, 1, 1e10, 1e18, 1e20, 1e30, 5e37}, 1e-6);
  check_lengths<__half>({1e-4, 1e-3, 1, 1e3, 1e4}, 1e-6);
}

template <class T>
static void check_not_finite(float bad, bool normalize) {
  Features<T> image(66, 20, 1), text(70, 20, 2);
  const DeviceArray<float> good = run(image.matrix(), text.matrix(), {normalize});
  image.row(65)[3] = T(bad);
  text.row(66)[19] = T(bad);
  const DeviceArray<float> out = run(image.matrix(), text.matrix(), {normalize});
  for (size_t i = 0; i < out.size(); ++i) {
    const bool spoilt = i / 70 == 65 || i % 70 == 66;
    CHECK_EQUAL(std::isnan(out[i]), spoilt, i);
    if (!spoilt) CHECK_EQUAL(out[i], good[i], i);
  }
}
TEST(similarity_not_finite) {
  check_not_finite<__nv_bfloat16>(kNaN, true);
  check_not_finite<__nv_bfloat16>(-kInfinity, false);
  check_not_finite<__half>(kInfinity, true);
  check_not_finite<float>(kNaN, false);
  check_not_finite<float>(kInfinity, true);
}

// Neither the batch, nor where the rows lie in memory, nor the number of multiprocessors changes a bit of a row.
template <class T>
static void check_batches(int64_t c) {
  const Features<T> image(200, 24, 1), text(c, 24, 2);
  const DeviceArray<float> whole = run(image.matrix(), text.matrix());
  for (const auto& [first, n, offset, padding] :
       {std::array{71, 129, 0, 0}, {3, 5, 1, 0}, {190, 2, 0, 8}, {64, 3, 8, 3}, {7, 1, 0, 1}}) {
    Features<T> part(n, 24, 9, offset, padding);
    for (int64_t i = 0; i < n; ++i) std::copy_n(image.data.data() + (first + i) * image.stride, 24, part.row(i));
    cuda_model::settings.multiprocessors = 1 + n % 3;
    const DeviceArray<float> out = run(part.matrix(), text.matrix());
    for (size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], whole[size_t(first * c) + i], i);
  }
}
TEST(similarity_of_a_row_does_not_depend_on_its_batch) {
  check_batches<__nv_bfloat16>(270);
  check_batches<__half>(33);
  check_batches<float>(65);
}
