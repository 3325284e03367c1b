// contrast: the mean absolute difference of a row between the tuned and the zero-shot CLIP (CAC's z).
//
// A persistent block takes kTileRows images at a time through all classes, every tile first for the tuned model, then
// for the zero-shot one. The first's similarities are parked in the workspace (each thread its own: L2 keeps them), the
// second's are subtracted from them in registers. Probabilities need a sweep before, which finds the largest logit of
// every row and the sum of the powers of all, for both models. Order and bits as in similarity_confidence.cuh; models
// that are equal have equal bits, and z = 0.
//
// Workspace: packed classes of both models (2 bytes per number; 6 if split), packed images unless they are read in
// place, a factor per image and 8 bytes per class for each, 128 KiB per block.
#pragma once
#include <climits>

#include "../runtime/launch.cuh"
#include "../runtime/workspace.cuh"
#include "divisor.cuh"
#include "tile_rows.cuh"

namespace pyfastcal::cuda {

namespace contrast {

inline constexpr int kModels = 2;  // tuned, zero-shot

template <class T>
struct Model {
  Product<T> product;
  const float* row_factor;
  const Column* columns;
};

template <class T>
struct Arguments {
  Model<T> models[kModels];
  Slots slots;
  float logit_scale;
  float4* parked;  // kTileRows x kTileCols numbers for each block
  int row_tiles;
  Divisor col_tiles;
  float* z;
};

// The tiles of a block: row tile by row tile, in each of kSweeps sweeps the column tiles, every one for both models.
// What takes a division is found once: the product asks for tiles all the time.
template <class T, int kSweeps>
class Steps {
 public:
  __device__ explicit Steps(const Arguments<T>& a) : a_(a) {
    const int row_tiles = (a.row_tiles - int(blockIdx.x) + int(gridDim.x) - 1) / int(gridDim.x);
    size_ = row_tiles * kSweeps * a.col_tiles.divisor() * kModels;
  }

  struct Step {
    int row, sweep, col_tile, model;
  };
  __device__ int size() const { return size_; }
  __device__ Step step(int i) const {
    const int of_tiles = i / kModels, of_rows = a_.col_tiles.quotient(of_tiles), row_tile = of_rows / kSweeps;
    return {(row_tile * int(gridDim.x) + int(blockIdx.x)) * kTileRows, of_rows % kSweeps,
            of_tiles - of_rows * a_.col_tiles.divisor(), i % kModels};
  }
  __device__ Tile<T> operator[](int i) const {
    const Step s = step(i);
    return {&a_.models[s.model].product, s.row, int64_t(s.col_tile) * kTileCols};
  }

 private:
  const Arguments<T>& a_;
  int size_;
};

template <class T, bool kProbability>
class Epilogue {
 public:
  static constexpr int kSweeps = kProbability ? 2 : 1;
  using Sequence = Steps<T, kSweeps>;

  __device__ Epilogue(const Arguments<T>& a, const Sequence& steps, void* shared)
      : a_(a), steps_(steps), shared_(shared) {}

  __device__ __forceinline__ void operator()(int i, Accumulators& acc) {
    const typename Sequence::Step step = steps_.step(i);
    const int first_class = step.col_tile * kTileCols + Place::warp_col();
    if (step.sweep == 0 && step.col_tile == 0 && step.model == 0) begin();
    if (first_class < classes()) {
      const Model<T>& model = a_.models[step.model];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = model.row_factor[min(step.row + OwnedRows::row(half), rows() - 1)];
        make_scores(acc, half, model.columns + first_class, kProbability ? factor * a_.logit_scale : factor);
        if constexpr (kProbability) {
          if (step.sweep == 0)
            add_to_sums(acc, half, step.model);
          else
            make_probabilities(acc, half, step.model);
        }
      }
      if (step.sweep + 1 == kSweeps) {
        if (step.model == 0)
          park(acc);
        else
          add_differences(acc);
      }
    }
    if (step.col_tile + 1 < a_.col_tiles.divisor() || step.model + 1 < kModels) return;
    if (step.sweep + 1 < kSweeps)
      finish_sums();
    else
      write(step.row);
  }

