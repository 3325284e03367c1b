// Which product similarity_confidence takes when, and that it is the other one, to the bit, where it cannot be that by
// warpgroups.
#include "similarity_confidence.h"

using namespace pyfastcal;
using cuda::ProductChoice;
using cuda_model::settings;

namespace {

// Whether kWgmma is what it asks for; where not, it is the other product to the bit.
template <class T, class U>
bool takes_warpgroups(const Features<T>& image, const Features<U>& text) {
  Options options{.product = ProductChoice::kMma};
  const Result other = run_either(image.matrix(), text.matrix(), options);
  CHECK(!other.by_warpgroups);
  options.product = ProductChoice::kWgmma;
  const Result wanted = run_either(image.matrix(), text.matrix(), options);
  for (size_t i = 0; i < size_t(image.rows); ++i) {
    if (wanted.by_warpgroups) {
      CHECK_NEAR(wanted.confidence[i], other.confidence[i], 1e-4 * double(other.confidence[i]), i);
    } else {
      CHECK_EQUAL(wanted.confidence[i], other.confidence[i], i);
      CHECK_EQUAL(wanted.prediction[i], other.prediction[i], i);
    }
  }
  options.product = ProductChoice::kAuto;
  CHECK_EQUAL(run_either(image.matrix(), text.matrix(), options).by_warpgroups,
              cuda::warpgroups::MeasuredFaster::similarity_confidence && wanted.by_warpgroups);
  return wanted.by_warpgroups;
}

using Bf16 = Features<__nv_bfloat16>;

}  // namespace

TEST(warpgroups_are_taken_where_rows_are_long_and_of_16_bits) {
  CHECK(takes_warpgroups(Bf16(5, 449, 1), Bf16(9, 449, 2)));
  CHECK(takes_warpgroups(Features<__half>(5, 449, 1), Features<__half>(9, 449, 2)));
  CHECK(!takes_warpgroups(Bf16(5, 448, 1), Bf16(9, 448, 2)));
  CHECK(!takes_warpgroups(Features<float>(5, 512, 1), Features<float>(9, 512, 2)));
  CHECK(!takes_warpgroups(Features<__half>(5, 512, 1), Bf16(9, 512, 2)));
  CHECK(!takes_warpgroups(Bf16(5, 512, 1), Features<float>(9, 512, 2)));
}

TEST(warpgroups_are_taken_on_hopper) {
  const Bf16 image(5, 449, 1), text(9, 449, 2);
  for (const int capability : {80, 90, 100, 120}) {
    settings.capability = capability;
    CHECK_EQUAL(takes_warpgroups(image, text), capability == 90, capability);
  }
  settings.capability = 90;
  const size_t least = cuda::similarity_confidence::kGroupSharedBytes;
  for (const size_t shared : {least, least - 1}) {
    ++settings.device;
    settings.shared_per_block = shared;
    CHECK_EQUAL(takes_warpgroups(image, text), shared == least);
  }
}
