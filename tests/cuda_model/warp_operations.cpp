// What the lanes of a warp make of each other's values when they meet.
#include "model.h"

namespace cuda_model {

void complete_shuffle(Warp& warp, uint32_t mask) {
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) {
      if (!(mask >> warp.argument[l] & 1)) die("a shuffle reads a lane outside its mask");
      warp.result[l] = warp.value[warp.argument[l]];
    }
}

void complete_ballot(Warp& warp, uint32_t mask) {
  uint64_t ballot = 0;
  for (int l = 0; l < 32; ++l)
    if (mask >> l & 1) ballot |= warp.value[l] << l;
  for (uint64_t& result : warp.result) result = ballot;
}

void complete_match(Warp& warp, uint32_t mask) {
  for (int l = 0; l < 32; ++l) {
    uint64_t equal = 0;
    for (int k = 0; k < 32; ++k)
      if ((mask >> k & 1) && warp.value[k] == warp.value[l]) equal |= uint64_t(1) << k;
    warp.result[l] = equal;
  }
}

void complete_sync(Warp&, uint32_t) {}

template <class T, Reduction R>
void complete_reduce(Warp& warp, uint32_t mask) {
  T total{};
  bool first = true;
  for (int l = 0; l < 32; ++l) {
    if (!(mask >> l & 1)) continue;
    const T x = T(warp.value[l]);
    if (first)
      total = x;
    else if (R == Reduction::kAdd)
      total = T(unsigned(total) + unsigned(x));
    else if (R == Reduction::kMin)
      total = std::min(total, x);
    else if (R == Reduction::kMax)
      total = std::max(total, x);
    else
      total = R == Reduction::kAnd ? total & x : R == Reduction::kOr ? total | x : total ^ x;
    first = false;
  }
  for (uint64_t& result : warp.result) result = uint64_t(total);
}
#define INSTANTIATE(R)                                               \
  template void complete_reduce<int, Reduction::R>(Warp&, uint32_t); \
  template void complete_reduce<unsigned, Reduction::R>(Warp&, uint32_t)
INSTANTIATE(kAdd);
INSTANTIATE(kMin);
INSTANTIATE(kMax);
INSTANTIATE(kAnd);
INSTANTIATE(kOr);
INSTANTIATE(kXor);
#undef INSTANTIATE

}  // namespace cuda_model
