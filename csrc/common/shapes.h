// What each op asks of its tensors' shapes, dtypes and devices, for both halves: whoever calls torch.ops.pyfastcal
// directly gets an error, never a read out of bounds. pyfastcal/ops/ checks the same and more, with better words;
// values are its affair alone.
#pragma once
#include <string>

#include "tensors.h"

namespace pyfastcal {

inline std::string describe(const Tensor& x) {
  const auto name = [&] {
    switch (x.scalar_type()) {
      case ScalarType::Float: return "float32";
      case ScalarType::Double: return "float64";
      case ScalarType::Half: return "float16";
      case ScalarType::BFloat16: return "bfloat16";
      case ScalarType::Long: return "int64";
      case ScalarType::Bool: return "bool";
      default: return "other";
    }
  };
  std::string out = std::string("a ") + name() + " tensor of shape (";
  for (int64_t i = 0; i < x.dim(); ++i) out += (i ? ", " : "") + std::to_string(x.size(i));
  return out + ")";
}

// Of which the kernels take rows.
inline bool is_narrow_float(const Tensor& x) {
  const auto dtype = x.scalar_type();
  return dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
}

// The tensors of a call to one op, all on the device of its first.
class Call {
 public:
  Call(const char* op, const Tensor& first) : op_(op), first_(first) {}
  const char* op() const { return op_; }

  // Rows of fp32, fp16 or bf16 numbers, at least one in each; `cols`, `rows`: as many, where they are given.
  void matrix(const char* name, const Tensor& x, int64_t cols = -1, int64_t rows = -1) const {
    demand(is_narrow_float(x), name, x, "must be float32, float16 or bfloat16");
    demand(x.dim() == 2 && x.size(1) > 0, name, x, "must have 2 dimensions and at least 1 column");
    demand(cols < 0 || x.size(1) == cols, name, x, "has the wrong number of columns");
    demand(rows < 0 || x.size(0) == rows, name, x, "has the wrong number of rows");
    same_device(name, x);
  }
  void not_empty(const char* name, const Tensor& x) const { demand(x.size(0) > 0, name, x, "must not be empty"); }

  void vector(const char* name, const Tensor& x, ScalarType dtype, int64_t size) const {
    demand(x.scalar_type() == dtype, name, x, "has the wrong dtype");
    demand(x.dim() == 1 && x.size(0) == size, name, x, "must have 1 dimension and one entry for each");
    same_device(name, x);
  }
  void vector(const char* name, const std::optional<Tensor>& x, ScalarType dtype, int64_t size) const {
    if (x) vector(name, *x, dtype, size);
  }

  void demand(bool holds, const char* name, const Tensor& x, const char* what) const {
    STD_TORCH_CHECK(holds, op_, ": ", name, " ", what, ", got ", describe(x));
  }
  void demand(bool holds, const char* name, int64_t x, const char* what) const {
    STD_TORCH_CHECK(holds, op_, ": ", name, " ", what, ", got ", x);
  }

 private:
  void same_device(const char* name, const Tensor& x) const {
    if (&x == &first_) return;
    demand(x.is_cuda() == first_.is_cuda() && x.get_device_index() == first_.get_device_index(), name, x,
           "must be on the device of the other tensors");
  }