 private:
  __device__ int rows() const { return int(a_.models[0].product.a.rows); }
  __device__ int classes() const { return int(a_.models[0].product.b.rows); }

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total_[half] = 0;
#pragma unroll
      for (int m = 0; m < kModels; ++m) {
        top_[m][half] = -kInfinity;
        sum_[m][half] = 0;
      }
    }
  }

  // From products to similarities, 0 past the last class, or to logits, -infinity there. factor: the owners'.
  __device__ __forceinline__ static void make_scores(Accumulators& acc, int half, const Column* columns, float factor) {
    float of_row[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) of_row[m] = OwnedRows::spread(factor, m);
    apply_columns(acc, half, columns, [&](float x, float column, float addend, int m) {
      x = __fmul_rn(x, of_row[m]);
      return kProbability ? __fmaf_rn(x, column, addend) : __fmul_rn(x, column);
    });
  }

  __device__ __forceinline__ void add_to_sums(const Accumulators& acc, int half, int model) {
    const float top = largest_of_rows(acc, half), before = of_model(top_, model, half);
    const float added = sum_of_powers(acc, half, top, 1.0f);
    const float sum = add_relative(of_model(sum_, model, half), before, added, top, 1.0f);
#pragma unroll
    for (int m = 0; m < kModels; ++m)
      if (m == model) {
        top_[m][half] = fmaxf(before, top);
        sum_[m][half] = sum;
      }
  }
  // x[model][half], from registers
  __device__ __forceinline__ static float of_model(const float (&x)[kModels][2], int model, int half) {
    return model == 0 ? x[0][half] : x[1][half];
  }

  // From parts of rows to rows, and from sums to their inverses.
  __device__ __forceinline__ void finish_sums() {
#pragma unroll
    for (int m = 0; m < kModels; ++m) {
      float top[2] = {top_[m][0], top_[m][1]};
      combine_across_warps(top, shared_, Max());
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float power = RelativePower(top[half], 1.0f)(top_[m][half]);
        sum_[m][half] = sum_[m][half] == 0 ? 0 : sum_[m][half] * power;
        top_[m][half] = top[half];
      }
      combine_across_warps(sum_[m], shared_, Plus());
#pragma unroll
      for (int half = 0; half < 2; ++half) sum_[m][half] = 1.0f / sum_[m][half];
    }
  }

  __device__ __forceinline__ void make_probabilities(Accumulators& acc, int half, int model) const {
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const RelativePower power(OwnedRows::spread(of_model(top_, model, half), m), 1.0f);
      const float inverse = OwnedRows::spread(of_model(sum_, model, half), m);
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) acc[m][n][2 * half + e] = power(acc[m][n][2 * half + e]) * inverse;
    }
  }

  __device__ float4* parked() const { return a_.parked + int64_t(blockIdx.x) * (32 * kProductThreads) + threadIdx.x; }

  __device__ __forceinline__ void park(const Accumulators& acc) const {
    float4* const to = parked();
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float (&x)[4] = acc[m][n];
        to[(m * 8 + n) * kProductThreads] = make_float4(x[0], x[1], x[2], x[3]);
      }
  }

  // Adds |parked - acc|: a warp's columns in fp32, then in double.
  __device__ __forceinline__ void add_differences(const Accumulators& acc) {
    const float4* const from = parked();
    float sum[2][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      sum[0][m] = sum[1][m] = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const float4 tuned = from[(m * 8 + n) * kProductThreads];
        const float (&x)[4] = acc[m][n];
        sum[0][m] += fabsf(tuned.x - x[0]) + fabsf(tuned.y - x[1]);
        sum[1][m] += fabsf(tuned.z - x[2]) + fabsf(tuned.w - x[3]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) total_[half] += double(OwnedRows::gather(sum[half], Plus()));
  }

  __device__ __forceinline__ void write(int first_row) {
    float total[2] = {float(total_[0]), float(total_[1])};
    combine_across_warps(total, shared_, Plus());
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + OwnedRows::row(half);
      if (Place::warp_col() == 0 && row < rows()) a_.z[row] = total[half] / float(classes());
    }
  }

  const Arguments<T>& a_;
  const Sequence& steps_;
  void* const shared_;
  // of the owned rows: sum of differences; of probabilities the largest logit, and the sum of powers or its inverse
  double total_[2];
  float top_[kModels][2], sum_[kModels][2];
};

template <class T, bool kProbability>
__global__ void __launch_bounds__(kProductThreads, 1) measure(const __grid_constant__ Arguments<T> a) {
  PYFASTCAL_SHARED(unsigned char, shared);
  using E = Epilogue<T, kProbability>;
  const typename E::Sequence steps(a);
  multiply_tiles<T>(steps, a.slots, shared, E(a, steps, shared + a.slots.bytes()));
}

}  // namespace contrast

struct Contrast {
  Matrix image, text, image0, text0;  // 0: of the zero-shot model
  bool probability;
  float logit_scale;
  bool normalize;
};

