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
    uint64_t bits;
    std::memcpy(&bits, &shifted, 8);
    return int64_t(bits >> (52 - precision)) - (int64_t(1023 - offset) << precision);
  }
  int64_t size() const { return 2 * code(0.5) + 1; }
  int64_t find(double x) const {  // without a branch that nobody could guess
    const double rest = 1.0 - x;
    const int64_t nearer = code(x < rest ? x : rest), upper = -int64_t(x >= 0.5);
    return (nearer ^ upper) + (size() & upper);  // size() - 1 - nearer in the upper half
  }
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
  // n of them from number `begin` on; -1 for one that does not lie in [0, 1].
  void read(int64_t begin, int64_t n, double* out) const {
    if (float_)
      read(static_cast<const float*>(float_) + begin, n, out);
    else
      read(static_cast<const double*>(double_) + begin, n, out);
  }

 private:
  template <class T>
  static void read(const T* x, int64_t n, double* out) {
    for (int64_t i = 0; i < n; ++i) {
      const double value = double(x[i]);  // valid_confidence's choices one after the other: they vectorise
      const double from_below = value >= 0.0 ? at_most_one(value) : -1.0;
      out[i] = value <= double(kMostConfidence) ? from_below : -1.0;
    }
  }

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
  bool counts(int64_t i, const std::optional<int64_t>& ignore_index) const {
    return !ignore_index || !label || label[i] != *ignore_index;
  }

  const int64_t n;
  const Numbers confidence;
  std::optional<Numbers> proximity;
  std::optional<Tensor> owners[2];
  const int64_t *predicted = nullptr, *label = nullptr;
  const uint8_t* right = nullptr;
};

// Rows whose cells are found side by side, by loops that vectorise.
struct Block {
  static constexpr int64_t kRows = 256;

  void read(const Batch& rows, int64_t from) {
    begin = from;
    n = rows.n - from < kRows ? rows.n - from : kRows;
    rows.confidence.read(begin, n, confidence);
    near = rows.proximity.has_value();
    if (near) rows.proximity->read(begin, n, proximity);
  }
  bool inside(int64_t j) const { return confidence[j] >= 0 && (!near || proximity[j] >= 0); }
  void find_bins(const float* edges, int64_t n_bins, bool closed_right) {
    constexpr int64_t kFew = 32;  // which are compared with every edge
    if (n_bins > kFew) {
      for (int64_t j = 0; j < n; ++j) bin[j] = double(find_bin(confidence[j], edges, n_bins, closed_right));
      return;
    }
    for (int64_t j = 0; j < n; ++j) bin[j] = 0.0;
    for (int64_t e = 1; e < n_bins; ++e) {
      const double edge = edges[e];
      if (closed_right)
        for (int64_t j = 0; j < n; ++j) bin[j] += edge < confidence[j] ? 1.0 : 0.0;
      else
        for (int64_t j = 0; j < n; ++j) bin[j] += edge <= confidence[j] ? 1.0 : 0.0;
    }
  }

  int64_t begin, n;
  bool near;  // whether there are proximities
  double confidence[kRows], proximity[kRows];
  double bin[kRows];  // whole numbers
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
  Block block;
  for (int64_t begin = 0; validate && begin < rows.n; begin += Block::kRows) {
    block.read(rows, begin);
    bool inside = true;
    int64_t signs = 0;
    for (int64_t j = 0; j < block.n; ++j) {
      const int64_t i = begin + j;
      if (!rows.counts(i, ignore_index)) continue;
      inside &= block.inside(j);
      if (rows.label) signs |= rows.predicted[i] | rows.label[i];
    }
    call.demand(inside, "confidence", confidence, "and proximity must lie in [0, 1]");
    call.demand(signs >= 0, "prediction", prediction, "and labels must not be negative");
  }
  int64_t* const out = state.mutable_data_ptr<int64_t>();
  const Table table{out + 1, columns};
  const float* const edge = edges.const_data_ptr<float>();
  int64_t added = 0;
  for (int64_t begin = 0; begin < rows.n; begin += Block::kRows) {
    block.read(rows, begin);
    block.find_bins(edge, n_bins, closed_right);
    for (int64_t j = 0; j < block.n; ++j) {
      if (!rows.counts(begin + j, ignore_index)) continue;
      ++added;
      if (!block.inside(j)) continue;  // a row of no cell
      const double x = block.confidence[j];
      const int64_t fixed = fixed_point(x);
      const bool correct = rows.correct(begin + j);
      int64_t bin = before + int64_t(block.bin[j]);
      if (grouped) bin += n_bins * (block.near ? kProximity.find(block.proximity[j]) : kProximity.size());
      if (fine) table.add(kConfidence.find(x), correct, fixed);
      table.add(bin, correct, fixed);
    }
  }
  out[0] += added;
  if (!fine && !grouped)  // few cells, of which each is carried at every update
    for (int64_t cell = 0; cell < columns; ++cell) table.carry(cell);
}

STABLE_TORCH_LIBRARY_IMPL(pyfastcal, CPU, m) { m.impl("add_rows", TORCH_BOX(&add_rows_op)); }

}  // namespace pyfastcal
