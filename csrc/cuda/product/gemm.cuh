// The matrix product under similarity, similarity_confidence, contrast and knn: rows of a times rows of b, both along
// their columns, on tensor cores with fp32 accumulators. A persistent block goes through a sequence of tiles of
// kTileRows x kTileCols; the epilogue gets every tile in registers, and the copies for the next tiles are under way
// meanwhile.
//
// Shared memory holds chunks of kChunk columns, a row of a chunk in 128 bytes whose eight 16-byte pieces are permuted
// by the row's number (piece ^ row % 8): neither the copies nor load_matrix_x4 meet a bank conflict. Chunks of b go
// through a ring of slots. So do those of a, unless all of a tile's fit: then tiles that share their rows copy them
// once, which spares L2 a third of what it must deliver.
//
// One barrier per chunk, before the last sixteenth of its products, whose operands are in registers already: whoever
// passes it may read the next chunk and overwrite this one.
//
// Every element is one chain of mma_16816 over the columns in ascending order, term pair by term pair: its bits depend
// neither on the tile nor on the place in it.
#pragma once
#include "tile.cuh"

namespace pyfastcal::cuda {

// Looks at the rows of a on their way through shared memory; this one does not. begin(i): whether tile i is of
// interest; see(chunk, part): this thread's piece is at chunk + Piece::offset() + part * 32 * kChunkRowBytes.
struct NoInspector {
  __device__ bool begin(int) const { return false; }
  __device__ void see(const unsigned char*, int) const {}
};

namespace gemm {

inline constexpr int kParts = 4;  // a chunk is copied in four parts, one per step of 16 columns

// Copies the chunks of all tiles, one after the other, some ahead of the products. A thread copies one piece of every
// 32nd row.
template <class T, class Tiles>
class Loader {
 public:
  __device__ Loader(const Tiles& tiles, Slots slots, unsigned char* shared)
      : tiles_(tiles), slots_(slots), shared_(shared + Piece::offset()) {
    if (tile_ < tiles_.size()) begin_pair();
  }

  // A part of the current chunk; the parts of a chunk in order.
  __device__ __forceinline__ void copy(int part) {
    if (tile_ >= tiles_.size()) return;
    const bool any = left_ > 8 * Piece::number();
    if (copy_rows_) {
      unsigned char* const slot = shared_ + (slots_.rows == slots_.ring ? ring_ : chunk_) * kRowSlotBytes;
      copy_row(slot, a_, product().a.stride, any, part);
    }
    unsigned char* const slot = shared_ + slots_.rows * kRowSlotBytes + ring_ * kColSlotBytes;
    copy_row(slot, b_, product().b.stride, any, 2 * part);
    copy_row(slot, b_, product().b.stride, any, 2 * part + 1);
  }

  // Ends the current chunk's group of copies.
  __device__ __forceinline__ void next() {
    prim::commit_copies();
    if (tile_ >= tiles_.size()) return;
    ring_ = ring_ + 1 == slots_.ring ? 0 : ring_ + 1;
    ++chunk_;
    left_ -= kChunk;
    a_.data += kChunk - kTileRows * product().a.stride;
    b_.data += kChunk - kTileCols * product().b.stride;
    if (left_ > 0) return;
    if (++pair_ == product().pairs) {
      pair_ = chunk_ = 0;
      if (++tile_ == tiles_.size()) return;
    }
    begin_pair();
  }

 private:
  // This thread's pieces of an operand's chunk.
  struct Pieces {
    const T* data = nullptr;  // the next one
    int rows = 0;             // left from the first one's row on
  };

  __device__ __forceinline__ const Product<T>& product() const { return *tiles_[tile_].product; }

  __device__ void begin_pair() {
    const Tile<T> tile = tiles_[tile_];
    const Product<T>& product = *tile.product;
    left_ = product.depth;
    // where a tile's rows are kept, those of the tile before may serve
    copy_rows_ = slots_.rows == slots_.ring || tile_ == 0 || tiles_[tile_ - 1].row != tile.row;
    a_ = locate(product.a, tile.row, term_of_a(pair_, product.pairs));
    b_ = locate(product.b, tile.col, term_of_b(pair_, product.pairs));
  }
  __device__ static Pieces locate(const Operand<T>& x, int64_t first, int term) {
    const int64_t row = first + Piece::row();
    return {x.data + row * x.stride + term * x.term_stride + 8 * Piece::number(),
            int(max(min(x.rows - row, int64_t(kTileCols)), int64_t(0)))};
  }
  // Nothing is read where `bytes` is 0, so the address may be any multiple of 16.
  __device__ __forceinline__ static void copy_row(unsigned char* slot, Pieces& x, int64_t stride, bool any, int part) {
    prim::copy_async_16(slot + part * (32 * kChunkRowBytes), x.data, any && x.rows > 32 * part ? 16 : 0);
    x.data += 32 * stride;
  }

  const Tiles& tiles_;
  const Slots slots_;
  unsigned char* const shared_;  // where this thread's first piece goes in slot 0
  int tile_ = 0, pair_ = 0, chunk_ = 0, ring_ = 0;
  int left_ = 0;  // columns of the pair
  bool copy_rows_ = true;
  Pieces a_, b_;
};

// What a warp multiplies: in one step of 16 columns its 64 rows of a with, quarter after quarter, 16 of its 64 rows of
// b. The next quarter's are loaded meanwhile; the next step's rows of a as soon as the last quarter is done with this
// one's.
struct Fragments {
  uint32_t a[4][4], b[2][4];

