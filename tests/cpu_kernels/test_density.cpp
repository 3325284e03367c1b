// log_density against plain loops in double.
#include <algorithm>

#include "inputs.h"

namespace pyfastcal::tests {

PYFASTCAL_TEST(densities) {
  for (const int64_t points : {1, 15, 16, 17, 2048, 2051})
    for (const int64_t queries : {0, 1, 5, 64, 65})
      for (const double far : {0.0, 1.0, 60.0}) {  // how many bandwidths a query lies away
        if (points * queries > 12000 && (points + queries != 2051 + 65 || far != 1)) continue;
        Numbers numbers(uint64_t(points + queries));
        const double bandwidth[2] = {0.3, 0.02};
        const auto in_plane = [&](double shift) {
          return
              [&numbers, &bandwidth, shift](int64_t, int64_t j) { return (numbers.normal() + shift) * bandwidth[j]; };
        };
        const Rows x(Dtype::kFloat, points, 2, 1, in_plane(0)), q(Dtype::kFloat, queries, 2, 0, in_plane(far));
        const std::string what = shape("density", q, " of " + std::to_string(points) + " " + std::to_string(far));
        const std::vector<double> got =
            outputs<double>(queries, what, [&](double* out) { kernels.log_density(q, x, bandwidth, out); });
        for (int64_t i = 0; i < queries; ++i) {
          std::vector<double> t;
          for (int64_t p = 0; p < points; ++p) {
            const double u = (q.at(i, 0) - x.at(p, 0)) / bandwidth[0], v = (q.at(i, 1) - x.at(p, 1)) / bandwidth[1];
            t.push_back(-(u * u + v * v) / 2);
          }
          const double top = *std::max_element(t.begin(), t.end());
          double sum = 0;
          for (const double one : t) sum += std::exp(one - top);
          const double want =
              top + std::log(sum) - std::log(2 * std::acos(-1.0) * bandwidth[0] * bandwidth[1] * double(points));
          EXPECT_CLOSE(got[size_t(i)], want, 1e-5, what + ", query " + std::to_string(i));
        }
      }
}

}  // namespace pyfastcal::tests
