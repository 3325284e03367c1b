// Compares what our kernels take layouts to be with what CUTLASS's CuTe makes of them, on the host: for each, how much
// was compared and how much of it differs, in a line. "wrong" lines are controls, of a mistake that CuTe must see.
#include <cstdio>
#include <cstring>
#include <cute/tensor.hpp>  // before its parts
#include <vector>

#include <cute/atom/copy_traits_sm90_tma.hpp>
#include <cute/atom/mma_atom.hpp>

#include "cuda/runtime/warpgroup.cuh"
#include "ours.h"

using namespace cute;

template <class T>
using Atom = conditional_t<is_same_v<T, half_t>, SM90_64x128x16_F32F16F16_SS<GMMA::Major::K, GMMA::Major::K>,
                           SM90_64x128x16_F32BF16BF16_SS<GMMA::Major::K, GMMA::Major::K>>;

template <int kRows, class T>
auto chunk() {
  return tile_to_shape(GMMA::Layout_K_SW128_Atom<T>{}, Shape<Int<kRows>, _64>{});
}

static void report(const char* what, int compared, int differ) {
  std::printf("%s: %d compared, %d differ\n", what, compared, differ);
}

template <class T, class F>
void compare_elements(const char* what, F ours) {
  const auto layout = typename MMA_Traits<Atom<T>>::CLayout{};  // (thread, value) -> row + 64 column
  static_assert(size<0>(layout) == 128 && size<1>(layout) == 64);
  int differ = 0;
  for (int thread = 0; thread < 128; ++thread)
    for (int v = 0; v < 64; ++v) {
      const int place = int(layout(thread, v));
      differ += ours(thread, v / 4, v / 2 % 2, v % 2) != ours::Element{place % 64, place / 64};
    }
  report(what, 128 * 64, differ);
}

template <int kRows, class T, class F>
void compare_offsets(const char* what, F ours) {
  alignas(1024) static T begin[kRows * 64];
  const auto shared = make_tensor(make_smem_ptr(&begin[0]), chunk<kRows, T>());
  const auto offset = [&](int row, int col) { return int(&shared(row, col) - begin) * int(sizeof(T)); };
  int differ = 0;
  for (int row = 0; row < kRows; ++row)
    for (int col = 0; col < 64; ++col) differ += ours(row, col) != offset(row, col);
  report(what, kRows * 64, differ);
}

// Of the operands of a block of 128 x 128, in shared memory from address 0 on: CuTe knows of no other on the host, and
// says so on stdout.
template <class T, class F>
void compare_descriptors(const char* what, F ours) {
  const auto shared = make_tensor(make_smem_ptr(static_cast<T*>(nullptr)), chunk<128, T>());
  const auto warpgroup = make_tiled_mma(Atom<T>{}).get_slice(0);
  const auto a = warpgroup.make_fragment_A(warpgroup.partition_A(shared));
  const auto b = warpgroup.make_fragment_B(warpgroup.partition_B(shared));
  static_assert(size<1>(a) == 2 && size<1>(b) == 1 && size<2>(a) == 4 && size<2>(b) == 4);
  int differ = 0;
  for (int step = 0; step < 4; ++step) {
    for (int half = 0; half < 2; ++half) differ += ours(half * 64 * 128, step) != uint64_t(a(0, half, step));
    differ += ours(0, step) != uint64_t(b(0, 0, step));
  }
  report(what, 12, differ);
}

// What the driver is asked for; how much of a line of memory L2 fetches is no affair of the layout.
struct Asked {
  CUtensorMapDataType type;
  std::vector<uint64_t> sizes, strides;
  std::vector<uint32_t> box, steps;
  const void* data;
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapFloatOOBfill fill;
  bool operator==(const Asked&) const = default;
};
static Asked asked;

static CUresult encode(CUtensorMap*, CUtensorMapDataType type, cuuint32_t rank, void* data, const cuuint64_t* sizes,
                       const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps,
                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                       CUtensorMapFloatOOBfill fill) {
  asked = {type,
           {sizes, sizes + rank},
           {strides, strides + rank - 1},
           {box, box + rank},
           {steps, steps + rank},
           data,
           interleave,
           swizzle,
           fill};
  return CUDA_SUCCESS;
}

// In the place of the runtime's, by the linker's --wrap: there is no driver here.
static cudaError_t find(const char* name, void** function, cudaDriverEntryPointQueryResult* found) {
  const bool known = std::strcmp(name, "cuTensorMapEncodeTiled") == 0;
  *function = known ? reinterpret_cast<void*>(&encode) : nullptr;
  *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
extern "C" cudaError_t __wrap_cudaGetDriverEntryPoint(const char* name, void** function, unsigned long long,
                                                      cudaDriverEntryPointQueryResult* found) {
  return find(name, function, found);
}
extern "C" cudaError_t __wrap_cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                               unsigned long long,
                                                               cudaDriverEntryPointQueryResult* found) {
  return find(name, function, found);
}

// Maps of matrices whose rows are or are not apart from each other, in boxes of kRows rows.
template <int kRows, class T>
void compare_maps(const char* what, bool half, int box_rows) {
  alignas(16) static T data[8];
  constexpr int kMatrices[][3] = {{1000, 512, 512}, {77, 520, 528}, {1, 8, 8}};
  int differ = 0;
  for (const auto& [rows, cols, stride] : kMatrices) {
    make_tma_copy(SM90_TMA_LOAD{},
                  make_tensor(make_gmem_ptr(&data[0]), make_shape(rows, cols), make_stride(stride, _1{})),
                  chunk<kRows, T>());
    const Asked cutes = std::exchange(asked, Asked{});
    pyfastcal::cuda::prim::TensorMap map;
    const auto error = pyfastcal::cuda::prim::make_tensor_map(&map, half, data, rows, cols, stride, box_rows);
    differ += error != cudaSuccess || asked != cutes;
  }
  report(what, 3, differ);
}

int main() {
  const auto swapped = [](int thread, int n, int half, int e) { return ours::element(thread, n, e, half); };
  compare_elements<bfloat16_t>("accumulators", ours::element);
  compare_elements<half_t>("accumulators of fp16", ours::element);
  compare_elements<bfloat16_t>("wrong accumulators: half and e swapped", swapped);

  const auto plain = [](int row, int col) { return row * 128 + col * 2; };
  compare_offsets<128, bfloat16_t>("a chunk", ours::offset);
  compare_offsets<64, half_t>("a chunk of 64 rows of fp16", ours::offset);
  compare_offsets<128, bfloat16_t>("wrong chunk: nothing permuted", plain);

  const auto too_far = [](uint32_t address, int step) { return ours::descriptor(address, 2 * step); };
  const auto other_stride = [](uint32_t address, int step) {
    return ours::descriptor(address, step) ^ uint64_t(64) << 32 ^ uint64_t(32) << 32;
  };
  compare_descriptors<bfloat16_t>("descriptors", ours::descriptor);
  compare_descriptors<half_t>("descriptors of fp16", ours::descriptor);
  compare_descriptors<bfloat16_t>("wrong descriptors: 32 columns a step", too_far);
  compare_descriptors<bfloat16_t>("wrong descriptors: 512 bytes for 8 rows", other_stride);

  compare_maps<128, bfloat16_t>("tensor maps", false, 128);
  compare_maps<64, half_t>("tensor maps of 64 rows of fp16", true, 64);
  compare_maps<128, bfloat16_t>("wrong tensor maps: of fp16", true, 128);
  compare_maps<128, bfloat16_t>("wrong tensor maps: half a box", false, 64);
}
