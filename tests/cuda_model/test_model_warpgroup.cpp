// Of the model itself: the products of warpgroups are what they should be.
#include "operands.h"
#include "tensor_sums.h"

namespace {

// All tiles of a product: a warpgroup copies chunks of rows and columns through a ring, two multiply.
constexpr int kRing = 3;
struct Ring {
  unsigned char slots[kRing][2][kBoxBytes];
  prim::Barrier landed[kRing], free[kRing];
};
struct Slot {
  int number = 0;
  uint32_t parity = 0;
  void next() {
    if (++number == kRing) {
      number = 0;
      parity ^= 1;
    }
  }
};

template <class T>
__global__ void multiply_all(const __grid_constant__ prim::TensorMap a, const __grid_constant__ prim::TensorMap b,
                             int rows, int cols, int depth, float* out) {
  PYFASTCAL_SHARED(Ring, ring);
  const int thread = int(threadIdx.x), warpgroup = thread / 128, chunks = (depth + kChunk - 1) / kChunk;
  if (thread == 0) {
    for (int s = 0; s < kRing; ++s) {
      prim::init(&ring->landed[s], 1);
      prim::init(&ring->free[s], 8);
    }
    prim::publish_barriers();
  }
  __syncthreads();
  Slot slot;
  if (warpgroup == 0) {
    prim::release_registers<40>();
    if (thread != 0) return;
    for (int row = int(blockIdx.x) * kTile; row < rows; row += int(gridDim.x) * kTile)
      for (int col = 0; col < cols; col += kTile)
        for (int k = 0; k < chunks; ++k, slot.next()) {
          prim::Barrier* const landed = &ring->landed[slot.number];
          prim::wait(&ring->free[slot.number], slot.parity ^ 1);
          prim::arrive_expecting(landed, 2 * kBoxBytes);
          prim::copy_box(ring->slots[slot.number][0], &a, row, k * kChunk, landed);
          prim::copy_box(ring->slots[slot.number][1], &b, col, k * kChunk, landed);
        }
    return;
  }
  prim::claim_registers<232>();
  for (int row = int(blockIdx.x) * kTile; row < rows; row += int(gridDim.x) * kTile)
    for (int col = 0; col < cols; col += kTile) {
      float d[1][16][4];
      for (int k = 0; k < chunks; ++k, slot.next()) {
        prim::wait(&ring->landed[slot.number], slot.parity);
        const uint64_t of_a = describe(ring->slots[slot.number][0] + (warpgroup - 1) * 64 * kRowBytes),
                       of_b = describe(ring->slots[slot.number][1]);
        prim::begin_products();
        for (int q = 0; q < 4; ++q) prim::multiply<T>(d, of_a + 2 * q, of_b + 2 * q, k > 0 || q > 0);
        prim::end_products();
        if (k == 0) continue;
        prim::wait_products<1>();
        if (thread % 32 == 0) prim::arrive(&ring->free[(slot.number + kRing - 1) % kRing]);
      }
      prim::wait_products<0>();
      prim::pin(d);
      if (thread % 32 == 0) prim::arrive(&ring->free[(slot.number + kRing - 1) % kRing]);
      for (int i = 0; i < 64; ++i) {
        const int r = row + (warpgroup - 1) * 64 + row_of(i), c = col + column_of(i);
        if (r < rows && c < cols)
          out[r * cols + c] = d[0][i / 4][i % 4];
        else
          CHECK_EQUAL(d[0][i / 4][i % 4], 0.0f);
      }
    }
}

template <class T>
DeviceArray<float> multiply(const Rows<T>& a, const Rows<T>& b, int blocks) {
  DeviceArray<float> out(size_t(a.rows * b.rows));
  CHECK(PYFASTCAL_LAUNCH(multiply_all<T>, dim3(unsigned(blocks)), 384, sizeof(Ring), nullptr, a.map, b.map, a.rows,
                         b.rows, a.cols, out.data()) == cudaSuccess);
  record(out);
  return out;
}

template <class T>
void check_exact_products(int rows, int cols, int depth, int blocks) {
  Rows<T> a(rows, depth), b(cols, depth, kTile, 8);
  a.fill_with_integers(1);
  b.fill_with_integers(2);
  const DeviceArray<float> out = multiply(a, b, blocks);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < cols; ++j) {
      float exact = 0;
      for (int k = 0; k < depth; ++k) exact += a.at(i, k) * b.at(j, k);
      CHECK_EQUAL(out[size_t(i * cols + j)], exact, i, ' ', j);
    }
}

}  // namespace

