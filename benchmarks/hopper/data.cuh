// The study's data, on the GPU, and what must come out, from plain fp32 products.
#pragma once
#include <cuda_bf16.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <vector>

#include "plan.cuh"

// Ends the process where a call fails: it is a child of one that goes on with the next configuration.
#define PYFASTCAL_CHECK(call) pyfastcal::hopper::check(call, #call)

namespace pyfastcal::hopper {

inline constexpr int kRows = 1000000;
inline constexpr int kPaddedClasses = 1280;  // no tile reads further
inline constexpr int kChecked = 2048;        // rows at the beginning, and as many at the end
inline constexpr float kFirst = 1.0f, kSecond = 0.8f;

[[noreturn]] inline void give_up(const char* what, const char* why, int code = 3) {
  printf("FAILED: %s: %s\n", what, why);
  fflush(stdout);
  _exit(code);
}
inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) give_up(what, cudaGetErrorString(error));
}

__device__ inline uint32_t hash(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  x ^= x >> 33;
  return uint32_t(x);
}

// Normal, of unit length; a warp a row.
__global__ void fill(__nv_bfloat16* x, int rows, uint64_t seed) {
  const int row = int((blockIdx.x * size_t(blockDim.x) + threadIdx.x) / 32), lane = int(threadIdx.x) % 32;
  if (row >= rows) return;
  float v[kDepth / 32], squares = 0;
  for (int i = 0; i < kDepth / 32; ++i) {
    const uint64_t n = seed + uint64_t(row) * kDepth + i * 32 + lane;
    const float u = (hash(2 * n) + 1.0f) * 2.3283e-10f, angle = hash(2 * n + 1) * 2.3283e-10f;
    v[i] = sqrtf(-2 * logf(fminf(u, 1.0f))) * cospif(2 * angle);
    squares += v[i] * v[i];
  }
  for (int o = 16; o; o /= 2) squares += __shfl_xor_sync(~0u, squares, o);
  for (int i = 0; i < kDepth / 32; ++i)
    x[size_t(row) * kDepth + i * 32 + lane] = __float2bfloat16(v[i] * rsqrtf(squares));
}

struct Expected {
  float top_product;  // the maximum of the products, without scale and offset
  int prediction;
  float confidence;
  float lead;  // of the prediction's logit over the second
};

// A block a row, from `first` on.
__global__ void expect(const __nv_bfloat16* rows, const __nv_bfloat16* vectors, const float2* classes,
                       const float* gain, const float* weight, int first, Expected* out) {
  __shared__ float x[kDepth], product[kClasses], logit[kClasses];
  const int row = first + int(blockIdx.x);
  for (int i = int(threadIdx.x); i < kDepth; i += int(blockDim.x))
    x[i] = __bfloat162float(rows[size_t(row) * kDepth + i]);
  __syncthreads();
  for (int c = int(threadIdx.x); c < kClasses; c += int(blockDim.x)) {
    float sum = 0;
    for (int i = 0; i < kDepth; ++i) sum = fmaf(x[i], __bfloat162float(vectors[size_t(c) * kDepth + i]), sum);
    product[c] = sum;
    logit[c] = fmaf(sum, classes[c].x, classes[c].y);
  }
  __syncthreads();
  if (threadIdx.x) return;
  float top = -INFINITY, second = -INFINITY, top_product = -INFINITY;
  int best = 0;
  for (int c = 0; c < kClasses; ++c) {
    top_product = fmaxf(top_product, product[c]);
    if (logit[c] > top) {
      second = top;
      top = logit[c];
      best = c;
    } else {
      second = fmaxf(second, logit[c]);
    }
  }
  double sum = 0;
  for (int c = 0; c < kClasses; ++c) sum += exp(double(logit[c] - top) * gain[row] * weight[best]);
  out[blockIdx.x] = {top_product, best, float(1 / sum), top - second};
}

template <class T>
T* allocate(size_t count) {
  void* p = nullptr;
  check(cudaMalloc(&p, count * sizeof(T)), "cudaMalloc");
  return static_cast<T*>(p);
}
template <class T>
void upload(T* to, const std::vector<T>& from) {
  PYFASTCAL_CHECK(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
}
template <class T>
std::vector<T> download(const T* from, size_t count) {
  std::vector<T> to(count);
  PYFASTCAL_CHECK(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return to;
}

struct Data {
  __nv_bfloat16 *rows = allocate<__nv_bfloat16>(size_t(kRows) * kDepth),
                *vectors = allocate<__nv_bfloat16>(size_t(kClasses) * kDepth);
  float2* classes = allocate<float2>(kPaddedClasses);
  float *gain = allocate<float>(kRows), *weight = allocate<float>(kPaddedClasses);
  float* confidence = allocate<float>(kRows);
  int* prediction = allocate<int>(kRows);
  std::vector<Expected> one_weight, two_weights;  // for the checked rows

  Data() {
    fill<<<(kRows + 7) / 8, 256>>>(rows, kRows, 0);
    fill<<<(kClasses + 7) / 8, 256>>>(vectors, kClasses, uint64_t(1) << 40);
    std::vector<float2> scales(kPaddedClasses, make_float2(0, -INFINITY));
    for (int c = 0; c < kClasses; ++c) scales[c] = make_float2(100.0f * (1 + 0.01f * (c % 7)), 0.05f * (c % 5));
    std::vector<float> ones(kPaddedClasses, kFirst), weights(kPaddedClasses), gains(kRows);
    for (int c = 0; c < kPaddedClasses; ++c) weights[c] = c % 2 ? kSecond : kFirst;
    for (int i = 0; i < kRows; ++i) gains[i] = 0.75f + 0.25f * (i % 3);
    upload(classes, scales);
    upload(gain, gains);
    one_weight = expected_with(ones);
    two_weights = expected_with(weights);  // which stay
    PYFASTCAL_CHECK(cudaDeviceSynchronize());
  }

  // The row of the i-th Expected.
  static int checked_row(int i) { return i < kChecked ? i : kRows - 2 * kChecked + i; }

 private:
  std::vector<Expected> expected_with(const std::vector<float>& weights) {
    upload(weight, weights);
    Expected* const out = allocate<Expected>(2 * kChecked);
    expect<<<kChecked, 256>>>(rows, vectors, classes, gain, weight, checked_row(0), out);
    expect<<<kChecked, 256>>>(rows, vectors, classes, gain, weight, checked_row(kChecked), out + kChecked);
    std::vector<Expected> expected = download(out, 2 * kChecked);
    PYFASTCAL_CHECK(cudaFree(out));
    return expected;
  }
};

}  // namespace pyfastcal::hopper
