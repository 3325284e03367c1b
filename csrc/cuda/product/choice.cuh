// Which product a kernel takes, where there is a choice.
#pragma once

namespace pyfastcal::cuda {

// kAuto: where a GPU has shown the one by warpgroups to be faster. kMma: never that. kWgmma: wherever it can be.
enum class ProductChoice { kAuto, kMma, kWgmma };

}  // namespace pyfastcal::cuda