TEST(model_warpgroups_multiply) {
  check_exact_products<__nv_bfloat16>(128, 128, 512, 1);
  check_exact_products<__nv_bfloat16>(300, 200, 200, 2);
  check_exact_products<__nv_bfloat16>(130, 300, 64, 1);
  check_exact_products<__half>(5, 130, 70, 1);
  check_exact_products<__half>(1, 1, 1, 1);
}

TEST(model_warpgroups_round_as_a_warp_does) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  Rows<__half> a(20, 200), b(16, 200);
  a.fill([&] { return normal(generator); });
  b.fill([&] { return normal(generator); });
  const DeviceArray<float> out = multiply(a, b, 1);
  for (int i = 0; i < 20; ++i)
    for (int j = 0; j < 16; j += 8) {
      float sums[8] = {};
      for (int k = 0; k < 200; k += 8) {
        float of_a[8], of_b[8][8];
        for (int step = 0; step < 8; ++step) {
          of_a[step] = a.at(i, k + step);
          for (int c = 0; c < 8; ++c) of_b[step][c] = b.at(j + c, k + step);
        }
        cuda_model::add_products_exactly(sums, of_a, &of_b[0][0], 8);
      }
      for (int c = 0; c < 8; ++c) CHECK_EQUAL(out[size_t(i * 16 + j + c)], sums[c], i, ' ', j + c);
    }
}

namespace {

// Products of a's first and second 64 rows (s = 0, 1) and b, by columns of 16 (q), in several groups: into two sets
// of accumulators, of which the second begins with ones. Nothing is copied to shared memory behind b.
__global__ void multiply_in_groups(const __grid_constant__ prim::TensorMap a, const __grid_constant__ prim::TensorMap b,
                                   float* out) {
  PYFASTCAL_SHARED(unsigned char, shared);
  unsigned char *const rows = shared + 1024, *const cols = rows + kBoxBytes, *const unwritten = cols + kBoxBytes;
  auto* const landed = reinterpret_cast<prim::Barrier*>(shared);
  if (threadIdx.x == 0) {
    prim::init(landed, 1);
    prim::publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    prim::arrive_expecting(landed, 2 * kBoxBytes);
    prim::copy_box(rows, &a, 0, 0, landed);
    prim::copy_box(cols, &b, 0, 0, landed);
  }
  prim::wait(landed, 0);
  float d[5][1][16][4];
  for (int i = 0; i < 64; ++i) d[1][0][i / 4][i % 4] = 1;
  const auto issue = [&](int set, int s, int q, bool add) {
    prim::multiply<__half>(d[set], describe(rows + s * 64 * kRowBytes) + 2 * q, describe(cols) + 2 * q, add);
  };
  const auto show = [&](int set) {
    prim::pin(d[set]);
    for (int i = 0; i < 64; ++i) out[(set * 64 + row_of(i)) * kTile + column_of(i)] = d[set][0][i / 4][i % 4];
  };
  prim::begin_products();
  issue(0, 0, 0, false);
  issue(1, 0, 0, true);
  prim::end_products();
  prim::begin_products();
  issue(0, 1, 3, true);
  issue(2, 1, 1, false);
  prim::end_products();
  prim::begin_products();
  issue(3, 1, 2, false);
  prim::multiply<__half>(d[4], describe(unwritten), describe(cols), false);
  prim::end_products();
  prim::wait_products<2>();
  show(1);  // 0 is still under way
  prim::begin_products();
  prim::end_products();
  prim::wait_products<2>();
  show(0);
  show(2);
  prim::begin_products();
  issue(0, 0, 2, true);
  issue(0, 0, 1, true);
  issue(2, 1, 0, true);
  issue(2, 1, 3, false);  // forgets what was there
  prim::end_products();
  prim::wait_products<0>();
  show(3);
  show(4);
  for (const int set : {0, 2}) {
    prim::pin(d[set]);
    for (int i = 0; i < 64; ++i) out[((5 + set / 2) * 64 + row_of(i)) * kTile + column_of(i)] = d[set][0][i / 4][i % 4];
  }
}

}  // namespace

