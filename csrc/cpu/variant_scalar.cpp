#define PYFASTCAL_VARIANT scalar
#define PYFASTCAL_NAME "scalar"
#define PYFASTCAL_TABLE kScalarKernels
#include "variant.h"
