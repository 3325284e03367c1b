// Rows of features for the tests of the products' kernels, and what they are in fp64.
#pragma once
#include <array>
#include <limits>
#include <utility>

#include "dtypes.h"
#include "testing.h"

inline constexpr float kInfinity = std::numeric_limits<float>::infinity(),
                       kNaN = std::numeric_limits<float>::quiet_NaN();

template <class T>
struct Features {
  DeviceArray<T> data;
  int64_t rows, cols, stride;

  // offset and padding: elements before the first row and after each
  Features(int64_t rows, int64_t cols, uint32_t seed, int64_t offset = 0, int64_t padding = 0)
      : data(testing::random_normal(size_t(rows * (cols + padding)), seed), size_t(offset)),
        rows(rows),
        cols(cols),
        stride(cols + padding) {}
  pyfastcal::Matrix matrix() const { return {data.data(), kDtype<T>, rows, cols, stride}; }
  T* row(int64_t i) { return data.data() + i * stride; }
  double at(int64_t i, int64_t k) const { return double(float(data[size_t(i * stride + k)])); }
  double norm(int64_t i) const {
    double sum = 0;
    for (int64_t k = 0; k < cols; ++k) sum += at(i, k) * at(i, k);
    return std::sqrt(sum);
  }
  std::vector<double> numbers() const {
    std::vector<double> all;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < cols; ++k) all.push_back(at(i, k));
    return all;
  }
  void scale(int64_t i, double by) {
    for (int64_t k = 0; k < cols; ++k) row(i)[k] = T(float(at(i, k) * by));
  }
};

// Images of these lengths, and nine classes of the first of them.
template <class T>
std::pair<Features<T>, Features<T>> of_lengths(std::initializer_list<double> lengths, int64_t cols = 40) {
  Features<T> image(int64_t(lengths.size()), cols, 1), text(9, cols, 2);
  int64_t i = 0;
  for (const double length : lengths) {
    image.scale(i, length);
    if (i < 9) text.scale(i, length);
    ++i;
  }
  return {std::move(image), std::move(text)};
}

// What a row of this norm is multiplied by to have length 1.
inline double unit(double norm) { return 1 / std::max(norm, 1e-12); }

template <class T, class U>
double dot(const Features<T>& a, int64_t i, const Features<U>& b, int64_t j) {
  double sum = 0;
  for (int64_t k = 0; k < a.cols; ++k) sum += a.at(i, k) * b.at(j, k);
  return sum;
}