TEST(model_products_in_groups) {
  Rows<__half> a(128, 64), b(128, 64);
  a.fill_with_integers(5);
  b.fill_with_integers(6);
  DeviceArray<float> out(7 * 64 * kTile);
  CHECK(PYFASTCAL_LAUNCH(multiply_in_groups, 1, 128, 1024 + 3 * kBoxBytes, nullptr, a.map, b.map, out.data()) ==
        cudaSuccess);
  for (int row = 0; row < 64; ++row)
    for (int column = 0; column < kTile; ++column) {
      const auto sum = [&](int s, int q) {
        float exact = 0;
        for (int k = 16 * q; k < 16 * q + 16; ++k) exact += a.at(64 * s + row, k) * b.at(column, k);
        return exact;
      };
      const float first = sum(0, 0) + sum(1, 3);
      const float expected[7] = {first,    1 + sum(0, 0), sum(1, 1), sum(1, 2), NAN, first + sum(0, 1) + sum(0, 2),
                                 sum(1, 3)};
      for (int set = 0; set < 7; ++set) {
        const float x = out[size_t((set * 64 + row) * kTile + column)];
        if (set == 4)
          CHECK(std::isnan(x));
        else
          CHECK_EQUAL(x, expected[set], set, ' ', row, ' ', column);
      }
    }
  record(out);
}

// Sums of numbers of all sizes by the fast way and by the definition.
TEST(model_sums_products_by_its_definition) {
  std::mt19937 generator(7);
  const auto check = [&](auto number, auto sum) {
    float a[16][16], b[16][16], sums[16][16], expected[16][16];
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 16; ++k) {
        a[i][k] = number();
        b[i][k] = number();
        sums[i][k] = expected[i][k] = sum();
      }
    cuda_model::add_products(&sums[0][0], a, &b[0][0], 16);
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < 16; ++i)
        for (int c = 0; c < 16; c += 8)
          cuda_model::add_products_exactly(&expected[i][c], &a[i][8 * half], &b[8 * half][c], 16);
    for (int i = 0; i < 16; ++i)
      for (int c = 0; c < 16; ++c)
        if (std::isnan(expected[i][c]))
          CHECK(std::isnan(sums[i][c]));
        else
          CHECK_EQUAL(cuda_model::to_bits(sums[i][c]), cuda_model::to_bits(expected[i][c]), sums[i][c], ' ',
                      expected[i][c]);
  };
  // powers of two times what a bfloat16 or half may hold; one in `zeros` is zero
  const auto of_exponents = [&](int least, int most, unsigned zeros) {
    return [&generator, least, most, zeros] {
      const float digits = 1 + float(generator() % 1024) / 1024, sign = generator() % 2 ? 1 : -1;
      const int exponent = least + int(generator() % unsigned(most - least + 1));
      return generator() % zeros ? std::ldexp(sign * digits, exponent) : 0 * sign;
    };
  };
  const auto any_bits = [&] { return cuda_model::from_bits<float>(generator() & 0xffff0000); };
  for (int repeat = 0; repeat < 100; ++repeat) {
    check(of_exponents(-3, 3, 1000), of_exponents(-3, 3, 1000));
    check(of_exponents(-20, 20, 3), of_exponents(-40, 40, 2));
    check(of_exponents(-52, 52, 3), of_exponents(-120, 120, 3));
    check(of_exponents(-126, 120, 3), of_exponents(-126, 120, 3));
    check(of_exponents(-70, -50, 2), of_exponents(-149, -100, 2));
    check(of_exponents(-5, 5, 1), of_exponents(-5, 5, 1));
    check(any_bits, any_bits);
  }
}

TEST(model_reads_16_bit_numbers) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float expected[2] = {__half2float(cuda_model::from_bits<__half>(bits)),
                               __bfloat162float(cuda_model::from_bits<__nv_bfloat16>(bits))},
                actual[2] = {cuda_model::to_float<__half>(uint16_t(bits)),
                             cuda_model::to_float<__nv_bfloat16>(uint16_t(bits))};
    for (int i = 0; i < 2; ++i)
      if (std::isnan(expected[i]))
        CHECK(std::isnan(actual[i]));
      else
        CHECK_EQUAL(cuda_model::to_bits(actual[i]), cuda_model::to_bits(expected[i]), bits);
  }
}
