// The study's configurations, each a kernel of its own.
#pragma once

namespace pyfastcal::hopper {

// The task: rows of 512 columns in bf16, a thousand classes.
inline constexpr int kDepth = 512, kClasses = 1000;

// A tile is 128 rows x `width` classes, a chunk 64 columns of it. Rows of a chunk take 128 bytes of shared memory.
inline constexpr int kTileRows = 128, kChunk = 64, kChunks = kDepth / kChunk;
inline constexpr int kChunkRowBytes = 2 * kChunk, kRowChunkBytes = kTileRows * kChunkRowBytes;

// What becomes of a row's products: their maximum only, or the maximum, its class and the sums of powers that make a
// confidence, with one weight or with two.
enum class Epilogue { maximum, one_weight, two_weights };

struct Configuration {
  const char* name;
  int width;      // classes a tile
  int ring;       // chunks of classes in shared memory
  int cluster;    // blocks that share chunks of classes: each copies its part to all
  bool resident;  // a tile's rows stay in shared memory for all its classes; else they pass through the ring too
  Epilogue epilogue;
  int sets;  // of accumulators: with two, a tile's epilogue runs between the next tile's products
  int lead;  // chunks that the first warpgroup is ahead of the second, so that their epilogues alternate; 0: any

  constexpr int tiles() const { return (kClasses + width - 1) / width; }  // for a tile's rows
  constexpr int class_chunk_bytes() const { return width * kChunkRowBytes; }
  constexpr int slot_bytes() const { return class_chunk_bytes() + (resident ? 0 : kRowChunkBytes); }
  constexpr int resident_bytes() const { return resident ? kChunks * kRowChunkBytes : 0; }
  constexpr int tile_bytes() const { return resident_bytes() + ring * slot_bytes(); }
  constexpr int shared_bytes() const { return tile_bytes() + 1024 + 512; }  // to align it; barriers
};

// Every row begins with the name: __main__.py looks for it.
inline constexpr Configuration kConfigurations[] = {
    {"product_pair", 256, 3, 2, true, Epilogue::maximum, 1, 0},
    {"product_single", 256, 3, 1, true, Epilogue::maximum, 1, 0},
    {"product_two_sets", 128, 6, 2, true, Epilogue::maximum, 2, 0},
    {"two_weights_single", 128, 6, 1, true, Epilogue::two_weights, 2, 0},
    {"two_weights_pair", 128, 6, 2, true, Epilogue::two_weights, 2, 0},
    {"one_weight_pair", 128, 6, 2, true, Epilogue::one_weight, 2, 0},
    {"two_weights_turns", 128, 6, 2, true, Epilogue::two_weights, 1, 4},
    {"product_pair_streamed", 256, 4, 2, false, Epilogue::maximum, 1, 0},
    {"product_single_streamed", 256, 4, 1, false, Epilogue::maximum, 1, 0},
};
inline constexpr int kConfigurationCount = sizeof kConfigurations / sizeof kConfigurations[0];

}  // namespace pyfastcal::hopper
