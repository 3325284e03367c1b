// Which of the two products a launch takes: that of warps on mma.sync (gemm.cuh), which runs everywhere, or that of
// warpgroups on wgmma, Hopper's own.
#pragma once

namespace pyfastcal::cuda {

// What the user asks for; kAuto: the second where a GPU has shown it to be faster (warpgroups/choice.cuh).
enum class ProductChoice { kAuto, kMma, kWgmma };

}  // namespace pyfastcal::cuda