  // From the chunk of a at `rows`, the rows 16 m to 16 m + 15.
  __device__ __forceinline__ void load_a(const unsigned char* rows, int step, int m) {
    const int lane = int(threadIdx.x) % 32, piece = 2 * step ^ lane / 16 ^ lane % 8;
    prim::load_matrix_x4(a[m], rows + (Place::warp_row() + 16 * m + lane % 16) * kChunkRowBytes + piece * 16);
  }
  __device__ __forceinline__ void load_b(const unsigned char* cols, int step, int quarter) {
    const int lane = int(threadIdx.x) % 32, piece = 2 * step ^ lane / 8 % 2 ^ lane % 8;
    const int row = Place::warp_col() + 16 * quarter + lane / 16 * 8 + lane % 8;
    prim::load_matrix_x4(b[quarter % 2], cols + row * kChunkRowBytes + piece * 16);
  }

  template <class T>
  __device__ __forceinline__ void multiply(Accumulators& acc, int m, int quarter) const {
    const uint32_t even[2] = {b[quarter % 2][0], b[quarter % 2][1]}, odd[2] = {b[quarter % 2][2], b[quarter % 2][3]};
    prim::mma_16816<T>(acc[m][2 * quarter], a[m], even);
    prim::mma_16816<T>(acc[m][2 * quarter + 1], a[m], odd);
  }
};

// Waits until all but the last `groups` groups of copies have landed.
__device__ __forceinline__ void wait_for_copies(int groups) {
  if (groups == 2)
    prim::wait_copies<2>();
  else if (groups == 1)
    prim::wait_copies<1>();
  else
    prim::wait_copies<0>();
}

}  // namespace gemm

// The whole block, of kProductThreads: epilogue(i, acc) for every tile i of [0, tiles.size()), in order; tiles[i] is a
// Tile. Past the operands' ends products are 0. The epilogue may use barriers. shared: slots.bytes(), 1024-byte
// aligned.
//
// Where rows are shared (slots.rows != slots.ring) all tiles are of one product, and of one pair of terms.
template <class T, class Tiles, class Inspector, class Epilogue>
__device__ __forceinline__ void multiply_tiles(const Tiles& tiles, Slots slots, unsigned char* shared,
                                               Inspector&& inspector, Epilogue&& epilogue) {
  gemm::Loader<T, Tiles> loader(tiles, slots, shared);
  for (int s = 0; s + 1 < slots.ring; ++s) {
    for (int part = 0; part < gemm::kParts; ++part) loader.copy(part);
    loader.next();
  }
  gemm::wait_for_copies(slots.ring - 2);
  __syncthreads();
  loader.copy(0);
  int ring = 0;
  for (int i = 0; i < tiles.size(); ++i) {
    const Tile<T> tile = tiles[i];
    const int chunks = tile.product->chunks();
    // a warp whose part of the tile lies past the operands' ends only copies
    const bool inside =
        tile.row + Place::warp_row() < tile.product->a.rows && tile.col + Place::warp_col() < tile.product->b.rows;
    const bool inspected = inspector.begin(i);
    Accumulators acc = {};
    gemm::Fragments fragments{};
    const auto rows = [&](int chunk) { return shared + (slots.rows == slots.ring ? ring : chunk) * kRowSlotBytes; };
    const auto cols = [&] { return shared + slots.rows * kRowSlotBytes + ring * kColSlotBytes; };
    if (inside) {
#pragma unroll
      for (int m = 0; m < 4; ++m) fragments.load_a(rows(0), 0, m);
      fragments.load_b(cols(), 0, 0);
    }
    for (int chunk = 0; chunk < chunks; ++chunk) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        if (step < 3) loader.copy(step + 1);
        if (inspected) inspector.see(rows(chunk), step);
        if (inside) {
#pragma unroll
          for (int quarter = 0; quarter < 3; ++quarter) {
            fragments.load_b(cols(), step, quarter + 1);
#pragma unroll
            for (int m = 0; m < 4; ++m) fragments.multiply<T>(acc, m, quarter);
          }
        }
        if (step == 3) {
          loader.next();
          gemm::wait_for_copies(slots.ring - 2);
          __syncthreads();
          ring = ring + 1 == slots.ring ? 0 : ring + 1;
          loader.copy(0);
        }
        if (inside) {
          const bool more = step < 3 || chunk + 1 < chunks;
          const unsigned char* const next_rows = rows(step < 3 ? chunk : chunk + 1);
          if (more) fragments.load_b(cols(), (step + 1) % 4, 0);
#pragma unroll
          for (int m = 0; m < 4; ++m) {
            fragments.multiply<T>(acc, m, 3);
            if (more) fragments.load_a(next_rows, (step + 1) % 4, m);
          }
        }
      }
    }
    epilogue(i, acc);
  }
  gemm::wait_for_copies(0);
}

template <class T, class Tiles, class Epilogue>
__device__ __forceinline__ void multiply_tiles(const Tiles& tiles, Slots slots, unsigned char* shared,
                                               Epilogue&& epilogue) {
  multiply_tiles<T>(tiles, slots, shared, NoInspector(), epilogue);
}

}  // namespace pyfastcal::cuda
