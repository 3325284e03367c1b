// The asynchronous products of warpgroups. Each warp computes its 16 of the 64 rows once its lanes wait for them.
//
// The lanes of a warp need not meet to issue products: the first to come notes one, the others must issue the same.
#include <utility>

#include "barriers.h"
#include "tensor_sums.h"

namespace cuda_model {

namespace {

constexpr int kMaxProducts = 128, kMaxSets = 8, kColumns = 128, kDepth = 16;
constexpr uint32_t kPoison = 0xffa5a5a5;  // a signalling NaN: arithmetic changes it

struct Operands {
  uint16_t a[16][kDepth], b[kColumns][kDepth];
};
struct Product {
  uint64_t a, b;
  bool add, half, read;
  const char* file;  // where it was issued
  int line;
  unsigned group;
  int set;
  Operands operands;
};
// One set of accumulators, while products are under way to it.
struct Accumulators {
  int products;
  float* of_lane[32];
  float sums[16][kColumns];
};
struct Lane {
  unsigned issued, ended;  // products, groups
  bool begun;
};
struct WarpProducts {
  Product products[kMaxProducts];
  unsigned first, last;
  Accumulators sets[kMaxSets];
  Lane lanes[32];
  uint64_t history;
  char tag[kSets];
};
WarpProducts all[kMaxThreads / 32];
int waiting[kMaxThreads / 32], n_waiting = 0;  // for other warps of their warpgroups

WarpProducts& of_warp() { return all[current->number / 32]; }

// Calls f(i, row, column) for the elements of a lane.
template <class F>
void for_each(int lane, F f) {
  for (int i = 0; i < kColumns / 2; ++i) f(i, lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2);
}

void check(uint64_t descriptor) {
  if (descriptor >> 62 != 1) die("multiply: a descriptor with another swizzle than that of 128 bytes");
  if (descriptor >> 49 & 7) die("multiply: a descriptor with a base offset, which the model does not know");
  if (descriptor & 0x3ff1c000c000c000) die("multiply: a descriptor with unused bits that are set");
  if (descriptor & 0x38) die("multiply: an operand whose rows do not begin at a multiple of 1024 bytes");
}

// 16 numbers of each of some rows.
void read(uint16_t (*to)[kDepth], uint64_t descriptor, int first, int rows) {
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, stride = uint32_t(descriptor >> 32 & 0x3fff) << 4;
  const auto* const shared = static_cast<const unsigned char*>(dynamic_shared()) - kSharedBegin;
  for (int row = first; row < first + rows; ++row, ++to)
    for (int piece = 0; piece < 2; ++piece) {
      const uint32_t plain = start + uint32_t(row / 8) * stride + uint32_t(row % 8 * 128 + piece * 16);
      const unsigned char* const from = shared + (plain ^ (plain >> 7 & 7) << 4);
      if (!in_dynamic_shared(from, 16)) die("multiply: an operand that is not in dynamic shared memory");
      sanitizer_reads(from, 16);
      __builtin_memcpy(&(*to)[piece * 8], from, 16);
    }
}
void read(Product& p) {
  const AsAgent agent(tensor_core_agent());
  read(p.operands.a, p.a, current->number / 32 % 4 * 16, 16);
  read(p.operands.b, p.b, 0, kColumns);
  p.read = true;
}

template <class T>
void compute(const Product& p, Accumulators& set) {
  float a[16][kDepth], b[kDepth][kColumns];
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kDepth; ++k) a[row][k] = to_float<T>(p.operands.a[row][k]);
  for (int column = 0; column < kColumns; ++column)
    for (int k = 0; k < kDepth; ++k) b[k][column] = to_float<T>(p.operands.b[column][k]);
  if (!p.add)
    for (auto& row : set.sums)
      for (float& x : row) x = 0;
  add_products(&set.sums[0][0], a, &b[0][0], kColumns);
}

void set_aside(Accumulators& set, float* d) {
  set.of_lane[lane()] = d;
  for_each(lane(), [&](int i, int row, int column) {
    set.sums[row][column] = d[i];
    d[i] = from_bits<float>(kPoison);
  });
}
void give_back(Accumulators& set) {
  for (int l = 0; l < 32; ++l) {
    float*& d = set.of_lane[l];
    for_each(l, [&](int i, int row, int column) {
      if (to_bits(d[i]) != kPoison) die("accumulators were changed while products were under way to them");
      d[i] = set.sums[row][column];
    });
    d = nullptr;
  }
}

int set_of(const WarpProducts& w, const float* d) {
  int free = kMaxSets;
  for (int s = 0; s < kMaxSets; ++s) {
    if (w.sets[s].of_lane[lane()] == d) return s;
    if (w.sets[s].products == 0) free = s;
  }
  if (free == kMaxSets) die("multiply: products are under way to too many accumulators");
  return free;
}

bool warpgroup_has_ended(unsigned groups) {
  const WarpProducts* const first = all + current->number / 128 * 4;
  for (int i = 0; i < 4; ++i)
    for (const Lane& lane : first[i].lanes)
      if (int(lane.ended - groups) < 0) return false;
  return true;
}

void complete_wait(Warp& warp, uint32_t) {
  WarpProducts& w = of_warp();
  const int groups_left = warp.argument[0];
  const unsigned ended = w.lanes[0].ended;
  for (int l = 0; l < 32; ++l)
    if (warp.argument[l] != groups_left || w.lanes[l].issued != w.last || w.lanes[l].ended != ended)
      die("wait_products: the lanes of a warp have issued different products");
  for (; w.first != w.last; ++w.first) {
    Product& p = w.products[w.first % kMaxProducts];
    if (int(ended - p.group) <= groups_left) break;
    while (!warpgroup_has_ended(p.group + 1)) {  // the tensor cores begin when all four warps have come
      waiting[n_waiting++] = current->number;
      next();
    }
    if (!p.read) read(p);
    Accumulators& set = w.sets[p.set];
    p.half ? compute<__half>(p, set) : compute<__nv_bfloat16>(p, set);
    if (--set.products == 0) give_back(set);
  }
  const AsAgent agent(tensor_core_agent());
  __tsan_release(&w.tag[set]);
}

}  // namespace

