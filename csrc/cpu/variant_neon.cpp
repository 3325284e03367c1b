#define PYFASTCAL_NEON
#define PYFASTCAL_VARIANT neon
#define PYFASTCAL_NAME "neon"
#define PYFASTCAL_TABLE kNeonKernels
#include "variant.h"
