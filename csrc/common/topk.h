// The order of neighbours: by distance, and at equal distance by index, so that the K nearest are one definite list.
#pragma once
#include <cstdint>

#include "host_device.h"

namespace pyfastcal {

struct Neighbour {
  double distance;  // or its square: the order is the same
  int64_t index;
};

PYFASTCAL_HOST_DEVICE inline bool nearer(const Neighbour& a, const Neighbour& b) {
  return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
}

}  // namespace pyfastcal