void begin_products(Place place) {
  current->place = place;
  of_warp().lanes[lane()].begun = true;
}
void end_products(Place place) {
  current->place = place;
  Lane& self = of_warp().lanes[lane()];
  self.begun = false;
  ++self.ended;
  wake(waiting, std::exchange(n_waiting, 0));
}

void multiply(float* d, uint64_t a, uint64_t b, bool add, bool half, Place place) {
  current->place = place;
  WarpProducts& w = of_warp();
  Lane& self = w.lanes[lane()];
  if (!self.begun) die("multiply: begin_products() is missing");
  if ((current->number / 128 + 1) * 128 > n_threads) die("multiply: not in a whole warpgroup");
  if (self.issued - w.first == kMaxProducts) die("multiply: too many products under way");
  Product& p = w.products[self.issued % kMaxProducts];
  if (self.issued == w.last) {
    ++w.last;
    check(a);
    check(b);
    p.a = a;
    p.b = b;
    p.add = add;
    p.half = half;
    p.read = false;
    p.file = place.file;
    p.line = place.line;
    p.group = self.ended;
    p.set = set_of(w, d);
    ++w.sets[p.set].products;
    for (const uint64_t x : {a, b, uint64_t(add), uint64_t(p.group), uint64_t(place.line)})
      w.history = (w.history ^ x) * 1099511628211u;
    if (settings.products_read_early) read(p);
  } else if (p.a != a || p.b != b || p.add != add || p.half != half || p.group != self.ended || p.file != place.file ||
             p.line != place.line) {
    die("multiply: the lanes of a warp differ");
  }
  ++self.issued;
  Accumulators& set = w.sets[p.set];
  if (!set.of_lane[lane()]) set_aside(set, d);
  if (set.of_lane[lane()] != d) die("multiply: the lanes of a warp differ in their accumulators");
}

void wait_products(int groups_left, Place place) {
  meet(~0u, 0, groups_left, complete_wait, place);
  __tsan_acquire(&of_warp().tag[set]);
}

void pin(const float* d) {
  for (const Accumulators& set : of_warp().sets)
    if (set.of_lane[lane()] == d) die("pin: products are under way to these accumulators");
}

bool products_under_way() {
  const WarpProducts& w = of_warp();
  return w.lanes[lane()].issued != w.first;
}

void forget_products() {
  n_waiting = 0;
  for (int i = 0; 32 * i < n_threads; ++i) {
    WarpProducts& w = all[i];
    w.first = w.last = 0;
    w.history = 0;
    for (Lane& lane : w.lanes) lane = {};
    for (Accumulators& set : w.sets) {
      set.products = 0;
      for (float*& d : set.of_lane) d = nullptr;
    }
  }
}

void check_products() {
  for (int i = 0; 32 * i < n_threads; ++i)
    if (all[i].history != all[i / 4 * 4].history) die("the warps of a warpgroup issued different products");
}

}  // namespace cuda_model
