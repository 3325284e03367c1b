// Tensor cores: the matrix product of a warp and the loading of its operands, with the layouts of the PTX manual; and
// the approximate power of two.
#include "primitives.h"
#include "tensor_sums.h"

namespace cuda_model {

template <class T>
void complete_mma(Warp& warp, uint32_t) {
  float a[16][16], b[16][8], d[16][8];
  const auto registers = [&](int l) { return reinterpret_cast<const Registers*>(uintptr_t(warp.value[l])); };
  for (int l = 0; l < 32; ++l) {
    const Registers& r = *registers(l);
    const int group = l / 4, k = l % 4 * 2;
    for (int e = 0; e < 2; ++e) {
      const auto element = [&](uint32_t word) { return to_float<T>(uint16_t(word >> 16 * e)); };
      for (int i = 0; i < 4; ++i) a[group + i % 2 * 8][k + i / 2 * 8 + e] = element(r.a[i]);
      for (int i = 0; i < 2; ++i) b[k + i * 8 + e][group] = element(r.b[i]);
      for (int i = 0; i < 2; ++i) d[group + i * 8][k + e] = r.d[2 * i + e];
    }
  }
  add_products(&d[0][0], a, &b[0][0], 8);
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) registers(l)->d[i] = d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2];
}
template void complete_mma<__nv_bfloat16>(Warp&, uint32_t);
template void complete_mma<__half>(Warp&, uint32_t);

void complete_load_matrix(Warp& warp, uint32_t) {
  const auto at = [&](int l) { return reinterpret_cast<MatrixRow*>(uintptr_t(warp.value[l])); };
  for (int l = 0; l < 32; ++l)
    for (int m = 0; m < 4; ++m) {
      uint32_t word;
      asm volatile("movl %1, %0" : "=r"(word) : "m"(at(m * 8 + l / 4)->bytes[l % 4 * 4]));
      at(l)->r[m] = word;
    }
  for (int m = 0; m < 4; ++m) {  // a matrix per cycle, if its rows lie in eight different groups of four banks
    int rows_in[8] = {}, most = 1;
    for (int row = 0; row < 8; ++row) {
      bool repeated = false;
      for (int k = 0; k < row; ++k) repeated |= at(m * 8 + k)->address == at(m * 8 + row)->address;
      if (!repeated) most = std::max(most, ++rows_in[uintptr_t(at(m * 8 + row)->address) / 16 % 8]);
    }
    counters.matrix_load_conflicts += uint64_t(most - 1);
  }
  ++counters.matrix_loads;
}

float exp2_approx(float x) {
  if (std::fabs(x) < 0x1p-126f) return 1;
  const float exact = std::exp2(x);
  if (exact < 0x1p-126f) return 0;
  if (!std::isfinite(exact)) return exact;
  const int ulps = int(uint32_t(to_bits(x)) * 2654435761u >> 16) % 5 - 2;
  return from_bits<float>(to_bits(exact) + uint64_t(int64_t(ulps)));
}

}  // namespace cuda_model
