// From torch tensors to the CPU kernels.
#pragma once
#include "../common/tensors.h"
#include "kernels.h"
