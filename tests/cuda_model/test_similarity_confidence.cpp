// similarity_confidence: against the definition in fp64, at the tails of all sizes, on every way through the kernel. In
// one file, though a long one: another would be a program of its own, which compiles all of the kernel under each
// sanitizer.
#include "similarity_confidence.h"

using namespace pyfastcal;

TEST(similarity_of_tails) {
  for (const auto& [n, c, d] :
       {std::array{1, 1, 1}, {3, 2, 7}, {65, 63, 8}, {130, 65, 64}, {5, 257, 72}, {2, 300, 130}}) {
    check_against_definition(Features<__nv_bfloat16>(n, d, 1), Features<__nv_bfloat16>(c, d, 2), {});
    check_against_definition(Features<__half>(n, d, 3), Features<__half>(c, d, 4), {});
  }
}

TEST(similarity_of_fp32_and_of_mixed_types) {
  for (const auto& [n, c, d] : {std::array{1, 1, 1}, {66, 5, 9}, {4, 260, 70}})
    check_against_definition(Features<float>(n, d, 1), Features<float>(c, d, 2), {}, 3e-7);
  check_against_definition(Features<__half>(3, 24, 1), Features<__nv_bfloat16>(5, 24, 2), {}, 3e-7);
  check_against_definition(Features<float>(3, 24, 1), Features<__half>(5, 24, 2), {}, 3e-7);
}

// Rows that a block keeps between tiles, several row tiles to a block, and devices with less shared memory.
TEST(similarity_of_kept_rows) {
  cuda_model::settings.multiprocessors = 1;
  for (const size_t shared : {227, 163, 99}) {
    cuda_model::settings.shared_per_block = shared * 1024;
    cuda_model::settings.device = shared == 227 ? 0 : shared == 163 ? 1 : 2;
    check_against_definition(Features<__nv_bfloat16>(shared == 227 ? 130 : 3, 200, 1),
                             Features<__nv_bfloat16>(260, 200, 2), {});
  }
}

TEST(similarity_finds_the_distinct_weights) {
  for (const int classes : {1, 3, 255, 256, 1000})
    for (const int distinct : {1, 2, 3, 4, 5, 9}) {
      const DeviceArray<float> weights = some_weights(classes, distinct);
      DeviceArray<cuda::similarity_confidence::Weights> found(1);
      CHECK(PYFASTCAL_LAUNCH(cuda::similarity_confidence::find_weights, 1, cuda::similarity_confidence::kWeightThreads,
                             0, nullptr, weights.data(), classes, found.data()) == cudaSuccess);
      const int expected = std::min(distinct, classes);
      CHECK_EQUAL(std::min(found[0].count, 5), std::min(expected, 5), classes, ' ', distinct);
      for (int w = 0; w < std::min(found[0].count, 4); ++w) {
        CHECK(std::find(weights.begin(), weights.end(), found[0].value[w]) != weights.end());
        for (int v = 0; v < w; ++v) CHECK(found[0].value[v] != found[0].value[w]);
      }
    }
}

// The ways through the kernel: up to four distinct class weights, or more; the tiles of a row by one block, or by two.
TEST(similarity_with_class_weights) {
  const Features<__nv_bfloat16> image(70, 16, 1), text(270, 16, 2);
  const Features<__half> half_image(70, 16, 1), half_text(270, 16, 2);
  for (const int multiprocessors : {1, 2})
    for (const int distinct : {1, 2, 4, 5, 100}) {
      cuda_model::settings.multiprocessors = multiprocessors;
      const DeviceArray<float> weights = some_weights(270, distinct);
      Options options;
      options.factors.class_weight = weights.data();
      check_against_definition(image, text, options);
      if (distinct > 3) check_against_definition(half_image, half_text, options);
    }
  for (const int classes : {1, 4, 5}) {
    const DeviceArray<float> weights = some_weights(classes, classes);
    Options options;
    options.factors.class_weight = weights.data();
    check_against_definition(image, Features<__nv_bfloat16>(classes, 16, 3), options);
  }
}

