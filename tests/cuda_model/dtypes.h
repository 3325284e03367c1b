// The kernels' name for each type of number.
#pragma once
#include <type_traits>

#include "common/arguments.h"
#include "cuda/runtime/primitives.cuh"

template <class T>
inline constexpr pyfastcal::Dtype kDtype = std::is_same_v<T, float>    ? pyfastcal::Dtype::kFloat
                                           : std::is_same_v<T, double> ? pyfastcal::Dtype::kDouble
                                           : std::is_same_v<T, __half> ? pyfastcal::Dtype::kHalf
                                                                       : pyfastcal::Dtype::kBFloat16;
