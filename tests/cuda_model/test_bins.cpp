// bins: exactly what the definition says, at every border of the dispatch, and the CPU half's bits.
#include <limits>

#include "cpu/kernels.h"
#include "cuda/samples/bins.cuh"
#include "dtypes.h"
#include "testing.h"

using namespace pyfastcal;

static constexpr double kInfinity = std::numeric_limits<double>::infinity();
static constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Samples {
  std::vector<double> confidence;
  std::vector<bool> correct;
  std::vector<int64_t> group;
};

static Samples random_samples(size_t n, uint32_t seed, int64_t n_groups = 1) {
  std::mt19937 generator(seed);
  Samples s;
  for (size_t i = 0; i < n; ++i) {
    s.confidence.push_back(double(generator() >> 8) * 0x1p-24);
    s.correct.push_back(generator() % 3 != 0);
    if (n_groups > 1) s.group.push_back(int64_t(generator() % uint32_t(n_groups)));
  }
  return s;
}

// The same over and over, n in all: enough for whole tiles, whose samples are not searched for.
static Samples repeated(const Samples& s, size_t n) {
  Samples out;
  for (size_t i = 0; i < n; ++i) {
    out.confidence.push_back(s.confidence[i % s.confidence.size()]);
    out.correct.push_back(s.correct[i % s.correct.size()]);
  }
  return out;
}

struct Options {
  int64_t n_bins = 10, n_groups = 1;
  bool closed_right = false;
  std::vector<float> edges = {};  // none: equal widths
  size_t offset = 0;              // of the data from where vectors may be loaded
};

// (3, groups, bins) and the number of invalid samples, as the definition has it.
template <class T>
static std::vector<int64_t> exact(const Samples& s, const Options& o) {
  std::vector<float> edges = o.edges;
  if (edges.empty())
    for (int64_t i = 0; i <= o.n_bins; ++i) edges.push_back(float(double(i) / double(o.n_bins)));
  const size_t cells = size_t(o.n_bins * o.n_groups);
  std::vector<int64_t> out(3 * cells + 1);
  const auto inside = edges.begin() + 1;
  for (size_t i = 0; i < s.confidence.size(); ++i) {
    double x = double(T(s.confidence[i]));
    if (x > 1 && x <= 1 + 0x1p-23) x = 1;
    const int64_t g = s.group.empty() ? 0 : s.group[i];
    if (!(x >= 0 && x <= 1) || g < 0 || g >= o.n_groups) {
      ++out.back();
      continue;
    }
    const int64_t bin = std::count_if(inside, inside + (o.n_bins - 1), [&](float edge) {
      return o.closed_right ? double(edge) < x : double(edge) <= x;
    });
    const size_t cell = size_t(g * o.n_bins + bin);
    out[cell] += 1;
    out[cells + cell] += s.correct[i];
    out[2 * cells + cell] += int64_t(std::nearbyint(x * 0x1p32));
  }
  return out;
}

template <class T>
static std::vector<int64_t> run(const Samples& s, const Options& o) {
  const DeviceArray<T> confidence(s.confidence, o.offset);
  const DeviceArray<bool> correct(s.correct, o.offset);
  const DeviceArray<int64_t> group(s.group, o.offset);
  const DeviceArray<float> edges(o.edges);
  const Bins bins{o.edges.empty() ? nullptr : edges.data(), o.n_bins, o.n_groups, o.closed_right};
  const size_t size = size_t(3 * o.n_bins * o.n_groups);
  DeviceArray<int64_t> totals(size), invalid(1);
  DeviceArray<char> workspace(size_t(cuda::bins_workspace(bins)));
  const uint64_t before = cuda_model::counters.launches;
  CHECK(cuda::launch_bins(confidence.data(), kDtype<T>, correct.data(), s.group.empty() ? nullptr : group.data(),
                          int64_t(s.confidence.size()), bins, totals.data(), invalid.data(), workspace.data(),
                          nullptr) == cudaSuccess);
  const uint64_t launches = cuda_model::counters.launches - before;
  CHECK(launches == 1 || (launches == 2 && (s.confidence.size() > 2048 || o.n_bins * o.n_groups > 300)));
  record(totals);
  record(invalid);
  std::vector<int64_t> out(totals.begin(), totals.end());
  out.push_back(invalid[0]);
  return out;
}

template <class T>
static void check(const Samples& s, const Options& o) {
  const std::vector<int64_t> got = run<T>(s, o), expected = exact<T>(s, o);
  for (size_t i = 0; i < got.size(); ++i)
    CHECK_EQUAL(got[i], expected[i], "entry ", i, " of ", o.n_groups, " groups of ", o.n_bins, " bins, ",
                s.confidence.size(), " samples");
}

// Around one tile, around the four that one block does alone, and more than one tile for each block.
template <class T>
static void check_sizes() {
  for (const size_t n : {0, 1, 5, 511, 4095, 4096, 4097, 16384, 16385, 40000})
    for (const size_t offset : {0, 1}) check<T>(random_samples(n, uint32_t(n)), {.offset = offset});
}

