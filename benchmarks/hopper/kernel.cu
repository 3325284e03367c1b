// One configuration's kernel: compiled once for each, in a unit of its own; several in one spilled registers.
#include "kernel.cuh"

namespace pyfastcal::hopper {

template <int kIndex>
const void* kernel_address() {
  return reinterpret_cast<const void*>(study_kernel<Plan<kIndex>>);
}
template const void* kernel_address<PYFASTCAL_CONFIGURATION>();

}  // namespace pyfastcal::hopper
