// Marks what both the host and a CUDA device run; nothing to other compilers.
#pragma once

#if defined(__CUDACC__)
#define PYFASTCAL_HOST_DEVICE __host__ __device__
#else
#define PYFASTCAL_HOST_DEVICE
#endif