TEST(bins_float) { check_sizes<float>(); }
TEST(bins_half) { check_sizes<__half>(); }
TEST(bins_bfloat16) { check_sizes<__nv_bfloat16>(); }
TEST(bins_double) { check_sizes<double>(); }

// Four tiles are one block's, which needs nothing cleared.
TEST(bins_of_small_batches_take_one_launch) {
  const auto launches = [](size_t n) {
    const uint64_t before = cuda_model::counters.launches;
    run<float>(random_samples(n, 12), {});
    return cuda_model::counters.launches - before;
  };
  CHECK_EQUAL(launches(256), 1u);
  CHECK_EQUAL(launches(16384), 1u);
  CHECK_EQUAL(launches(16385), 2u);
}

// Where fewer threads fit, then only the totals in global memory, then not even the edges in shared memory.
TEST(bins_of_many_cells) {
  for (const int64_t n_bins : {1, 2, 15, 24, 25, 31, 64, 96, 97, 192, 193, 320, 321, 1000, 4095, 4096, 5000})
    for (const bool closed_right : {false, true})
      check<float>(random_samples(3000, uint32_t(n_bins)), {.n_bins = n_bins, .closed_right = closed_right});
}

TEST(bins_of_groups) {
  for (const int64_t n_groups : {2, 3, 10, 32, 33, 500})
    for (const size_t offset : {0, 1}) {
      const Samples s = random_samples(9000, uint32_t(n_groups), n_groups);
      check<float>(s, {.n_groups = n_groups, .offset = offset});
      check<__nv_bfloat16>(s, {.n_bins = 3, .n_groups = n_groups, .offset = offset});
      check<double>(s, {.n_bins = 7, .n_groups = n_groups, .offset = offset});
    }
}

// What a call asks for leaves the next one room: blocks that are counted first, for little, then one that takes more.
TEST(bins_after_fewer_bins) {
  cuda_model::settings.device = 1 + int(cuda_model::settings.schedule);
  check<float>(random_samples(70000, 13), {.n_bins = 1});
  check<float>(random_samples(500, 14), {.n_bins = 10});
  check<float>(random_samples(70000, 15), {.n_bins = 320});
  check<float>(random_samples(500, 16), {.n_bins = 300});
}

TEST(bins_edges_and_their_neighbours) {
  for (const int64_t n_bins : {1, 2, 3, 7, 10, 15, 16, 17, 32, 33, 64, 100, 128, 129, 333}) {
    Samples s;
    for (int64_t i = 0; i <= n_bins; ++i) {
      const float edge = float(double(i) / double(n_bins));
      for (const float x : {edge, std::nextafter(edge, 0.0f), std::nextafter(edge, 1.0f)}) s.confidence.push_back(x);
    }
    for (const double x : {-0.0, 1e-45, 0x1p-33, 3 * 0x1p-33, 0.5, 0x1p-34}) s.confidence.push_back(x);
    for (int k = 0; k <= 32; ++k) s.confidence.push_back(k / 32.0);
    s.correct.assign(s.confidence.size(), true);
    for (const bool closed_right : {false, true}) {
      check<float>(s, {.n_bins = n_bins, .closed_right = closed_right});
      check<double>(s, {.n_bins = n_bins, .closed_right = closed_right});
      check<float>(repeated(s, 4500), {.n_bins = n_bins, .closed_right = closed_right});
    }
  }
}

// Edges that coincide, crowd, or lie outside [0, 1].
TEST(bins_of_any_edges) {
  std::vector<std::vector<float>> all = {
      {0.0f, 1.0f},
      {0.0f, 0.0f, 1.0f, 1.0f},
      {0.25f, 0.5f, 0.5f, 0.5f, 0.75f},
      {-1.0f, -0.5f, 0.3f, 0.9f, 1.0f, 2.0f, 3.0f},
      {0.0f, -0.0f, 0.0f, 0.0f},
      {0.5f, 1.0f, 1.0f, 1.0f},
      {0.0f, 0.25f, 1.0f, 1.0f},
      {0.0f, 0.0f, 0.0625f, 0.5f, 1.0f},
      {0.0f, 0.5f, 0.53f, 1.0f},
  };
  std::vector<float> crowded = {0};
  for (int i = 0; i < 100; ++i) crowded.push_back(0.7f + float(i) * 0x1p-20f);
  all.push_back(crowded);
  Samples s = random_samples(800, 4);
  for (size_t i = 0; i < 300; ++i) s.confidence[i] = 0.7f + float(i % 110) * 0x1p-20f;
  for (size_t i = 0; i < 40; ++i) s.confidence[i] = double(i % 5) / 4;
  for (const std::vector<float>& edges : all)
    for (const bool closed_right : {false, true}) {
      const Options o{.n_bins = int64_t(edges.size()) - 1, .closed_right = closed_right, .edges = edges};
      check<float>(s, o);
      check<double>(s, o);
      check<__half>(s, o);
      check<float>(repeated(s, 4500), o);
      check<__half>(repeated(s, 4500), o);
    }
  std::vector<float> many;
  for (int i = 0; i <= 5000; ++i) many.push_back(float(std::sqrt(i / 5000.0)));
  check<float>(s, {.n_bins = 5000, .edges = many});
}

