// The product by warpgroups: every element of every tile against exact sums, as an epilogue gets them, part by part.
#include "cuda/product/warpgroups/choice.cuh"
#include "cuda/product/warpgroups/product.cuh"
#include "testing.h"

using namespace pyfastcal::cuda;
using warpgroups::kParts;
using warpgroups::Shared;

namespace {

// Of a column: its number, and its square.
struct alignas(8) Fact {
  int number, square;
};

struct Arguments {
  prim::TensorMap a, b;
  const Fact* facts;  // of all tiles' columns
  int rows, cols, depth, row_tiles, col_tiles;
  float* out;
};

// The tiles of a block: its row tiles, each with all column tiles.
struct AllTiles {
  using Fact = ::Fact;
  const Arguments& a;
  int size() const { return (a.row_tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x) * a.col_tiles; }
  bool begins_rows(int i) const { return i % a.col_tiles == 0; }
  bool ends_rows(int i) const { return (i + 1) % a.col_tiles == 0; }
  warpgroups::Tile operator[](int i) const {
    const int col = i % a.col_tiles * warpgroups::kCols;
    return {&a.a, &a.b, (i / a.col_tiles * int(gridDim.x) + int(blockIdx.x)) * kTileRows, col, a.facts + col};
  }
};

// Writes eight of a thread's elements in each part, which must come one after the other.
class WritingEpilogue {
 public:
  using Place = warpgroups::Place;
  WritingEpilogue(const Arguments& a, const AllTiles& tiles, const Shared& shared)
      : a_(a), tiles_(tiles), shared_(shared) {}

  void begin(int i) {
    CHECK_EQUAL(next_, kParts);
    CHECK_EQUAL(i, tile_ + 1);
    tile_ = i;
    next_ = 0;
  }
  template <int p>
  void part(Place::Accumulators& acc) {
    CHECK_EQUAL(p, next_);
    next_ = p + 1;
    const warpgroups::Tile tile = tiles_[tile_];
    for (int j = 8 * p; j < 8 * (p + 1); ++j) {
      const int n = j / 4, half = j / 2 % 2, e = j % 2;
      const int row = tile.row + Place::row(0, half), col = tile.col + Place::col(n, e);
      float& x = acc[0][n][2 * half + e];
      if (row < a_.rows && col < a_.cols) {
        a_.out[size_t(row) * size_t(a_.cols) + size_t(col)] = x;
      } else {
        CHECK_EQUAL(x, 0.0f, row, ' ', col);
      }
      x = 1e9f;  // an epilogue may leave there what it likes
      const Fact& fact = shared_.facts<Fact>(tile_)[Place::col(n, e)];
      CHECK_EQUAL(fact.number, col);
      CHECK_EQUAL(fact.square, col * col);
    }
  }
  void end(int tiles) const {
    CHECK_EQUAL(tile_ + 1, tiles);
    CHECK_EQUAL(next_, kParts);
  }

