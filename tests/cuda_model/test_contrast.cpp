// contrast: against the definition in fp64, at the tails of all sizes.
#include "contrast.h"

TEST(contrast_of_tails) {
  for (const Options& o : {kSimilarity, kProbability})
    for (const auto& [n, c, d, d0] : {std::array{1, 1, 1, 1}, {3, 2, 7, 8}, {66, 65, 64, 9}, {2, 300, 72, 130}}) {
      check_sizes<__nv_bfloat16>(n, c, d, d0, o);
      check_sizes<__half>(n, c, d, d0, o);
    }
}

TEST(contrast_of_several_tiles_to_a_block) {
  cuda_model::settings.multiprocessors = 1;
  for (const Options& o : {kSimilarity, kProbability}) check_sizes<__nv_bfloat16>(260, 258, 8, 16, o);
}

TEST(contrast_of_fp32_and_of_mixed_types) {
  for (const Options& o : {kSimilarity, kProbability}) {
    check_sizes<float>(5, 70, 24, 9, o, 3e-7);
    const Features<__half> image(3, 24, 1), text(5, 24, 2);
    const Features<__nv_bfloat16> image0(3, 40, 3), text0(5, 40, 4);
    const Features<float> text1(5, 40, 5);
    check_against_definition(image, text, image0, text0, o);
    check_against_definition(image, text, image0, text1, o);
    check_against_definition(image0, text1, image, text, o);
  }
}

TEST(contrast_without_normalisation) {
  for (const bool probability : {false, true}) check_sizes<__nv_bfloat16>(3, 70, 24, 24, {probability, 0.5f, false});
}

TEST(contrast_with_a_huge_scale) { check_sizes<__nv_bfloat16>(4, 70, 64, 64, {true, 1e4f, true}); }

TEST(contrast_of_equal_models_is_zero) {
  const Features<__nv_bfloat16> image(66, 40, 1), copy(66, 40, 1), text(300, 40, 2);
  const Features<float> wide_image(3, 40, 1), wide_copy(3, 40, 1), wide_text(70, 40, 2);
  for (const Options& o : {kSimilarity, kProbability}) {
    for (const float z : run(image.matrix(), text.matrix(), copy.matrix(), text.matrix(), o)) CHECK_EQUAL(z, 0.0f);
    for (const float z : run(wide_image.matrix(), wide_text.matrix(), wide_copy.matrix(), wide_text.matrix(), o))
      CHECK_EQUAL(z, 0.0f);
  }
}

// Images that both models share are prepared once; the bits are those of copies.
template <class T>
static void check_shared() {
  const Features<T> image(5, 20, 1), copy(5, 20, 1), text(70, 20, 2), text0(70, 20, 3);
  for (const Options& o : {kSimilarity, kProbability}) {
    const DeviceArray<float> z = run(image.matrix(), text.matrix(), image.matrix(), text0.matrix(), o),
                             expected = run(image.matrix(), text.matrix(), copy.matrix(), text0.matrix(), o);
    for (size_t i = 0; i < 5; ++i) CHECK_EQUAL(z[i], expected[i]);
    check_against_definition(image, text, image, text0, o);
  }
}
TEST(contrast_of_shared_images) {
  check_shared<__nv_bfloat16>();
  check_shared<float>();
}
TEST(contrast_of_images_that_only_begin_at_the_same_place) {
  const Features<__nv_bfloat16> image(5, 20, 1, 0, 4), text(70, 20, 2), text0(70, 20, 3);
  pyfastcal::Matrix image0 = image.matrix();
  image0.stride = 20;
  Features<__nv_bfloat16> copy0(5, 20, 1);
  std::copy_n(image.data.data(), 100, copy0.row(0));
  const DeviceArray<float> z = run(image.matrix(), text.matrix(), image0, text0.matrix(), kSimilarity),
                           expected = run(image.matrix(), text.matrix(), copy0.matrix(), text0.matrix(), kSimilarity);
  for (size_t i = 0; i < 5; ++i) CHECK_EQUAL(z[i], expected[i]);
}

TEST(contrast_not_finite) {
  for (const float bad : {kNaN, kInfinity, -kInfinity})
    for (const Options& o : {kSimilarity, kProbability, Options{false, 1, false}, Options{true, 1, false}})
      for (const int where : {0, 1, 2, 3}) {
        Features<__nv_bfloat16> image(4, 20, 1), text(70, 20, 2), image0(4, 20, 3), text0(70, 20, 4);
        (where == 0 ? image : where == 1 ? image0 : where == 2 ? text : text0).row(2)[19] = __nv_bfloat16(bad);
        const DeviceArray<float> z = run(image.matrix(), text.matrix(), image0.matrix(), text0.matrix(), o);
        for (size_t i = 0; i < 4; ++i) CHECK_EQUAL(std::isnan(z[i]), where > 1 || i == 2, i, ' ', where);
      }
}

TEST(contrast_of_a_row_does_not_depend_on_its_batch) {
  const Features<__nv_bfloat16> image(200, 16, 1), text(270, 16, 2), image0(200, 24, 3), text0(270, 24, 4);
  for (const Options& o : {kSimilarity, kProbability}) {
    const DeviceArray<float> whole = run(image.matrix(), text.matrix(), image0.matrix(), text0.matrix(), o);
    for (const auto& [first, n, offset, padding] : {std::array{71, 129, 0, 8}, {3, 2, 1, 8}, {7, 1, 0, 1}}) {
      Features<__nv_bfloat16> part(n, 16, 5, offset), part0(n, 24, 6, 0, padding);
      for (int64_t i = 0; i < n; ++i) {
        std::copy_n(image.data.data() + (first + i) * 16, 16, part.row(i));
        std::copy_n(image0.data.data() + (first + i) * 24, 24, part0.row(i));
      }
      cuda_model::settings.multiprocessors = 1;
      const DeviceArray<float> z = run(part.matrix(), text.matrix(), part0.matrix(), text0.matrix(), o);
      for (int64_t i = 0; i < n; ++i) CHECK_EQUAL(z[size_t(i)], whole[size_t(first + i)], i);
    }
  }
}
