// similarity on the product by warpgroups: against the definition in fp64, at the tails of all sizes, whatever block
// has a tile.
#include "similarity.h"

using pyfastcal::cuda::ProductChoice;

namespace {

constexpr Options kNormalized{true, ProductChoice::kWgmma}, kAsItIs{false, ProductChoice::kWgmma};

}  // namespace

// Depths of eight chunks, of which the last is short or not, and of more; rows that are read in place, and packed.
TEST(similarity_by_warpgroups_of_tails) {
  for (const auto& [n, c, d] :
       {std::array{1, 1, 512}, {3, 2, 449}, {65, 129, 455}, {130, 127, 520}, {129, 260, 700}, {128, 128, 512}}) {
    check_sizes<__nv_bfloat16>(n, c, d, kNormalized);
    check_sizes<__half>(n, c, d, kNormalized);
  }
}

// Blocks of one tile and of several, of even and odd numbers, that begin within a row of tiles and change to the next.
TEST(similarity_by_warpgroups_of_tiles_shared_out) {
  const Features<__nv_bfloat16> image(260, 456, 1), text(514, 456, 2);
  check_against_definition(image, text, kNormalized);
  const DeviceArray<float> expected = run(image.matrix(), text.matrix(), kNormalized);
  for (const int multiprocessors : {1, 4, 100}) {
    cuda_model::settings.multiprocessors = multiprocessors;
    const uint64_t before = cuda_model::counters.blocks;
    const DeviceArray<float> out = run(image.matrix(), text.matrix(), kNormalized);
    const uint64_t prepared = 640 / 8 + (260 + 7) / 8;
    CHECK_EQUAL(cuda_model::counters.blocks - before, prepared + uint64_t(std::min(multiprocessors, 15)));
    for (size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], expected[i], i);
  }
}

// In rows of even and odd length.
TEST(similarity_by_warpgroups_at_the_last_classes) {
  for (const int64_t classes : {62, 126, 127, 131, 254, 255}) check_sizes<__nv_bfloat16>(3, classes, 456, kNormalized);
}

TEST(similarity_by_warpgroups_as_it_is) {
  check_sizes<__nv_bfloat16>(66, 7, 512, kAsItIs);
  check_sizes<__half>(3, 140, 452, kAsItIs);
}

// A vector that has no length is similar to none.
TEST(similarity_by_warpgroups_of_no_direction) {
  Features<__nv_bfloat16> image(3, 456, 1), text(5, 456, 2);
  image.scale(1, 0);
  text.scale(2, 0);
  for (const Options& o : {kNormalized, kAsItIs}) {
    const DeviceArray<float> out = run(image.matrix(), text.matrix(), o);
    for (size_t i = 0; i < 15; ++i) CHECK_EQUAL(out[i] == 0, i / 5 == 1 || i % 5 == 2, i);
  }
}

template <class T>
static void check_lengths(std::initializer_list<double> lengths) {
  const auto [image, text] = of_lengths<T>(lengths, 456);
  check_against_definition(image, text, kNormalized);
}
TEST(similarity_by_warpgroups_of_extreme_lengths) {
  check_lengths<__nv_bfloat16>({1e-37, 1e-20, 1e-13, 1e-10, 1, 1e10, 1e18, 1e20, 1e30, 5e37});
  check_lengths<__half>({1e-4, 1e-3, 1, 1e3, 1e4});
}

template <class T>
static void check_not_finite(float bad, const Options& o) {
  Features<T> image(66, 460, 1), text(70, 460, 2);
  const DeviceArray<float> good = run(image.matrix(), text.matrix(), o);
  image.row(65)[3] = T(bad);
  text.row(66)[459] = T(bad);
  const DeviceArray<float> out = run(image.matrix(), text.matrix(), o);
  for (size_t i = 0; i < out.size(); ++i) {
    const bool spoilt = i / 70 == 65 || i % 70 == 66;
    CHECK_EQUAL(std::isnan(out[i]), spoilt, i);
    if (!spoilt) CHECK_EQUAL(out[i], good[i], i);
  }
}
TEST(similarity_by_warpgroups_not_finite) {
  check_not_finite<__nv_bfloat16>(kNaN, kNormalized);
  check_not_finite<__nv_bfloat16>(-kInfinity, kAsItIs);
  check_not_finite<__half>(kInfinity, kNormalized);
}

// Neither the batch, nor where the rows lie in memory, overlapping ones included, nor the number of multiprocessors
// changes a bit of a row.
template <class T>
static void check_batches(int64_t c) {
  const Features<T> image(200, 456, 1), text(c, 456, 2);
  const DeviceArray<float> whole = run(image.matrix(), text.matrix(), kNormalized);
  for (const auto& [first, n, offset, padding] :
       {std::array{71, 129, 0, 0}, {3, 5, 1, 0}, {190, 2, 0, 8}, {64, 3, 8, 3}, {7, 1, 0, 1}}) {
    Features<T> part(n, 456, 9, offset, padding);
    for (int64_t i = 0; i < n; ++i) std::copy_n(image.data.data() + (first + i) * image.stride, 456, part.row(i));
    cuda_model::settings.multiprocessors = 1 + n % 3;
    const DeviceArray<float> out = run(part.matrix(), text.matrix(), kNormalized);
    for (size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], whole[size_t(first * c) + i], i);
  }
  pyfastcal::Matrix overlapping = image.matrix();
  overlapping.stride = 0;
  overlapping.rows = 3;
  const DeviceArray<float> out = run(overlapping, text.matrix(), kNormalized);
  for (size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], whole[i % size_t(c)], i);
}
TEST(similarity_by_warpgroups_of_a_row_does_not_depend_on_its_batch) {
  check_batches<__nv_bfloat16>(270);
  check_batches<__half>(33);
}

// Where it cannot be, the other product is taken, though this one was asked for.
TEST(similarity_by_warpgroups_only_where_it_can_be) {
  const auto taken = [](const auto& image, const auto& text) {
    return run_either(image.matrix(), text.matrix(), kNormalized).by_warpgroups;
  };
  const Features<__half> image(2, 512, 1), text(3, 512, 2), shallow(2, 448, 1), shallow_text(3, 448, 2);
  const Features<__nv_bfloat16> other(3, 512, 2);
  const Features<float> wide(2, 512, 1), wide_text(3, 512, 2);
  CHECK(taken(image, text));
  CHECK(!taken(shallow, shallow_text));
  CHECK(!taken(image, other));
  CHECK(!taken(wide, wide_text));
  cuda_model::settings.device = 1;
  cuda_model::settings.capability = 100;
  CHECK(!taken(image, text));
}
