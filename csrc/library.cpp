// The schema of every op, once. Kernels register themselves per backend (cpu/*.cpp, cuda/*.cu).
//
// Arguments were checked in pyfastcal/ops/, their shapes are once more (common/shapes.h). Non-finite input is not an
// error here: it gives NaN in the rows that depend on it (bin_counts: a count of invalid values), which the ops'
// entries turn into an error where they may look. Logits of minus infinity are masked classes.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pyfastcal, m) {
  m.def(
      "knn(Tensor queries, Tensor bank, int k, bool exclude_self, bool normalize) -> (Tensor distances, Tensor "
      "indices)");
  m.def(
      "confidence(Tensor logits, Tensor? class_weight, Tensor? sample_weight) -> (Tensor confidence, Tensor "
      "prediction)");
  m.def(
      "similarity_confidence(Tensor image_features, Tensor text_features, float logit_scale, Tensor? logit_bias, "
      "Tensor? class_weight, Tensor? sample_weight, bool normalize) -> (Tensor confidence, Tensor prediction)");
  m.def(
      "contrast_distance(Tensor image_features, Tensor text_features, Tensor zeroshot_image_features, "
      "Tensor zeroshot_text_features, bool probability, float logit_scale, bool normalize) -> Tensor");
  // edges: (n_bins + 1,), or none for bins of equal width; totals (3, n_groups, n_bins): counts, correct, confidence
  // sums times 2^32
  m.def(
      "bin_counts(Tensor confidence, Tensor correct, Tensor? edges, int n_bins, Tensor? group, int n_groups, "
      "bool closed_right) -> (Tensor totals, Tensor invalid)");
  // The same with the entries' checks of values in the call, on the CPU: an error where these cannot tell that all is
  // sound, and the entry is to look at it. One image or query, (C,) or (D,), too.
  m.def(
      "checked_confidence(Tensor logits, Tensor? class_weight, Tensor? sample_weight) -> (Tensor confidence, Tensor "
      "prediction)");
  m.def(
      "checked_similarity_confidence(Tensor image_features, Tensor text_features, float logit_scale, Tensor? "
      "logit_bias, Tensor? class_weight, Tensor? sample_weight, bool normalize) -> (Tensor confidence, Tensor "
      "prediction)");
  m.def(
      "checked_knn(Tensor queries, Tensor bank, int k, bool exclude_self, bool normalize) -> (Tensor distances, Tensor "
      "indices)");
  // (3,) fp64: the mean negative log-likelihood of softmax(beta * logits), its first and second derivative by beta
  m.def("nll(Tensor logits, Tensor labels, float beta) -> Tensor");
  // Adds rows to a stream's state (pyfastcal/metrics/layout.py) without means; prediction: without labels, booleans
  // that say whether each is right. With validate an error where a value is none that counts: the state is then as it
  // was.
  m.def(
      "add_rows(Tensor(a!) state, Tensor confidence, Tensor prediction, Tensor? labels, Tensor? proximity, Tensor "
      "edges, "
      "int? ignore_index, bool fine, bool grouped, bool closed_right, bool validate) -> ()");
  // Logits times a factor of each row, or by a temperature () fp64, argmax kept; an error where a value may not be
  m.def("scale_logits(Tensor logits, Tensor? class_weight, Tensor? sample_weight) -> Tensor");
  m.def("divide_logits(Tensor logits, Tensor temperature) -> Tensor");
  // Logits times CAC's weight of each row (reference/weights.py); the constants () fp64; an error where a value may not
  // be, or where one is to be warned of
  m.def(
      "scale_by_contrast(Tensor logits, Tensor zeroshot_logits, float logit_scale, Tensor alpha, Tensor k, Tensor "
      "lambda1, Tensor lambda2) -> Tensor");
  // contrast_distance, CAC's weights and similarity_confidence in one; the constants and the errors likewise
  m.def(
      "predict_by_contrast(Tensor image_features, Tensor text_features, Tensor zeroshot_image_features, "
      "Tensor zeroshot_text_features, float logit_scale, Tensor? logit_bias, bool probability, bool normalize, "
      "Tensor alpha, Tensor k, Tensor lambda1, Tensor lambda2) -> (Tensor confidence, Tensor prediction)");
  // (images, classes) fp32
  m.def("similarity(Tensor image_features, Tensor text_features, bool normalize) -> Tensor");
  // (queries,) fp64; queries and points fp32 (.., 2), bandwidth fp64 (2,)
  m.def("log_density(Tensor queries, Tensor points, Tensor bandwidth) -> Tensor");
}
