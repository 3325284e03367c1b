// pyfastcal._C: what the build is and which CPU kernels run. Importing it registers the ops. No torch headers here.
// What it says of the CUDA half, which is a library of its own (_cuda), comes from the build of both.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build information and CPU capability of pyfastcal's kernels.";
  m.attr("compiler") = PYFASTCAL_COMPILER;
  m.attr("built_for_torch") = PYFASTCAL_TORCH_TARGET;
  m.attr("cuda_archs") = PYFASTCAL_CUDA_ARCHS;      // sm_90a ..., with spaces; empty without a CUDA half
  m.attr("cuda_toolkit") = PYFASTCAL_CUDA_TOOLKIT;  // its version
  m.attr("no_cuda") = PYFASTCAL_NO_CUDA;            // why there is no CUDA half
  m.def("cpu_capability", [] { return std::string(pyfastcal::kernels().name); }, "The variant in use.");
  m.def(
      "cpu_capabilities",
      [] {
        std::vector<std::string> names;
        for (const char* const* name = pyfastcal::supported_kernels(); *name; ++name) names.emplace_back(*name);
        return names;
      },
      "The variants that this processor runs, best first.");
  m.def(
      "set_cpu_capability",
      [](const std::string& name) {
        if (!pyfastcal::select_kernels(name.c_str()))
          throw py::value_error("name must be one of cpu_capabilities(), got '" + name + "'");
      },
      py::arg("name"), "Select a variant, for tests and comparisons.");
}
