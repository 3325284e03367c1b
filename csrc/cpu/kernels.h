// The face of the CPU kernels: plain pointers, no torch. One table of them per variant (scalar, AVX2, AVX-512, with
// bf16, with AMX, NEON, with bf16). What the functions compute is defined in pyfastcal/reference; arguments were
// checked in pyfastcal/ops/.
#pragma once
#include "../common/arguments.h"
#include "../common/nll.h"

namespace pyfastcal {

struct Kernels {
  const char* name;
  // confidence, prediction: one entry per row; NaN confidence where a row holds NaN or infinity, or nothing but
  // minus infinity, which masks a class
  void (*confidence)(const Matrix& logits, const Factors& factors, float* confidence, int64_t* prediction);
  // bias: one entry per class, or null
  void (*similarity_confidence)(const Matrix& image, const Matrix& text, float scale, const float* bias,
                                const Factors& factors, bool normalize, float* confidence, int64_t* prediction);
  // distances, indices: (queries.rows, k); NaN where a vector holds NaN or infinity
  void (*knn)(const Matrix& queries, const Matrix& bank, int64_t k, bool exclude_self, bool normalize, float* distances,
              int64_t* indices);
  // z: one entry per image
  void (*contrast_distance)(const Matrix& image, const Matrix& text, const Matrix& image0, const Matrix& text0,
                            bool probability, float scale, bool normalize, float* z);
  // totals: (3, n_groups, n_bins) counts, correct, confidence * 2^32, added to; group: one entry per value, or null;
  // invalid: the number of values that are no confidence or belong to no group, added to
  void (*bin_counts)(const void* confidence, Dtype dtype, const bool* correct, const int64_t* group, int64_t n,
                     const Bins& bins, int64_t* totals, int64_t* invalid);
  // NaN where a row holds NaN or infinity, or its label is no class or a masked one
  Nll (*nll)(const Matrix& logits, const int64_t* labels, double beta);
  // out: (image.rows, text.rows); NaN or infinity where a vector holds either
  void (*similarity)(const Matrix& image, const Matrix& text, bool normalize, float* out);
  // queries, points: fp32 in two columns; bandwidth: of each column; out: the log density at each query
  void (*log_density)(const Matrix& queries, const Matrix& points, const double* bandwidth, double* out);
  // out: of the dtype of the logits, which are as many, times a factor of each row: `factor`, unless there are others;
  // false where a logit is, or becomes, neither finite nor masked
  bool (*scale_logits)(const Matrix& logits, const Factors& factors, float factor, void* out);
  // out: |a - b| of as many numbers, in fp32, rows side by side
  void (*absolute_difference)(const Matrix& a, const Matrix& b, float* out);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels, kAvx512Kernels, kAvx512Bf16Kernels;
#if defined(__linux__)
extern const Kernels kAmxBf16Kernels;
#endif
#elif defined(__aarch64__)
extern const Kernels kNeonKernels, kNeonBf16Kernels;
#endif

// The table in use: the best that this processor runs, or the one that was selected by name.
const Kernels& kernels();
// The table for so many numbers in all, where every variant has the same bits.
const Kernels& kernels(int64_t numbers);
bool select_kernels(const char* name);  // false: no such variant here
// The names that this processor runs, best first, ended by null.
const char* const* supported_kernels();

// Runs f(task, context) for every task in [0, n) on torch's thread pool. Each thread has its share of them, and helps
// the others when it has done it; no result may depend on which thread ran what.
void run_tasks(int64_t n, void (*f)(int64_t task, void* context), void* context);
int64_t thread_count();

template <class F>
void parallel_tasks(int64_t n, const F& f) {
  run_tasks(n, [](int64_t task, void* context) { (*static_cast<const F*>(context))(task); }, const_cast<F*>(&f));
}

}  // namespace pyfastcal