  const char* op_;
  const Tensor& first_;
};

inline void check_confidence(const Tensor& logits, const std::optional<Tensor>& class_weight,
                             const std::optional<Tensor>& sample_weight, const char* op = "pyfastcal::confidence") {
  const Call call(op, logits);
  call.matrix("logits", logits);
  call.vector("class_weight", class_weight, ScalarType::Float, logits.size(1));
  call.vector("sample_weight", sample_weight, ScalarType::Float, logits.size(0));
}

// Images (N, D) and at least one class (C, D).
inline void check_features(const Call& call, const char* image_name, const Tensor& image, const char* text_name,
                           const Tensor& text) {
  call.matrix(image_name, image);
  call.matrix(text_name, text, image.size(1));
  call.not_empty(text_name, text);
}

inline void check_similarity(const Tensor& image, const Tensor& text) {
  check_features(Call("pyfastcal::similarity", image), "image_features", image, "text_features", text);
}

inline void check_similarity_confidence(const Tensor& image, const Tensor& text, const std::optional<Tensor>& bias,
                                        const std::optional<Tensor>& class_weight,
                                        const std::optional<Tensor>& sample_weight,
                                        const char* op = "pyfastcal::similarity_confidence") {
  const Call call(op, image);
  check_features(call, "image_features", image, "text_features", text);
  call.vector("logit_bias", bias, ScalarType::Float, text.size(0));
  call.vector("class_weight", class_weight, ScalarType::Float, text.size(0));
  call.vector("sample_weight", sample_weight, ScalarType::Float, image.size(0));
}

inline void check_contrast_distance(const Tensor& image, const Tensor& text, const Tensor& image0, const Tensor& text0,
                                    const char* op = "pyfastcal::contrast_distance") {
  const Call call(op, image);
  check_features(call, "image_features", image, "text_features", text);
  check_features(call, "zeroshot_image_features", image0, "zeroshot_text_features", text0);
  call.matrix("zeroshot_image_features", image0, -1, image.size(0));
  call.matrix("zeroshot_text_features", text0, -1, text.size(0));
}

inline void check_knn(const Tensor& queries, const Tensor& bank, int64_t k, bool exclude_self,
                      const char* op = "pyfastcal::knn") {
  const Call call(op, queries);
  call.matrix("queries", queries);
  call.matrix("bank", bank, queries.size(1), exclude_self ? queries.size(0) : -1);
  const int64_t most = bank.size(0) - (exclude_self && bank.size(0) > 0);
  call.demand(k >= 1 && k <= most, "k", k, "must be at least 1 and at most the number of neighbours");
}

inline constexpr int64_t kMostCells = int64_t(1) << 24;  // bins of all groups; pyfastcal/arguments/checks.py has it too

inline void check_bin_counts(const Tensor& confidence, const Tensor& correct, const std::optional<Tensor>& edges,
                             int64_t n_bins, const std::optional<Tensor>& group, int64_t n_groups) {
  const Call call("pyfastcal::bin_counts", confidence);
  call.demand(is_narrow_float(confidence) || confidence.scalar_type() == ScalarType::Double, "confidence", confidence,
              "must be floating point");
  call.demand(confidence.dim() == 1, "confidence", confidence, "must have 1 dimension");
  call.demand(n_bins >= 1 && n_bins <= kMostCells, "n_bins", n_bins, "must be from 1 to 2^24");
  call.demand(n_groups >= 1 && n_groups <= kMostCells / n_bins, "n_groups", n_groups,
              "must be from 1 to 2^24 divided by n_bins");
  call.vector("correct", correct, ScalarType::Bool, confidence.size(0));
  call.vector("edges", edges, ScalarType::Float, n_bins + 1);
  call.vector("group", group, ScalarType::Long, confidence.size(0));
}

inline void check_nll(const Tensor& logits, const Tensor& labels) {
  const Call call("pyfastcal::nll", logits);
  call.matrix("logits", logits);
  call.not_empty("logits", logits);
  call.vector("labels", labels, ScalarType::Long, logits.size(0));
}

inline void check_log_density(const Tensor& queries, const Tensor& points, const Tensor& bandwidth) {
  const Call call("pyfastcal::log_density", queries);
  for (const auto& [name, x] : {std::pair("queries", &queries), std::pair("points", &points)}) {
    call.matrix(name, *x, 2);
    call.demand(x->scalar_type() == ScalarType::Float, name, *x, "must be float32");
  }
  call.not_empty("points", points);
  call.vector("bandwidth", bandwidth, ScalarType::Double, 2);
}

}  // namespace pyfastcal
