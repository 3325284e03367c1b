// Compiles every kernel once, for the instruction set of the including file, into the table `PYFASTCAL_TABLE`.
#include "absolute_difference.h"
#include "bins.h"
#include "confidence.h"
#include "contrast.h"
#include "density.h"
#include "knn.h"
#include "nll.h"
#include "scale_logits.h"
#include "similarity.h"
#include "similarity_confidence.h"

namespace pyfastcal {
extern const Kernels PYFASTCAL_TABLE{
    PYFASTCAL_NAME,
    PYFASTCAL_VARIANT::confidence,
    PYFASTCAL_VARIANT::similarity_confidence,
    PYFASTCAL_VARIANT::knn,
    PYFASTCAL_VARIANT::contrast_distance,
    PYFASTCAL_VARIANT::bin_counts,
    PYFASTCAL_VARIANT::nll,
    PYFASTCAL_VARIANT::similarity,
    PYFASTCAL_VARIANT::log_density,
    PYFASTCAL_VARIANT::scale_logits,
    PYFASTCAL_VARIANT::absolute_difference,
};
}
