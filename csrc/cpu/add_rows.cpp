// Adds rows to the state of a stream, as metrics/layout.py defines it in torch operations: the same bits, in one call.
#include "../common/bins.h"
#include "tensors.h"

namespace pyfastcal {

namespace {

// The fine cells of [0, 1] of metrics/fine.py.
struct FineCells {
  int offset, precision;

  int64_t code(double y) const {
    const double shifted = y + 1.0 / double(1 << offset);
    int64_t bits;
    std::memcpy(&bits, &shifted, 8);
    return (bits >> (52 - precision)) - (int64_t(1023 - offset) << precision);
  }
  int64_t size() const { return 2 * code(0.5) + 1; }
  int64_t find(double x) const { return x < 0.5 ? code(x) : size() - 1 - code(1.0 - x); }
};
constexpr FineCells kConfidence{8, 9}, kProximity{0, 11};

// Numbers of one of two types.
class Numbers {
 public:
  Numbers(const Call& call, const char* name, const Tensor& x, int64_t size) : owner_(as_contiguous(x)) {
    const bool wide = x.scalar_type() == ScalarType::Double;
    call.vector(name, x, wide ? ScalarType::Double : ScalarType::Float, size);
    (wide ? double_ : float_) = owner_.const_data_ptr();
  }
  double operator[](int64_t i) const {
    return float_ ? double(static_cast<const float*>(float_)[i]) : static_cast<const double*>(double_)[i];
  }

 private:
  const Tensor owner_;
  const void *float_ = nullptr, *double_ = nullptr;
};

// What is added, (N,) each. Without labels `prediction` says whether each is right.
struct Batch {
  Batch(const Call& call, const Tensor& confidence, const Tensor& prediction, const std::optional<Tensor>& labels,
        const std::optional<Tensor>& proximity)
      : n(confidence.dim() == 1 ? confidence.size(0) : 0), confidence(call, "confidence", confidence, n) {
    const ScalarType type = labels ? ScalarType::Long : ScalarType::Bool;
    call.vector("prediction", prediction, type, n);
    call.vector("labels", labels, type, n);
    owners[0] = as_contiguous(prediction);
    if (labels) {
      owners[1] = as_contiguous(*labels);
      predicted = owners[0]->const_data_ptr<int64_t>();
      label = owners[1]->const_data_ptr<int64_t>();
    } else {
      right = static_cast<const uint8_t*>(owners[0]->const_data_ptr());  // a boolean made from bytes may be any of them
    }
    if (proximity) this->proximity.emplace(call, "proximity", *proximity, n);
  }
  bool correct(int64_t i) const { return label ? predicted[i] == label[i] : right[i] != 0; }
  bool inside(int64_t i) const {  // [0, 1]
    return valid_confidence(confidence[i]) && (!proximity || valid_confidence((*proximity)[i]));
  }

  const int64_t n;
  const Numbers confidence;
  std::optional<Numbers> proximity;
  std::optional<Tensor> owners[2];
  const int64_t *predicted = nullptr, *label = nullptr;
  const uint8_t* right = nullptr;
};

// The table (4, columns) of a state: counts, correct, and the confidences' sum in two limbs.
struct Table {
  int64_t* data;
  int64_t columns;

  void add(int64_t cell, bool correct, int64_t fixed) const {
    data[cell] += 1;
    data[columns + cell] += correct;
    data[3 * columns + cell] += fixed;
    carry(cell);
  }
  void carry(int64_t cell) const {
    int64_t& low = data[3 * columns + cell];
    data[2 * columns + cell] += low >> 32;
    low &= 0xffffffff;
  }
};

}  // namespace

static void add_rows_op(Tensor state, const Tensor& confidence, const Tensor& prediction,
                        const std::optional<Tensor>& labels, const std::optional<Tensor>& proximity,
                        const Tensor& edges, std::optional<int64_t> ignore_index, bool fine, bool grouped,
                        bool closed_right, bool validate) {
  const Call call("pyfastcal::add_rows", confidence);
  const Batch rows(call, confidence, prediction, labels, proximity);
  call.demand(edges.dim() == 1 && edges.size(0) > 1, "edges", edges, "must have at least 2 entries");
  const int64_t n_bins = edges.size(0) - 1, before = fine ? kConfidence.size() : 0;
  call.vector("edges", edges, ScalarType::Float, n_bins + 1);
  const int64_t columns = before + (grouped ? kProximity.size() + 1 : 1) * n_bins;
  call.vector("state", state, ScalarType::Long, 1 + 4 * columns);
  call.demand(state.is_contiguous() && edges.is_contiguous(), "state", state, "and edges must be contiguous");
  call.demand(grouped || !proximity, "proximity", confidence, "must not be given without groups");
  const auto counts = [&](int64_t i) { return !ignore_index || !rows.label || rows.label[i] != *ignore_index; };
  for (int64_t i = 0; validate && i < rows.n; ++i) {
    if (!counts(i)) continue;
    call.demand(rows.inside(i), "confidence", confidence, "and proximity must lie in [0, 1]");
    if (rows.label)
      call.demand((rows.predicted[i] | rows.label[i]) >= 0, "prediction", prediction,
                  "and labels must not be negative");
  }
  int64_t* const out = state.mutable_data_ptr<int64_t>();
  const Table table{out + 1, columns};
  const float* const edge = edges.const_data_ptr<float>();
  for (int64_t i = 0; i < rows.n; ++i) {
    if (!counts(i)) continue;
    ++out[0];
    if (!validate && !rows.inside(i)) continue;  // a row of no cell
    const double x = at_most_one(rows.confidence[i]);
    const int64_t fixed = fixed_point(x);
    int64_t bin = before + find_bin(x, edge, n_bins, closed_right);
    if (grouped)
      bin += n_bins * (rows.proximity ? kProximity.find(at_most_one((*rows.proximity)[i])) : kProximity.size());
    if (fine) table.add(kConfidence.find(x), rows.correct(i), fixed);
    table.add(bin, rows.correct(i), fixed);
  }
  if (!fine && !grouped)  // few cells, of which each is carried at every update
    for (int64_t cell = 0; cell < columns; ++cell) table.carry(cell);
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("add_rows", TORCH_BOX(&add_rows_op)); }

}  // namespace pyfastcal