// Fields of a packed word at their fullest, emptied in time: one block, so that its threads see thousands of samples.
TEST(bins_that_take_everything) {
  cuda_model::settings.multiprocessors = 1;
  for (const int64_t n_bins : {150, 200}) {  // one warp's histograms, more than one flush
    Samples s;
    s.confidence.assign(140000, 1.0);
    s.correct.assign(140000, true);
    check<__nv_bfloat16>(s, {.n_bins = n_bins});
  }
  Samples s = random_samples(70000, 8);
  check<float>(s, {.n_bins = 160});
  check<float>(s, {.n_bins = 96});                                           // two warps
  for (size_t i = 0; i < 70000; ++i) s.group.push_back(int64_t(i / 20000));  // long runs in the totals' cells
  check<float>(s, {.n_bins = 200, .n_groups = 4});
  for (double& x : s.confidence) x = 1;
  std::fill(s.group.begin(), s.group.end(), 3);
  for (size_t repeat = 0; repeat < 2; ++repeat) {
    s.confidence.insert(s.confidence.end(), s.confidence.begin(), s.confidence.end());
    s.correct.insert(s.correct.end(), s.correct.begin(), s.correct.end());
    s.group.insert(s.group.end(), s.group.begin(), s.group.end());
  }
  check<float>(s, {.n_bins = 200, .n_groups = 4});
}

TEST(bins_leave_out_what_is_invalid) {
  for (const size_t n : {300, 30000})
    for (const int64_t n_bins : {10, 400}) {
      Samples s = random_samples(n, 9, 3);
      size_t i = 0;
      for (const double x : {kNaN, kInfinity, -kInfinity, -1e-7, 1 + 0x1p-22, 2.0, -1.0}) s.confidence[i += 7] = x;
      for (const int64_t g : {int64_t(-1), int64_t(3), int64_t(1) << 40, std::numeric_limits<int64_t>::min()})
        s.group[i += 7] = g;
      check<float>(s, {.n_bins = n_bins, .n_groups = 3});
      check<double>(s, {.n_bins = n_bins, .n_groups = 3});
      check<float>(s, {.n_bins = n_bins, .n_groups = 3, .offset = 1});
      s.group.clear();
      check<float>(s, {.n_bins = n_bins});
      check<__half>(s, {.n_bins = n_bins});
    }
}

// A step of fp32 above 1 counts as 1, also where an edge lies between.
TEST(bins_of_what_a_softmax_rounds_to) {
  for (const size_t n : {300, 30000}) {
    Samples s = random_samples(n, 9);
    for (size_t i = 0; i < n; i += 11) s.confidence[i] = i % 2 ? 1 : 1 + 0x1p-23;
    for (const bool closed_right : {false, true}) {
      check<float>(s, {.closed_right = closed_right});
      check<double>(s, {.closed_right = closed_right});
      check<float>(s, {.n_bins = 400, .closed_right = closed_right});
      check<float>(s, {.n_bins = 3, .closed_right = closed_right, .edges = {0, 0.5f, 1, 1}});
    }
  }
}

TEST(bins_do_not_depend_on_the_grid) {
  const Samples s = random_samples(30000, 10, 5);
  for (const int64_t n_bins : {10, 100}) {
    const std::vector<int64_t> expected = run<float>(s, {.n_bins = n_bins, .n_groups = 5});
    for (const int multiprocessors : {1, 3, 50}) {
      cuda_model::settings.multiprocessors = multiprocessors;
      CHECK(run<float>(s, {.n_bins = n_bins, .n_groups = 5}) == expected);
    }
  }
}

TEST(bins_have_the_bits_of_the_cpu_half) {
  const size_t n = 20000;
  const Samples s = random_samples(n, 11);
  for (const int64_t n_bins : {10, 15, 300}) {
    std::vector<float> edges, confidence(s.confidence.begin(), s.confidence.end());
    for (int64_t i = 0; i <= n_bins; ++i) edges.push_back(uniform_edge(i, n_bins));
    const DeviceArray<bool> correct(s.correct);
    std::vector<int64_t> expected(size_t(3 * n_bins + 1));
    kScalarKernels.bin_counts(confidence.data(), Dtype::kFloat, correct.data(), nullptr, int64_t(n),
                              {edges.data(), n_bins, 1, true}, expected.data(), &expected.back());
    CHECK(run<float>(s, {.n_bins = n_bins, .closed_right = true}) == expected);
  }
}

TEST(bins_refuse_more_cells_than_an_int_counts) {
  int64_t totals = 0;
  CHECK(cuda::launch_bins(nullptr, Dtype::kFloat, nullptr, nullptr, 1, {nullptr, 1 << 16, 1 << 15, false}, &totals,
                          &totals, nullptr, nullptr) == cudaErrorInvalidValue);
}