// How it is run on the current device, and what workspace that takes.
class ContrastPlan {
 public:
  cudaError_t make(const Contrast& c) {
    DeviceLimits device;
    if (const auto error = ask_device(&device)) return error;
    // One type for both products: fp16 only where all of it is.
    half_ = !must_split(c.image, c.text) && !must_split(c.image, c.text0) && !must_split(c.image0, c.text) &&
            c.image.dtype == Dtype::kHalf;
    const auto is_bfloat16 = [](const Matrix& m) { return m.dtype == Dtype::kBFloat16; };
    models_[0] = {c.image, c.text, !half_ && !(is_bfloat16(c.image) && is_bfloat16(c.text))};
    models_[1] = {c.image0, c.text0, !half_ && !(is_bfloat16(c.image0) && is_bfloat16(c.text0))};
    same_image_ = c.image.data == c.image0.data && c.image.dtype == c.image0.dtype && c.image.cols == c.image0.cols &&
                  c.image.stride == c.image0.stride && models_[0].split == models_[1].split;
    const int64_t row_tiles = (c.image.rows + kTileRows - 1) / kTileRows;
    const int64_t col_tiles = (c.text.rows + kTileCols - 1) / kTileCols;
    blocks_ = int(min(row_tiles, int64_t(device.multiprocessors)));
    if (c.image.rows > INT_MAX - kTileRows || c.text.rows > INT_MAX - kTileCols ||
        (row_tiles / blocks_ + 1) * col_tiles > INT_MAX / (2 * contrast::kModels))
      return cudaErrorInvalidValue;
    row_tiles_ = int(row_tiles);
    col_tiles_ = int(col_tiles);
    slots_ = choose_slots(1, false, size_t(device.shared_bytes - kExchangeBytes));
    lay_out(nullptr);
    return slots_.ring < 2 ? cudaErrorInvalidConfiguration : cudaSuccess;
  }
  int64_t workspace_bytes() const { return bytes_; }

  // z: one entry per image; NaN where a row, or any class, holds NaN or infinity.
  cudaError_t launch(const Contrast& c, float* z, void* workspace, cudaStream_t stream) {
    lay_out(workspace);
    for (int m = 0; m < contrast::kModels; ++m) {
      const Model& model = models_[m];
      if (const auto error = prepare_b(model.text, model.split, c.normalize, model.text_copy, nullptr, model.columns,
                                       int64_t(col_tiles_) * kTileCols, stream))
        return error;
      if (m == 1 && same_image_) break;
      if (const auto error =
              prepare_a(model.image, model.split, c.normalize, model.image_copy, model.row_factor, stream))
        return error;
    }
    if (half_) return c.probability ? launch_as<__half, true>(c, z, stream) : launch_as<__half, false>(c, z, stream);
    return c.probability ? launch_as<__nv_bfloat16, true>(c, z, stream) : launch_as<__nv_bfloat16, false>(c, z, stream);
  }

 private:
  struct Model {
    Matrix image, text;
    bool split;
    uint16_t *image_copy = nullptr, *text_copy = nullptr;
    float* row_factor = nullptr;
    Column* columns = nullptr;
  };

  void lay_out(void* workspace) {
    Workspace w(workspace);
    for (int m = 0; m < contrast::kModels; ++m) {
      Model& model = models_[m];
      model.text_copy = w.take<uint16_t>(packed_size(model.text, model.split));
      model.columns = w.take<Column>(int64_t(col_tiles_) * kTileCols);
      if (m == 1 && same_image_) {
        model.image_copy = models_[0].image_copy;
        model.row_factor = models_[0].row_factor;
      } else {
        const bool in_place = !model.split && readable_in_place(model.image);
        model.image_copy = in_place ? nullptr : w.take<uint16_t>(packed_size(model.image, model.split));
        model.row_factor = w.take<float>(model.image.rows);
      }
    }
    parked_ = w.take<float4>(int64_t(blocks_) * kTileRows * kTileCols / 4);
    bytes_ = w.bytes();
  }

  template <class T, bool kProbability>
  cudaError_t launch_as(const Contrast& c, float* z, cudaStream_t stream) const {
    contrast::Arguments<T> a{{}, slots_, c.logit_scale, parked_, row_tiles_, Divisor(col_tiles_), z};
    for (int m = 0; m < contrast::kModels; ++m) {
      const Model& model = models_[m];
      a.models[m] = {{operand_of<T>(model.image, model.split, model.image_copy),
                      operand_of<T>(model.text, model.split, model.text_copy), int(model.image.cols),
                      model.split ? kSplitPairs : 1},
                     model.row_factor,
                     model.columns};
    }
    return PYFASTCAL_LAUNCH((contrast::measure<T, kProbability>), unsigned(blocks_), kProductThreads,
                            slots_.bytes() + kExchangeBytes, stream, a);
  }

  Model models_[contrast::kModels];
  bool half_ = false, same_image_ = false;
  int row_tiles_ = 0, col_tiles_ = 0, blocks_ = 0;
  Slots slots_{};
  float4* parked_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace pyfastcal::cuda
