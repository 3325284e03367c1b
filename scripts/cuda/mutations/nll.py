from scripts.cuda.mutations import Mutation

TESTS = ["test_nll"]
FILE = "rows/nll.cuh"
ROW = "rows/row_confidence.cuh"
MUTATIONS = [
    Mutation("rows past the end are counted", FILE, "if (mine) totals.add(", "totals.add("),
    Mutation(
        "rows past the end are read",
        FILE,
        "return min(first + threadIdx.x / Group::kSize, end - 1);",
        "return first + threadIdx.x / Group::kSize;",
    ),
    Mutation(
        "a part ends after the last row",
        FILE,
        "end = begin + a.rows_per_part < a.rows ? begin + a.rows_per_part : a.rows;",
        "end = begin + a.rows_per_part;",
    ),
    Mutation("only the first rows of a part are taken", FILE, "first += kRows) {", "first += a.rows_per_part) {"),
    Mutation("every lane adds its group's totals", FILE, "if (Group::rank() != 0) of_group = NllTotals();", ""),
    Mutation("136 columns in registers that hold 128", FILE, "if (a.cols <= 128)", "if (a.cols <= 136)"),
    Mutation("2056 columns in registers that hold 2048", FILE, "if (a.cols <= 2048)", "if (a.cols <= 2056)"),
    Mutation(
        "a row's place is computed in 32 bits",
        FILE,
        "HeldRow<T, Group, kVectors, kAligned> row(a.logits + i * a.stride, a.cols);",
        "HeldRow<T, Group, kVectors, kAligned> row(a.logits + int(i * a.stride), a.cols);",
    ),
    Mutation("every row has the label of the one before", FILE, "    label = next_label;\n", ""),
    Mutation("vectors past the end of a row count", FILE, "    t = inside ? t : kLowest;\n", ""),
    Mutation("a label may point anywhere", FILE, "uint64_t(label) < a.cols ?", "label < int64_t(a.cols) ?"),
    Mutation(
        "the label after the last class is one", FILE, "uint64_t(label) < a.cols ?", "uint64_t(label) <= a.cols ?"
    ),
    Mutation("a label may be a masked class", FILE, "!(label_t > -double(kInfinity))", "label_t != label_t"),
    Mutation("powers of minus infinity are multiplied with it", FILE, "t = t < kLowest ? kLowest : t;", ""),
    Mutation("NaN is a small number", FILE, "t = t < kLowest ? kLowest : t;", "t = fmaxf(t, kLowest);"),
    Mutation("the lowest power is not zero", FILE, "kLowest = -150;", "kLowest = -15;"),
    Mutation(
        "the maximum is not halved",
        FILE,
        "half_max_(0.5f * max), beta2_(2.0f * beta2)",
        "half_max_(0.5f * max * 2.0f), beta2_(beta2)",
    ),
    Mutation("the product of sums overflows", FILE, "if (!(product_ < 0x1p900)) take_logarithm();", ""),
    Mutation(
        "the product begins anew without its logarithm",
        FILE,
        "totals_.value += log2(product_);\n",
        "totals_.value += 0;\n",
    ),
    Mutation("a logarithm is counted twice", FILE, "    product_ = 1;\n", ""),
    Mutation("parts past the first 512 are forgotten", FILE, "i < n; i += kSumThreads", "i < n; i += n"),
    Mutation(
        "the second launch is for one part less",
        FILE,
        "totals, parts.count, logits.rows, beta",
        "totals, parts.count - 1, logits.rows, beta",
    ),
    Mutation("runs are not begun anew", FILE, "    sum = first = second = 0;\n", ""),
    Mutation("the rest of a long row is lost", ROW, "    if (has_rest_) g(rest());\n", ""),
    Mutation("the rest of a held row is lost", ROW, "    if (has_rest_) g(to_float(rest_));\n", ""),
]
