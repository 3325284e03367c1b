// similarity_confidence on the product by warpgroups: against the definition in fp64, at the tails of all sizes, for
// every number of sums.
#include <cfloat>

#include "similarity_confidence.h"

using namespace pyfastcal;
using cuda::ProductChoice;
using cuda_model::settings;

namespace {

constexpr ProductChoice kWgmma = ProductChoice::kWgmma;

// The ways through the epilogue: one sum, two, four (of which three may be used), or logits that are stored.
constexpr int kDistinct[] = {1, 2, 3, 4, 5, 100};

Options with_weights(const DeviceArray<float>& weights) {
  return {.factors = {weights.data(), nullptr}, .product = kWgmma};
}

}  // namespace

TEST(warpgroups_similarity_of_tails) {
  for (const auto& [n, c, d] : {std::array{1, 1, 449},
                                {64, 2, 456},
                                {65, 5, 513},
                                {127, 8, 512},
                                {128, 9, 520},
                                {129, 127, 504},
                                {130, 128, 450},
                                {3, 131, 700},
                                {5, 257, 511},
                                {2, 129, 515}}) {
    check_against_definition(Features<__nv_bfloat16>(n, d, 1), Features<__nv_bfloat16>(c, d, 2), {.product = kWgmma});
    if (n < 66) check_against_definition(Features<__half>(n, d, 3), Features<__half>(c, d, 4), {.product = kWgmma});
  }
}

// Several row tiles to a block, of which one has fewer, and another none.
TEST(warpgroups_similarity_of_many_rows) {
  const Features<__nv_bfloat16> image(520, 456, 1), text(140, 456, 2);
  for (const int multiprocessors : {1, 2, 3, 6}) {
    settings.multiprocessors = multiprocessors;
    const DeviceArray<float> weights = some_weights(140, multiprocessors == 3 ? 40 : multiprocessors);
    check_against_definition(image, text, with_weights(weights));
  }
}

// Where there are few rows, several blocks have some of their tiles each, and merge what they find: to the same bits.
TEST(warpgroups_similarity_of_rows_shared_by_blocks) {
  const Features<__nv_bfloat16> image(130, 456, 1), text(513, 456, 2);
  DeviceArray<float> bias(testing::random_normal(513, 3, 2)), sample_weight(size_t(130));
  for (size_t i = 0; i < 130; ++i) sample_weight[i] = 0.5f + 0.01f * float(i);
  for (size_t c = 0; c < 513; ++c)
    if (c / 128 == 1 || c % 8 == 4 || c % 8 == 5) bias[c] = -kInfinity;  // a tile, and what a lane has of all
  for (const int distinct : {1, 2, 4, 50}) {
    const DeviceArray<float> weights = some_weights(513, distinct);
    const float* const b = distinct % 3 == 1 ? nullptr : bias.data();
    const Options options{20, b, {weights.data(), sample_weight.data()}, true, kWgmma};
    settings.multiprocessors = 1;
    const Result alone = check_against_definition(image, text, options);
    settings.multiprocessors = distinct == 2 || distinct == 50 ? 6 : 20;  // three blocks and five; of five tiles
    const Result shared = run(image.matrix(), text.matrix(), options);
    for (size_t i = 0; i < 130; ++i) {
      CHECK_EQUAL(shared.confidence[i], alone.confidence[i], i, ' ', distinct);
      CHECK_EQUAL(shared.prediction[i], alone.prediction[i], i, ' ', distinct);
    }
  }
}

TEST(warpgroups_similarity_with_class_weights) {
  const Features<__nv_bfloat16> image(70, 456, 1), text(270, 456, 2);
  const Features<__half> half_image(70, 456, 1), half_text(270, 456, 2);
  for (const int distinct : kDistinct) {
    settings.multiprocessors = 1 + distinct % 2;
    const DeviceArray<float> weights = some_weights(270, distinct);
    check_against_definition(image, text, with_weights(weights));
    if (distinct > 3) check_against_definition(half_image, half_text, with_weights(weights));
  }
  for (const int classes : {1, 2, 3, 4, 5})
    check_against_definition(image, Features<__nv_bfloat16>(classes, 456, 3),
                             with_weights(some_weights(classes, classes)));
}

