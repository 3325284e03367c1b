#define PYFASTCAL_AVX512
#define PYFASTCAL_BF16
#define PYFASTCAL_AMX
#define PYFASTCAL_VARIANT amx_bf16
#define PYFASTCAL_NAME "amx_bf16"
#define PYFASTCAL_TABLE kAmxBf16Kernels
#include "variant.h"
