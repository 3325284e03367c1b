// What our kernels take the layouts of Hopper's tensor cores to be.
#pragma once
#include <cstdint>

namespace ours {

// Of a warpgroup's tile of 64 x 128: where d[0][n][2 * half + e] of a thread is.
struct Element {
  int row, col;
  bool operator==(const Element&) const = default;
};
Element element(int thread, int n, int half, int e);

// Of a chunk of rows of 64 16-bit numbers in shared memory: the byte at which a row's column begins.
int offset(int row, int col);

// The matrix descriptor of 64 or more rows of a chunk that begin at this address, of their columns from 16 step on.
uint64_t descriptor(uint32_t address, int step);

}  // namespace ours