// A kernel for another number of sums does nothing, and no tile is two blocks': every box is copied once, and the facts
// of every tile; columns twice where rows are swept twice.
TEST(warpgroups_similarity_multiplies_as_often_as_it_must) {
  const Features<__nv_bfloat16> text(140, 513, 1);
  for (const int64_t rows : {300, 10}) {  // three row tiles; one of two blocks
    const Features<__nv_bfloat16> image(rows, 513, 2);
    for (const int distinct : kDistinct) {
      const DeviceArray<float> weights = some_weights(140, distinct);
      const uint64_t before = cuda_model::counters.async_copies;
      run(image.matrix(), text.matrix(), with_weights(weights));
      const unsigned sweeps = rows > 10 && distinct > 2 ? 2 : 1, of_rows = 8, of_tile = 8 + 2 + 1,
                     expected = rows > 10 ? 3 * of_rows + 6 * sweeps * of_tile : 2 * (of_rows + of_tile);
      CHECK_EQUAL(cuda_model::counters.async_copies - before, expected, distinct);
    }
  }
}

TEST(warpgroups_similarity_with_everything) {
  const Features<__nv_bfloat16> image(67, 456, 1), text(150, 456, 2);
  const Features<__half> half_image(67, 456, 1), half_text(150, 456, 2);
  const DeviceArray<float> bias(testing::random_normal(150, 3, 2)),
      two = some_weights(150, 2), few = some_weights(150, 3), many = some_weights(150, 60);
  DeviceArray<float> sample_weight(size_t(67));
  for (size_t i = 0; i < 67; ++i) sample_weight[i] = 0.5f + 0.01f * float(i);
  for (const bool normalize : {true, false})
    for (const float* const class_weight : {static_cast<const float*>(nullptr), two.data(), few.data(), many.data()})
      for (const float* const b : {static_cast<const float*>(nullptr), bias.data()}) {
        settings.multiprocessors = normalize == (b != nullptr) ? 1 : 2;
        const Options options{normalize ? 20.0f : 0.1f, b, {class_weight, sample_weight.data()}, normalize, kWgmma};
        check_against_definition(image, text, options);
        if (b && normalize) check_against_definition(half_image, half_text, options);
      }
}

TEST(warpgroups_similarity_with_a_huge_scale) {
  const Features<__nv_bfloat16> image(4, 512, 1), text(140, 512, 2);
  for (const int distinct : {1, 3}) {
    Options options{.logit_scale = 1e4f, .product = kWgmma};
    const DeviceArray<float> weights = some_weights(140, distinct);
    options.factors.class_weight = weights.data();
    check_against_definition(image, text, options);
  }
}

// Masked: single classes, all that a lane has, a whole tile, all but one. The lowest of numbers does it as well.
TEST(warpgroups_similarity_of_masked_classes) {
  const Features<__nv_bfloat16> image(10, 456, 1), text(250, 456, 2);
  bool (*const masks[])(int) = {[](int c) { return c % 7 == 0; }, [](int c) { return c / 2 % 4 == 1; },
                                [](int c) { return c < 128; },    [](int c) { return c >= 128; },
                                [](int c) { return c != 201; },   [](int c) { return c / 2 % 4 == 2 || c < 128; }};
  for (const int distinct : {1, 2, 4, 60}) {
    const DeviceArray<float> weights = some_weights(250, distinct);
    Options options = with_weights(weights);
    for (const auto masked : masks) {
      settings.multiprocessors = settings.multiprocessors % 2 + 1;
      DeviceArray<float> bias(testing::random_normal(250, 3, 2));
      options.bias = bias.data();
      const auto mask = [&](float with) {
        for (int c = 0; c < 250; ++c)
          if (masked(c)) bias[size_t(c)] = with;
      };
      mask(-kInfinity);
      const Result infinite = check_against_definition(image, text, options);
      if (distinct > 1) continue;
      mask(-FLT_MAX);
      const Result lowest = run(image.matrix(), text.matrix(), options);
      for (size_t i = 0; i < 10; ++i) {
        CHECK_EQUAL(lowest.prediction[i], infinite.prediction[i], i);
        CHECK_EQUAL(lowest.confidence[i], infinite.confidence[i], i);
      }
    }
  }
}
TEST(warpgroups_similarity_of_nothing_but_masked_classes) {
  const Features<__nv_bfloat16> image(66, 456, 1), text(140, 456, 2);
  for (const int distinct : {1, 2, 4, 60})
    for (const float mask : {-kInfinity, -FLT_MAX}) {
      const DeviceArray<float> weights = some_weights(140, distinct), bias(std::vector<float>(140, mask));
      Options options = with_weights(weights);
      options.bias = bias.data();
      settings.multiprocessors = 1 + (distinct + (mask < -FLT_MAX)) % 2;
      const Result result = run(image.matrix(), text.matrix(), options);
      for (size_t i = 0; i < 66; ++i) {
        CHECK_EQUAL(result.prediction[i], 0, i);
        if (mask == -FLT_MAX)
          CHECK_NEAR(result.confidence[i], 1.0 / 140, 1e-8, i);
        else
          CHECK(std::isnan(result.confidence[i]));
      }
    }
}

