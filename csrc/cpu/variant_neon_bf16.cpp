#define PYFASTCAL_NEON
#define PYFASTCAL_BF16
#define PYFASTCAL_VARIANT neon_bf16
#define PYFASTCAL_NAME "neon_bf16"
#define PYFASTCAL_TABLE kNeonBf16Kernels
#include "variant.h"