 private:
  const Arguments& a_;
  const AllTiles& tiles_;
  const Shared& shared_;
  int tile_ = -1, next_ = kParts;
};
static_assert(4 * warpgroups::Place::kColBlocks == 8 * kParts);

template <class T>
__global__ void multiply_all(const __grid_constant__ Arguments a) {
  PYFASTCAL_SHARED(unsigned char, base);
  const Shared shared(base);
  if (threadIdx.x == 0) {
    shared.init();
    prim::publish_barriers();
  }
  __syncthreads();
  const AllTiles tiles{a};
  share_out<T>(
      tiles, shared, a.depth, [&] { return WritingEpilogue(a, tiles, shared); },
      [&](const WritingEpilogue& epilogue) { epilogue.end(tiles.size()); });
}

// Rows of small integers, any sum of whose products is exact, as the kernel gets them and as floats; behind the last
// column lies what must not be read.
template <class T>
struct Integers {
  int rows, cols, stride;
  DeviceArray<T> data;
  std::vector<float> number;
  Integers(int rows, int cols, int padding, uint32_t seed)
      : rows(rows),
        cols(cols),
        stride((cols + 7) / 8 * 8 + padding),
        data(size_t(rows * stride)),
        number(size_t(rows * cols)) {
    std::mt19937 generator(seed);
    for (int i = 0; i < rows; ++i)
      for (int k = 0; k < cols; ++k) {
        const float x = float(int(generator() % 9) - 4);
        data[size_t(i * stride + k)] = T(x);
        number[size_t(i * cols + k)] = x;
      }
  }
  const float* row(int i) const { return number.data() + i * cols; }
  prim::TensorMap map() const {
    prim::TensorMap map;
    CHECK(warpgroups::make_map(&map, Operand<T>{data.data(), rows, stride, 0}, cols) == cudaSuccess);
    return map;
  }
};

struct Size {
  int rows, cols, depth, grid;
};

template <class T>
void check_product(const Size& s) {
  const Integers<T> a(s.rows, s.depth, 0, 1), b(s.cols, s.depth, 8, 2);
  DeviceArray<float> out(size_t(s.rows) * size_t(s.cols));
  DeviceArray<Fact> facts(size_t((s.cols + warpgroups::kCols - 1) / warpgroups::kCols * warpgroups::kCols));
  for (int i = 0; i < int(facts.size()); ++i) facts[size_t(i)] = {i, i * i};
  const Arguments arguments{a.map(),
                            b.map(),
                            facts.data(),
                            s.rows,
                            s.cols,
                            s.depth,
                            (s.rows + kTileRows - 1) / kTileRows,
                            (s.cols + warpgroups::kCols - 1) / warpgroups::kCols,
                            out.data()};
  CHECK(PYFASTCAL_LAUNCH(multiply_all<T>, dim3(unsigned(s.grid)), warpgroups::kThreads, Shared::kBytes<Fact>, nullptr,
                         arguments) == cudaSuccess);
  for (int i = 0; i < s.rows; ++i)
    for (int j = 0; j < s.cols; ++j) {
      const float *x = a.row(i), *y = b.row(j);
      float exact = 0;
      for (int k = 0; k < s.depth; ++k) exact += x[k] * y[k];
      CHECK_EQUAL(out[size_t(i * s.cols + j)], exact, i, ' ', j, " of ", s.depth);
    }
  record(out);
}

}  // namespace

// A tile whose rows and columns are few, and one of all its rows and columns.
TEST(warpgroups_of_one_tile) {
  for (const Size& s : {Size{1, 1, 449, 1}, Size{5, 3, 456, 1}, Size{65, 17, 500, 1}, Size{3, 127, 512, 1}})
    check_product<__nv_bfloat16>(s);
  check_product<__nv_bfloat16>({128, 128, 456, 1});
  check_product<__half>({66, 9, 504, 1});
}

// Chunks of rows that do not stay: one, two and five a tile.
TEST(warpgroups_of_more_columns_than_stay) {
  for (const Size& s : {Size{70, 5, 520, 1}, Size{5, 260, 640, 1}, Size{3, 130, 776, 1}, Size{260, 20, 520, 1}})
    check_product<__nv_bfloat16>(s);
  check_product<__half>({10, 150, 580, 1});
}

TEST(warpgroups_of_many_tiles) {
  check_product<__nv_bfloat16>({5, 129, 512, 1});    // the same rows, two tiles
  check_product<__nv_bfloat16>({5, 1100, 450, 1});   // nine
  check_product<__nv_bfloat16>({515, 7, 512, 1});    // other rows in each of five
  check_product<__nv_bfloat16>({260, 270, 512, 1});  // in every third of nine
  check_product<__nv_bfloat16>({129, 300, 600, 1});  // of six
  check_product<__nv_bfloat16>({515, 140, 512, 2});  // six and four, of two blocks
  check_product<__half>({385, 3, 530, 5});           // of four blocks, a fifth has none
}