// Blocks with more tiles than others, and the last one's of a batch.
TEST(similarity_of_rows_shared_by_blocks) {
  const Features<__nv_bfloat16> image(130, 8, 1), text(1290, 8, 2);
  const DeviceArray<float> weights = some_weights(1290, 3);
  cuda_model::settings.multiprocessors = 9;
  const uint64_t before = cuda_model::counters.launches;
  check_against_definition(image, text, {20, nullptr, {weights.data(), nullptr}, true});
  CHECK_EQUAL(cuda_model::counters.launches - before, 4u);  // classes, weights, product, merging
}

TEST(similarity_with_more_classes_than_are_stored) {
  const int classes = cuda::similarity_confidence::kMostScored + 1;
  Features<__nv_bfloat16> image(3, 8, 1), text(classes, 8, 2);
  std::copy_n(text.row(classes - 1), 8, image.row(2));
  for (const int distinct : {4, 200}) {
    const DeviceArray<float> weights = some_weights(classes, distinct);
    Options options;
    options.factors.class_weight = weights.data();
    check_against_definition(image, text, options);
    CHECK_EQUAL(run(image.matrix(), text.matrix(), options).prediction[2], classes - 1);
  }
}

TEST(similarity_with_everything) {
  const Features<__nv_bfloat16> image(67, 40, 1), text(261, 40, 2);
  const Features<__half> half_image(67, 40, 1), half_text(261, 40, 2);
  const DeviceArray<float> bias(testing::random_normal(261, 3, 2)), few = some_weights(261, 3),
                                                                    many = some_weights(261, 60);
  DeviceArray<float> sample_weight(size_t(67));
  for (size_t i = 0; i < 67; ++i) sample_weight[i] = 0.5f + 0.01f * float(i);
  for (const bool normalize : {true, false})
    for (const float* const class_weight : {static_cast<const float*>(nullptr), few.data(), many.data()})
      for (const float* const b : {static_cast<const float*>(nullptr), bias.data()}) {
        cuda_model::settings.multiprocessors = normalize == (b != nullptr) ? 1 : 2;
        const Options options{normalize ? 20.0f : 0.5f, b, {class_weight, sample_weight.data()}, normalize};
        check_against_definition(image, text, options);
        if (b) check_against_definition(half_image, half_text, options);
      }
}

TEST(similarity_with_a_huge_scale) {
  const Features<__nv_bfloat16> image(4, 64, 1), text(70, 64, 2);
  const DeviceArray<float> weights = some_weights(70, 3);
  check_against_definition(image, text, {1e4f, nullptr, {weights.data(), nullptr}, true});
}

// Equal classes in one lane and in another, in one warp's part of a tile and in another, in one tile and in another.
TEST(similarity_of_equal_classes_predicts_the_first) {
  const Features<__nv_bfloat16> image(70, 24, 1);
  for (const auto& [first, other] :
       {std::array{3, 2}, {11, 3}, {70, 12}, {250, 194}, {265, 140}, {131, 64}, {258, 2}}) {
    for (const int distinct : {1, 4, 50}) {
      cuda_model::settings.multiprocessors = 1 + distinct % 2;
      const DeviceArray<float> weights = some_weights(300, distinct);
      Features<__nv_bfloat16> tied(300, 24, 2);
      std::copy_n(image.data.data() + 65 * 24, 24, tied.row(first));
      std::copy_n(image.data.data() + 65 * 24, 24, tied.row(other));
      Options options;
      options.factors.class_weight = weights.data();
      CHECK_EQUAL(run(image.matrix(), tied.matrix(), options).prediction[65], other, first);
    }
  }
}

TEST(similarity_of_no_direction) {
  Features<__nv_bfloat16> image(3, 16, 1), text(5, 16, 2);
  image.scale(1, 0);
  const Result result = run(image.matrix(), text.matrix(), {});
  CHECK_EQUAL(result.prediction[1], 0);
  CHECK_EQUAL(result.confidence[1], 0.2f);
}

TEST(similarity_of_one_class_is_certain) {
  const Result result = run(Features<float>(70, 3, 1).matrix(), Features<float>(1, 3, 2).matrix(), {});
  for (size_t i = 0; i < 70; ++i) {
    CHECK_EQUAL(result.confidence[i], 1.0f);
    CHECK_EQUAL(result.prediction[i], 0);
  }
}

