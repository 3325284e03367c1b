// In the words of the kernels' own headers, which a host compiler reads as the CPU model does.
#define PYFASTCAL_CUDA_MODEL
#include "ours.h"

#include "cuda/product/tile.cuh"

uint3 threadIdx;  // the model's, but no kernel runs here

namespace ours {

Element element(int thread, int n, int half, int e) {
  const int warp = thread / 32, lane = thread % 32;
  return {16 * (warp % 4) + lane / 4 + 8 * half, 8 * n + lane % 4 * 2 + e};
}

int offset(int row, int col) {
  using pyfastcal::cuda::Piece, pyfastcal::cuda::kChunkRowBytes;
  constexpr int kRows = 32;  // that have a thread for each piece
  threadIdx.x = unsigned(row % kRows * 8 + col / 8);
  return row / kRows * kRows * kChunkRowBytes + Piece::offset() + col % 8 * 2;
}

uint64_t descriptor(uint32_t address, int step) {
  return (uint64_t((address & 0x3ffff) >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62) +
         uint64_t(2 * step);
}

}  // namespace ours
