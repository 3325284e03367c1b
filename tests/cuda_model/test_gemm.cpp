// The matrix product: every element of every tile against exact sums, at the tails of all three sizes.
#include "cuda/product/gemm.cuh"
#include "cuda/runtime/launch.cuh"
#include "testing.h"

using namespace pyfastcal::cuda;

namespace {

template <class T>
struct Arguments {
  Product<T> product;
  Slots slots;
  int col_tiles;
  float* out;
};

// All tiles of a block: its row tiles, each with all column tiles.
template <class T>
struct AllTiles {
  const Arguments<T>& a;
  int size() const {
    const int row_tiles = int((a.product.a.rows + kTileRows - 1) / kTileRows);
    return (row_tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x) * a.col_tiles;
  }
  Tile<T> operator[](int i) const {
    return {&a.product, (int64_t(i / a.col_tiles) * gridDim.x + blockIdx.x) * kTileRows,
            int64_t(i % a.col_tiles) * kTileCols};
  }
};

template <class T>
__global__ void multiply_all(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  const AllTiles<T> tiles{a};
  const Operand<T>&rows = a.product.a, &cols = a.product.b;
  multiply_tiles<T>(tiles, a.slots, shared, [&](int i, const Accumulators& acc) {
    const Tile<T> tile = tiles[i];
    for_each(acc, [&](int r, int c, float x) {
      if (tile.row + r < rows.rows && tile.col + c < cols.rows) {
        a.out[(tile.row + r) * cols.rows + tile.col + c] = x;
      } else {
        CHECK_EQUAL(x, 0.0f, r, ' ', c);
      }
    });
  });
}

// Small integers: any sum of products is exact.
template <class T>
DeviceArray<T> random_integers(size_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  DeviceArray<T> values(n);
  for (T& x : values) x = T(float(int(generator() % 9) - 4));
  return values;
}

struct Size {
  int rows, cols, depth, grid;
};

// pairs: 1, or kSplitPairs of three terms each
template <class T>
void check_product(const Size& s, Slots slots, int pairs = 1) {
  const int width = (s.depth + 7) / 8 * 8, terms = pairs == 1 ? 1 : 3;
  const int stride_a = width * terms, stride_b = width * terms + 8;
  DeviceArray<T> a = random_integers<T>(size_t(s.rows * stride_a), 1),
                 b = random_integers<T>(size_t(s.cols * stride_b), 2);
  for (int t = 0; t < terms; ++t)  // rows hold zeros behind the last column
    for (int k = s.depth; k < width; ++k) {
      for (int i = 0; i < s.rows; ++i) a[size_t(i * stride_a + t * width + k)] = T(0.0f);
      for (int j = 0; j < s.cols; ++j) b[size_t(j * stride_b + t * width + k)] = T(0.0f);
    }
  DeviceArray<float> out(size_t(s.rows) * size_t(s.cols));
  const Arguments<T> arguments{
      {{a.data(), s.rows, stride_a, width}, {b.data(), s.cols, stride_b, width}, s.depth, pairs},
      slots,
      (s.cols + kTileCols - 1) / kTileCols,
      out.data()};
  cuda_model::counters = {};
  CHECK(PYFASTCAL_LAUNCH(multiply_all<T>, dim3(unsigned(s.grid)), dim3(kProductThreads), slots.bytes(), nullptr,
                         arguments) == cudaSuccess);
  CHECK_EQUAL(cuda_model::counters.matrix_load_conflicts, 0u);
  for (int i = 0; i < s.rows; ++i)
    for (int j = 0; j < s.cols; ++j) {
      float exact = 0;
      for (int of_a = 0; of_a < terms; ++of_a)
        for (int of_b = 0; of_a + of_b < terms; ++of_b)  // what matters in fp32
          for (int k = 0; k < s.depth; ++k)
            exact +=
                float(a[size_t(i * stride_a + of_a * width + k)]) * float(b[size_t(j * stride_b + of_b * width + k)]);
      CHECK_EQUAL(out[size_t(i * s.cols + j)], exact, i, ' ', j);
    }
  record(out);
}

}  // namespace

TEST(gemm_of_tails) {
  for (const Size& s : {Size{1, 1, 1, 1}, Size{65, 17, 64, 1}, Size{129, 65, 72, 2}, Size{3, 257, 9, 1},
                        Size{64, 64, 130, 1}, Size{300, 5, 15, 2}})
    for (int ring : {2, 3, 4}) check_product<__nv_bfloat16>(s, {ring, ring});
  check_product<__half>({70, 70, 70, 1}, {3, 3});
}

TEST(gemm_of_terms) {
  for (const Size& s : {Size{3, 70, 20, 1}, Size{130, 5, 72, 1}}) check_product<__nv_bfloat16>(s, {3, 3}, kSplitPairs);
}

TEST(gemm_of_kept_rows) {
  check_product<__nv_bfloat16>({260, 300, 200, 2}, {3, 4});
  check_product<__nv_bfloat16>({5, 600, 300, 1}, {4, 5});
}

TEST(gemm_slots) {
  const auto choose = [](int columns, bool share_rows, size_t kibibytes) {
    const Slots slots = choose_slots((columns + kChunk - 1) / kChunk, share_rows, kibibytes * 1024);
    CHECK(slots.ring < 2 || slots.bytes() <= kibibytes * 1024);
    return std::pair(slots.ring, slots.rows);
  };
  CHECK(choose(512, true, 225) == std::pair(3, 8));  // all columns of a tile's rows
  CHECK(choose(320, true, 225) == std::pair(4, 5));
  CHECK(choose(256, true, 225) == std::pair(3, 4));
  CHECK(choose(192, true, 225) == std::pair(4, 4));  // too few for that: the ring would overtake itself
  CHECK(choose(576, true, 225) == std::pair(4, 4));
  CHECK(choose(512, false, 225) == std::pair(4, 4));
  CHECK(choose(512, true, 161) == std::pair(3, 3));
  CHECK(choose(512, true, 96) == std::pair(2, 2));
  CHECK(choose(512, true, 95).first < 2);
}
