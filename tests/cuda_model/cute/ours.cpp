// In the words of the kernels' own headers, which a host compiler reads as the CPU model does.
#define PYFASTCAL_CUDA_MODEL
#include "ours.h"

#include "cuda/product/warpgroups/block.cuh"

uint3 threadIdx;  // the model's, but no kernel runs here

namespace ours {

Element element(int thread, int n, int half, int e) {
  using namespace pyfastcal::cuda::warpgroups;
  threadIdx.x = unsigned(kCopyingThreads + thread);
  return {Place::row(0, half), Place::col(n, e)};
}

int offset(int row, int col) {
  using pyfastcal::cuda::Piece, pyfastcal::cuda::kChunkRowBytes;
  constexpr int kRows = 32;  // that have a thread for each piece
  threadIdx.x = unsigned(row % kRows * 8 + col / 8);
  return row / kRows * kRows * kChunkRowBytes + Piece::offset() + col % 8 * 2;
}

uint64_t descriptor(uint32_t address, int step) {
  return pyfastcal::cuda::warpgroups::describe_at(address) + uint64_t(2 * step);
}

}  // namespace ours