// The length of a row does not matter, as long as it counts as one.
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
static void check_not_finite(float bad, bool normalize, bool biased, int distinct, int classes = 70) {
  const DeviceArray<float> weights = some_weights(classes, distinct), bias(std::vector<float>(size_t(classes), 1.0f));
  check_not_finite(bad, Features<T>(66, 20, 1), Features<T>(classes, 20, 2),
                   {1, biased ? bias.data() : nullptr, {weights.data(), nullptr}, normalize});
}
TEST(similarity_not_finite) {
  for (const bool biased : {true, false})
    for (const int distinct : {1, 50}) {
      check_not_finite<__nv_bfloat16>(kNaN, true, biased, distinct);
      check_not_finite<__nv_bfloat16>(distinct > 1 ? kInfinity : -kInfinity, false, biased, distinct);
    }
  check_not_finite<__nv_bfloat16>(kInfinity, true, false, 1, 262);
  check_not_finite<__nv_bfloat16>(kNaN, false, true, 50, 262);
  check_not_finite<float>(kNaN, true, false, 1);
  check_not_finite<float>(kInfinity, false, true, 50);
  check_not_finite<__half>(-kInfinity, true, false, 1);
}

// Neither the batch, nor where the rows lie in memory, nor the number of multiprocessors changes a bit of a row.
TEST(similarity_of_a_row_does_not_depend_on_its_batch) {
  const Features<__nv_bfloat16> image(300, 72, 1), text(270, 72, 2);
  for (const int distinct : {3, 40}) {
    const DeviceArray<float> weights = some_weights(270, distinct);
    Options options;
    options.factors.class_weight = weights.data();
    const Result whole = run(image.matrix(), text.matrix(), options);
    for (const std::array<int, 4>& part :
         {std::array{171, 129, 0, 0}, {3, 5, 1, 0}, {250, 2, 0, 8}, {64, 3, 8, 3}, {7, 1, 0, 1}}) {
      cuda_model::settings.multiprocessors = 1 + part[1] % 3;
      check_same_rows(whole, image, part, text.matrix(), options);
    }
  }
}

// fp32 features give what fp32 arithmetic gives: the error of the logits is not above that of a plain fp32 product by
// more than a small factor.
TEST(similarity_of_fp32_is_as_exact_as_fp32) {
  const int n = 4, c = 6, d = 512;
  Features<float> image(n, d, 1), text(c, d, 2);
  for (int64_t i = 0; i < n; ++i)  // half of the way towards a class, so that sums are large
    for (int64_t k = 0; k < d; ++k) image.row(i)[k] = 0.3f * image.row(i)[k] + text.row(i)[k];
  const float scale = 3;
  const Result result = run(image.matrix(), text.matrix(), {scale, nullptr, {}, true});
  double ours = 0, plain = 0;
  for (int64_t i = 0; i < n; ++i) {
    double exact_sum = 0, plain_sum = 0;
    std::vector<double> exact;
    std::vector<float> in_float;
    for (int64_t j = 0; j < c; ++j) {
      double dot = 0;
      float sum = 0;
      for (int64_t k = 0; k < d; ++k) {
        dot += image.at(i, k) * text.at(j, k);
        sum += float(image.at(i, k) / image.norm(i)) * float(text.at(j, k) / text.norm(j));
      }
      exact.push_back(dot / image.norm(i) / text.norm(j) * double(scale));
      in_float.push_back(sum * scale);
    }
    const size_t best = size_t(result.prediction[size_t(i)]);
    for (size_t j = 0; j < c; ++j) {
      exact_sum += std::exp(exact[j] - exact[best]);
      plain_sum += std::exp(double(in_float[j]) - double(in_float[best]));
    }
    ours = std::max(ours, std::fabs(double(result.confidence[size_t(i)]) - 1 / exact_sum));
    plain = std::max(plain, std::fabs(1 / plain_sum - 1 / exact_sum));
  }
  CHECK_NEAR(ours, 0, 2 * plain + 4 * 0x1p-23 * double(scale));  // the budget of the ops' tests
}

TEST(similarity_with_the_largest_scale) { check_the_largest_scale(16, cuda::ProductChoice::kAuto); }