// Equal classes: a lane's next column, one of the next eight; in another lane, before it or behind it; in another tile,
// also of the same lane, also the first of it.
TEST(warpgroups_similarity_of_equal_classes_predicts_the_first) {
  struct Tie {
    int64_t row, first, other;
  };
  constexpr Tie kTies[] = {{0, 2, 3},      {7, 4, 13},    {8, 7, 16},     {15, 12, 70},   {16, 64, 131},
                           {63, 140, 265}, {64, 18, 258}, {65, 126, 129}, {69, 255, 256}, {70, 0, 299}};
  const Features<__nv_bfloat16> image(71, 456, 1);
  Features<__nv_bfloat16> text(300, 456, 2);
  for (const Tie& tie : kTies)
    for (const int64_t c : {tie.first, tie.other}) std::copy_n(image.data.data() + tie.row * 456, 456, text.row(c));
  for (const int distinct : {1, 2, 4, 50})
    for (const int multiprocessors : {1, 3}) {
      settings.multiprocessors = multiprocessors;
      const DeviceArray<float> weights = some_weights(300, distinct);
      const Result result = check_against_definition(image, text, with_weights(weights));
      for (const Tie& tie : kTies) CHECK_EQUAL(result.prediction[size_t(tie.row)], tie.first, distinct);
    }
}

TEST(warpgroups_similarity_of_no_direction) {
  Features<__nv_bfloat16> image(130, 512, 1), text(130, 512, 2);
  for (const int64_t i : {1, 64, 129}) image.scale(i, 0);
  for (const int distinct : {1, 40}) {
    const DeviceArray<float> weights = some_weights(130, distinct);
    const Result result = run(image.matrix(), text.matrix(), with_weights(weights));
    for (const size_t i : {1, 64, 129}) {
      CHECK_EQUAL(result.prediction[i], 0);
      CHECK_EQUAL(result.confidence[i], float(1 / 130.0));
    }
  }
}

TEST(warpgroups_similarity_of_one_class_is_certain) {
  const Result result =
      run(Features<__half>(130, 512, 1).matrix(), Features<__half>(1, 512, 2).matrix(), {.product = kWgmma});
  for (size_t i = 0; i < 130; ++i) {
    CHECK_EQUAL(result.confidence[i], 1.0f);
    CHECK_EQUAL(result.prediction[i], 0);
  }
}

TEST(warpgroups_similarity_of_extreme_lengths) {
  const auto check = []<class T>(T, std::initializer_list<double> lengths) {
    const auto [image, text] = of_lengths<T>(lengths, 456);
    check_against_definition(image, text, {.product = kWgmma});
  };
  check(__nv_bfloat16(), {1e-37, 1e-20, 1e-13, 1e-10, 1, 1e10, 1e18, 1e20, 1e30, 3e37});
  check(__half(), {1e-4, 1e-3, 1, 1e3, 1e4});
}

