// Rows of a Matrix as fp32: in place where they are, else converted into a scratch buffer. Norms and exact dot
// products in double, in a fixed order.
#pragma once
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <memory>
#include <new>
#include <type_traits>

#include "kernels.h"
#include "lane_sums.h"

namespace pyfastcal::PYFASTCAL_VARIANT {

// Memory that nothing was written to yet is made of large pages, if it is much and the kernel has some: a page is
// cleared and mapped when it is first touched, which takes longer than what is then written there.
inline void want_large_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  constexpr int64_t kMuch = 8 << 20, kPage = 4096;
  if (bytes < kMuch) return;
  const int64_t skip = -reinterpret_cast<intptr_t>(data) & (kPage - 1);
  madvise(static_cast<char*>(data) + skip, size_t(bytes - skip), MADV_HUGEPAGE);
#endif
}

// An aligned, uninitialised array of T.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n) : data_(static_cast<T*>(::operator new(sizeof(T) * n, std::align_val_t(64)))) {
    want_large_pages(data_, int64_t(sizeof(T)) * n);
  }
  ~Buffer() { ::operator delete(data_, std::align_val_t(64)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

// f(pointer of the element type)
template <class F>
inline void with_type(const Matrix& m, const F& f) {
  switch (m.dtype) {
    case Dtype::kFloat: return f(static_cast<const float*>(m.data));
    case Dtype::kHalf: return f(static_cast<const Half*>(m.data));
    case Dtype::kBFloat16: return f(static_cast<const BFloat16*>(m.data));
    case Dtype::kDouble: return;  // no matrix is
  }
}

template <class T>
inline void convert(const T* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, load(from + i));
  for (; i < n; ++i) to[i] = to_float(from[i]);
}

struct FloatRows {
  const float* data;
  int64_t stride;
};

// Rows [begin, begin + n); scratch holds n * cols floats and is used unless the rows are fp32 already.
inline FloatRows float_rows(const Matrix& m, int64_t begin, int64_t n, float* scratch) {
  FloatRows out{scratch, m.cols};
  with_type(m, [&](auto* data) {
    data += begin * m.stride;
    if constexpr (std::is_same_v<decltype(data), const float*>)
      out = {data, m.stride};
    else
      for (int64_t i = 0; i < n; ++i) convert(data + i * m.stride, m.cols, scratch + i * m.cols);
  });
  return out;
}

// Asks for rows [begin, end) to be brought into L2.
inline void prefetch_rows(const Matrix& m, int64_t begin, int64_t end) {
  with_type(m, [&](auto* data) {
    constexpr int64_t kLine = 64 / sizeof(*data);
    asm volatile("");  // GCC drops a function that does nothing but prefetch
    for (int64_t i = begin; i < end; ++i)
      for (int64_t k = 0; k < m.cols; k += kLine) __builtin_prefetch(data + i * m.stride + k, 0, 2);
  });
}

// add(i, sum) over i in [0, n), in sixteen interleaved partial sums: vectorises without reordering.
template <class F>
inline double accumulate_in_lanes(int64_t n, const F& add) {
  double sum[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) sum[j] = add(i + j, sum[j]);
  for (int64_t j = 0; i + j < n; ++j) sum[j] = add(i + j, sum[j]);
  return add_lanes(sum);
}

inline double dot(const float* a, const float* b, int64_t n) {
  LaneSums sums;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums.add_products(a + i, b + i);
  return sums.total(n - i, [=](int64_t l, double sum) { return multiply_add(a[i + l], b[i + l], sum); });
}

// Cannot overflow: the square of the largest float fits in a double, often.
inline double norm(const float* a, int64_t n) { return std::sqrt(dot(a, a, n)); }

// The squared norm in fp32: for filters, whose slack covers its error.
inline float square_norm(const float* a, int64_t n) {
  Vec sum[2] = {set1(0.0f), set1(0.0f)};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes)
    for (int j = 0; j < 2; ++j) sum[j] = fma(load(a + i + j * kLanes), load(a + i + j * kLanes), sum[j]);
  for (; i < n; i += kLanes) {
    const Vec x = n - i < kLanes ? load_first(a + i, n - i, 0.0f) : load(a + i);
    sum[0] = fma(x, x, sum[0]);
  }
  return reduce_add(sum[0] + sum[1]);
}

// What a row is multiplied by to have length 1; one shorter than 1e-12 is divided by that, as in
// torch.nn.functional.normalize: a zero row stays zero.
inline double inverse_norm(double norm) { return 1.0 / (norm > 1e-12 ? norm : norm >= 0 ? 1e-12 : norm); }

// Whether a squared length is precise in fp32, products with the row neither overflow nor vanish, and the length is no
// shorter than what a row is divided by at least. False for NaN.
inline bool is_plain_square(float square) { return square > 1e-20f && square < 1e30f; }

// Whether fp32 products with this row keep their precision: neither overflow nor denormals are near. False for NaN.
inline bool in_float_range(double norm) { return norm == 0 || (norm > 1e-15 && norm < 1e15); }

}  // namespace pyfastcal::PYFASTCAL_VARIANT
