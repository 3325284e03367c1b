#define PYFASTCAL_AVX512
#define PYFASTCAL_VARIANT avx512
#define PYFASTCAL_NAME "avx512"
#define PYFASTCAL_TABLE kAvx512Kernels
#include "variant.h"
