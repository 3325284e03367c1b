// From torch tensors to the CPU kernels.
#pragma once
#include "../common/shapes.h"
#include "kernels.h"
