// The vector layer of one variant (csrc/cpu/vec.h) behind plain pointers, sixteen lanes each.
#pragma once
#include <cstdint>

namespace pyfastcal::tests {

inline constexpr int kReduced = 19;  // by one call: eight and eight, and three that are left over

struct Layer {
  void (*load_half)(const uint16_t* p, float* out);
  void (*load_bfloat16)(const uint16_t* p, float* out);
  void (*add)(const float* a, const float* b, float* out);
  void (*subtract)(const float* a, const float* b, float* out);
  void (*multiply)(const float* a, const float* b, float* out);
  void (*max)(const float* a, const float* b, float* out);
  void (*min)(const float* a, const float* b, float* out);
  void (*fma)(const float* a, const float* b, const float* c, float* out);
  void (*abs)(const float* a, float* out);
  void (*exp2)(const float* a, float* out);
  void (*low_bits_as_exponent)(const float* a, float* out);
  void (*constants)(float x, float* set1, float* constant);
  void (*truncated)(const float* a, int32_t* out);
  uint32_t (*equal)(const float* a, const float* b);
  uint32_t (*not_less)(const float* a, const float* b);
  float (*reduce_add)(const float* a);
  void (*reduce_add_each)(const float* a, float* out);
  float (*reduce_max)(const float* a);
  float (*reduce_min)(const float* a);
  void (*load_first)(const float* p, int64_t n, float fill, float* out);
  void (*keep_first)(const float* a, int64_t n, float* out);
};
const Layer& layer_of(const char* variant);

extern const Layer kScalarLayer;
#if defined(__x86_64__)
extern const Layer kAvx2Layer, kAvx512Layer, kAvx512Bf16Layer, kAmxBf16Layer;
#elif defined(__aarch64__)
extern const Layer kNeonLayer, kNeonBf16Layer;
#endif

}  // namespace pyfastcal::tests
