#define PYFASTCAL_AVX512
#define PYFASTCAL_BF16
#define PYFASTCAL_VARIANT avx512_bf16
#define PYFASTCAL_NAME "avx512_bf16"
#define PYFASTCAL_TABLE kAvx512Bf16Kernels
#include "variant.h"
