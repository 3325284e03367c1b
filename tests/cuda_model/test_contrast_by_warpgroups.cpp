// contrast on the product by warpgroups: against the definition in fp64, wherever a tile lies in a block's sequence.
#include "contrast.h"

using pyfastcal::cuda::ProductChoice;

namespace {

constexpr Options kSimilarities{false, 20, true, ProductChoice::kWgmma},
    kProbabilities{true, 20, true, ProductChoice::kWgmma};

// Of both kinds with images of their own, and that both models share.
template <class T>
void check_kinds(int64_t n, int64_t c, int64_t d, int64_t d0) {
  const Features<T> image(n, d, 1), text(c, d, 2), image0(n, d0, 3), text0(c, d0, 4), other(c, d, 5);
  for (const Options& o : {kSimilarities, kProbabilities}) {
    check_against_definition(image, text, image0, text0, o);
    check_against_definition(image, text, image, other, o);
  }
}

}  // namespace

// Depths of eight chunks, of which the last is short or not, and of more; rows that are read in place, and packed.
TEST(contrast_by_warpgroups_of_tails) {
  check_kinds<__nv_bfloat16>(1, 1, 512, 512);
  check_kinds<__half>(3, 2, 449, 512);
  check_kinds<__nv_bfloat16>(65, 129, 455, 450);
  check_kinds<__half>(130, 127, 520, 513);
  check_kinds<__nv_bfloat16>(129, 5, 700, 704);
}

// Runs of two tiles, that begin with either model, and one of one at the end; one and several row tiles of a block.
TEST(contrast_by_warpgroups_of_runs) {
  cuda_model::settings.multiprocessors = 1;
  for (const auto& [n, c] : {std::array{5, 383}, {130, 638}})
    for (const Options& o : {kSimilarities, kProbabilities}) check_sizes<__nv_bfloat16>(n, c, 456, 512, o);
}

// Blocks of two row tiles and of one.
TEST(contrast_by_warpgroups_of_more_tiles_than_blocks) { check_kinds<__nv_bfloat16>(290, 100, 520, 520); }

TEST(contrast_by_warpgroups_without_normalisation) {
  for (const bool probability : {false, true})
    check_sizes<__nv_bfloat16>(3, 140, 456, 456, {probability, 0.05f, false, ProductChoice::kWgmma});
}

TEST(contrast_by_warpgroups_with_a_huge_scale) {
  check_sizes<__nv_bfloat16>(4, 140, 512, 512, {true, 1e4f, true, ProductChoice::kWgmma});
}

TEST(contrast_by_warpgroups_of_equal_models_is_zero) {
  cuda_model::settings.multiprocessors = 1;
  const Features<__nv_bfloat16> image(9, 460, 1), copy(9, 460, 1), text(300, 460, 2), copied(300, 460, 2);
  for (const Options& o : {kSimilarities, kProbabilities})
    for (const Features<__nv_bfloat16>* const image0 : {&image, &copy})
      for (const float z : run(image.matrix(), text.matrix(), image0->matrix(), copied.matrix(), o))
        CHECK_EQUAL(z, 0.0f);
}

// Images that both models share stay in shared memory; the bits are those of copies, which do not.
TEST(contrast_by_warpgroups_of_shared_images) {
  cuda_model::settings.multiprocessors = 1;
  const Features<__half> image(140, 580, 1), copy(140, 580, 1), text(260, 580, 2), text0(260, 580, 3);
  for (const Options& o : {kSimilarities, kProbabilities}) {
    const DeviceArray<float> z = run(image.matrix(), text.matrix(), image.matrix(), text0.matrix(), o),
                             expected = run(image.matrix(), text.matrix(), copy.matrix(), text0.matrix(), o);
    for (size_t i = 0; i < z.size(); ++i) CHECK_EQUAL(z[i], expected[i], i);
  }
}

TEST(contrast_by_warpgroups_not_finite) {
  for (const float bad : {kNaN, -kInfinity})
    for (const bool probability : {false, true})
      for (const int where : {0, 1, 2, 3}) {
        const Options o{probability, 0.05f, bad != bad, ProductChoice::kWgmma};
        Features<__nv_bfloat16> image(4, 456, 1), text(70, 456, 2), image0(4, 456, 3), text0(70, 456, 4);
        (where == 0 ? image : where == 1 ? image0 : where == 2 ? text : text0).row(2)[455] = __nv_bfloat16(bad);
        const DeviceArray<float> z = run(image.matrix(), text.matrix(), image0.matrix(), text0.matrix(), o);
        for (size_t i = 0; i < 4; ++i) CHECK_EQUAL(std::isnan(z[i]), where > 1 || i == 2, i, ' ', where);
      }
}

// Nor on where the rows lie, overlapping ones included, nor on the number of multiprocessors.
TEST(contrast_by_warpgroups_of_a_row_does_not_depend_on_its_batch) {
  const Features<__nv_bfloat16> image(200, 456, 1), text(270, 456, 2), image0(200, 464, 3), text0(270, 464, 4);
  for (const Options& o : {kSimilarities, kProbabilities}) {
    const DeviceArray<float> whole = run(image.matrix(), text.matrix(), image0.matrix(), text0.matrix(), o);
    for (const auto& [first, n, offset, padding] : {std::array{71, 129, 0, 8}, {3, 2, 1, 8}, {7, 1, 0, 1}}) {
      Features<__nv_bfloat16> part(n, 456, 5, offset), part0(n, 464, 6, 0, padding);
      for (int64_t i = 0; i < n; ++i) {
        std::copy_n(image.data.data() + (first + i) * 456, 456, part.row(i));
        std::copy_n(image0.data.data() + (first + i) * 464, 464, part0.row(i));
      }
      cuda_model::settings.multiprocessors = 1;
      const DeviceArray<float> z = run(part.matrix(), text.matrix(), part0.matrix(), text0.matrix(), o);
      for (int64_t i = 0; i < n; ++i) CHECK_EQUAL(z[size_t(i)], whole[size_t(first + i)], i);
    }
    pyfastcal::Matrix overlapping = image.matrix(), overlapping0 = image0.matrix();
    overlapping.stride = overlapping0.stride = 0;
    overlapping.rows = overlapping0.rows = 3;
    for (const float z : run(overlapping, text.matrix(), overlapping0, text0.matrix(), o)) CHECK_EQUAL(z, whole[0]);
  }
}

// Where it cannot be, the other product is taken, though this one was asked for.
TEST(contrast_by_warpgroups_only_where_it_can_be) {
  const auto taken = [](const auto& image, const auto& text, const auto& image0, const auto& text0) {
    return run_either(image.matrix(), text.matrix(), image0.matrix(), text0.matrix(), kSimilarities).by_warpgroups;
  };
  const Features<__half> image(2, 512, 1), text(3, 512, 2), shallow(2, 448, 1), shallow_text(3, 448, 2),
      deeper(2, 520, 1), deeper_text(3, 520, 2);
  const Features<__nv_bfloat16> other(2, 512, 1), other_text(3, 512, 2);
  const Features<float> wide(2, 512, 1), wide_text(3, 512, 2);
  CHECK(taken(image, text, image, text));
  CHECK(!taken(shallow, shallow_text, shallow, shallow_text));
  CHECK(!taken(image, text, deeper, deeper_text));
  CHECK(!taken(image, text, other, other_text));
  CHECK(!taken(wide, wide_text, wide, wide_text));
  cuda_model::settings.device = 1;
  cuda_model::settings.capability = 100;
  CHECK(!taken(image, text, image, text));
}