TEST(warpgroups_similarity_not_finite) {
  const DeviceArray<float> bias(std::vector<float>(140, 1.0f));
  for (const int distinct : {1, 2, 4, 50})
    for (const bool biased : {true, false}) {
      const bool normalize = biased == (distinct % 4 == 1);
      const DeviceArray<float> weights = some_weights(140, distinct);
      const Options options{1, biased ? bias.data() : nullptr, {weights.data(), nullptr}, normalize, kWgmma};
      const float bad = distinct % 3 == 1 ? kNaN : biased ? kInfinity : -kInfinity;
      settings.multiprocessors = 1 + (distinct + biased) % 2;
      check_not_finite(bad, Features<__nv_bfloat16>(66, 456, 1), Features<__nv_bfloat16>(140, 456, 2), options);
    }
  check_not_finite(kInfinity, Features<__half>(129, 456, 1), Features<__half>(20, 456, 2), {.product = kWgmma});
}
TEST(warpgroups_similarity_with_a_bias_that_is_not_finite) {
  const Features<__nv_bfloat16> image(66, 456, 1), text(140, 456, 2);
  for (const int distinct : {1, 2, 4, 50})
    for (const float bad : {kNaN, kInfinity}) {
      const DeviceArray<float> weights = some_weights(140, distinct);
      DeviceArray<float> bias(std::vector<float>(140, 1.0f));
      bias[131] = bad;
      settings.multiprocessors = 1 + (distinct + std::isnan(bad)) % 2;
      Options options = with_weights(weights);
      options.bias = bias.data();
      for (const float confidence : run(image.matrix(), text.matrix(), options).confidence)
        CHECK(std::isnan(confidence));
    }
}

TEST(warpgroups_similarity_with_the_largest_scale) { check_the_largest_scale(456, kWgmma); }

// Neither the batch, nor where the rows lie in memory, nor the number of multiprocessors changes a bit of a row.
TEST(warpgroups_similarity_of_a_row_does_not_depend_on_its_batch) {
  const Features<__nv_bfloat16> image(300, 456, 1), text(300, 456, 2);
  DeviceArray<float> sample_weight(size_t(300));
  for (size_t i = 0; i < 300; ++i) sample_weight[i] = 0.5f + 0.003f * float(i);
  for (const int distinct : {1, 2, 3, 40}) {
    const DeviceArray<float> weights = some_weights(300, distinct);
    Options options = with_weights(weights);
    options.factors.sample_weight = sample_weight.data();
    settings.multiprocessors = 1;
    const Result whole = run(image.matrix(), text.matrix(), options);
    for (const std::array<int, 4>& part :
         {std::array{171, 129, 0, 0}, {3, 5, 1, 0}, {250, 2, 0, 8}, {64, 3, 8, 3}, {7, 1, 0, 1}, {100, 160, 8, 16}}) {
      settings.multiprocessors = 1 + part[1] % 4;
      check_same_rows(whole, image, part, text.matrix(), options);
    }
  }
}

// The copy engine wants rows that do not overlap; of one row the stride may be anything.
TEST(warpgroups_similarity_of_rows_that_overlap) {
  const Features<__nv_bfloat16> image(40, 456, 1), text(9, 456, 2);
  for (const int64_t rows : {1, 5})
    for (const int64_t stride : {int64_t(0), int64_t(8), int64_t(448), int64_t(1) << 39}) {
      if (rows > 1 && stride > 448) continue;
      Features<__nv_bfloat16> apart(rows, 456, 3);
      for (int64_t i = 0; i < rows; ++i) std::copy_n(image.data.data() + i * stride, 456, apart.row(i));
      for (const bool of_images : {true, false}) {
        Matrix windows = image.matrix();
        windows.rows = rows;
        windows.stride = stride;
        const Options options{.product = kWgmma};
        const Result result = of_images ? run(windows, text.matrix(), options) : run(text.matrix(), windows, options),
                     same = of_images ? run(apart.matrix(), text.matrix(), options)
                                      : run(text.matrix(), apart.matrix(), options);
        for (size_t i = 0; i < same.confidence.size(); ++i) {
          CHECK_EQUAL(result.confidence[i], same.confidence[i], i, ' ', stride);
          CHECK_EQUAL(result.prediction[i], same.prediction[i], i, ' ', stride);
        }
      }
    }
}

// More classes than logits are stored of: a row is one block's, whatever the batch.
TEST(warpgroups_similarity_of_many_classes_with_weights) {
  const int64_t classes = pyfastcal::cuda::similarity_confidence::kMostScored + 1;
  const Features<__nv_bfloat16> image(3, 456, 1), text(classes, 456, 2);
  for (const int distinct : {2, 50}) {
    const DeviceArray<float> weights = some_weights(int(classes), distinct);
    check_against_definition(image, text, with_weights(weights));
  }
}
