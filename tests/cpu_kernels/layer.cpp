// Compiled once per variant, with its macros and flags. Nothing here may be linked into another variant's code.
#include "layer.h"

#include "cpu/vec.h"

namespace pyfastcal::tests {

using namespace PYFASTCAL_VARIANT;

#define PYFASTCAL_BINARY(expression)               \
  [](const float* p, const float* q, float* out) { \
    const Vec a = load(p), b = load(q);            \
    store(out, expression);                        \
  }
#define PYFASTCAL_UNARY(expression) \
  [](const float* p, float* out) {  \
    const Vec a = load(p);          \
    store(out, expression);         \
  }

extern const Layer PYFASTCAL_LAYER{
    [](const uint16_t* p, float* out) { store(out, load(reinterpret_cast<const Half*>(p))); },
    [](const uint16_t* p, float* out) { store(out, load(reinterpret_cast<const BFloat16*>(p))); },
    PYFASTCAL_BINARY(a + b),
    PYFASTCAL_BINARY(a - b),
    PYFASTCAL_BINARY(a * b),
    PYFASTCAL_BINARY(PYFASTCAL_VARIANT::max(a, b)),
    PYFASTCAL_BINARY(PYFASTCAL_VARIANT::min(a, b)),
    [](const float* a, const float* b, const float* c, float* out) {
      store(out, PYFASTCAL_VARIANT::fma(load(a), load(b), load(c)));
    },
    PYFASTCAL_UNARY(PYFASTCAL_VARIANT::abs(a)),
    PYFASTCAL_UNARY(Exp2()(a)),
    PYFASTCAL_UNARY(PYFASTCAL_VARIANT::low_bits_as_exponent(a)),
    [](float x, float* p, float* q) {
      store(p, set1(x));
      store(q, constant(x));
    },
    [](const float* a, int32_t* out) { store_truncated(out, load(a)); },
    [](const float* a, const float* b) { return equal(load(a), load(b)); },
    [](const float* a, const float* b) { return not_less(load(a), load(b)); },
    [](const float* a) { return reduce_add(load(a)); },
    [](const float* a, float* out) {
      Vec sums[kReduced];
      for (int i = 0; i < kReduced; ++i) sums[i] = load(a + i * kLanes);
      reduce_add(sums, out);
    },
    [](const float* a) { return reduce_max(load(a)); },
    [](const float* a) { return reduce_min(load(a)); },
    [](const float* p, int64_t n, float fill, float* out) { store(out, PYFASTCAL_VARIANT::load_first(p, n, fill)); },
    [](const float* a, int64_t n, float* out) { store(out, PYFASTCAL_VARIANT::keep_first(load(a), n)); },
};

}  // namespace pyfastcal::tests
