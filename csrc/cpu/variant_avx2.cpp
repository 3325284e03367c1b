#define PYFASTCAL_AVX2
#define PYFASTCAL_VARIANT avx2
#define PYFASTCAL_NAME "avx2"
#define PYFASTCAL_TABLE kAvx2Kernels
#include "variant.h"
