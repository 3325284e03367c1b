from scripts.cuda.mutations import Mutation

TESTS = ["test_confidence"]
FILE = "rows/confidence.cuh"
ROW = "rows/row_confidence.cuh"
ROWS = "rows/rows.cuh"
MUTATIONS = [
    Mutation(
        "the last row of a block that is not full is written by all", FILE, "rank() == 0 && row < a.rows", "rank() == 0"
    ),
    Mutation(
        "rows past the end are read",
        FILE,
        "row < a.rows ? row : a.rows - 1;",
        "row;",
    ),
    Mutation(
        "a row for each warp, whatever the group",
        FILE,
        "kRows = kShortRowThreads / Group::kSize;",
        "kRows = kShortRowThreads / 32;",
    ),
    Mutation("136 columns in registers that hold 128", FILE, "a.cols <= 128)", "a.cols <= 136)"),
    Mutation("1030 columns in registers that hold 1024", FILE, "a.cols <= 1024)", "a.cols <= 1030)"),
    Mutation("2055 columns in registers that hold 2048", FILE, "a.cols <= 2048)", "a.cols <= 2055)"),
    Mutation(
        "rows lie one after the other",
        FILE,
        "a.logits + i * a.stride;\n  const HeldRow",
        "a.logits + i * a.cols;\n  const HeldRow",
    ),
    Mutation(
        "a row's place is computed in 32 bits",
        FILE,
        "a.logits + i * a.stride;\n  const HeldRow",
        "a.logits + int(i * a.stride);\n  const HeldRow",
    ),
    Mutation("of equal maxima the last wins", ROW, "b.vector < a.vector", "b.vector > a.vector"),
    Mutation("of equal maxima of a thread the last wins", ROW, "if (x > max) {", "if (x >= max) {"),
    Mutation(
        "the numbers that fill no vector are not looked at for the maximum",
        ROW,
        "    if (has_rest_) peak.add(to_float(rest_), vectors_);\n",
        "",
    ),
    Mutation(
        "the numbers that fill no vector are left out of the sum",
        ROW,
        "    if (has_rest_) sum += power(to_float(rest_));\n",
        "",
    ),
    Mutation("a long row's last numbers are left out of the sum", ROW, "has_rest_ ? power(rest()) : 0;", "0;"),
    Mutation(
        "the first maximum is looked for in the wrong group",
        ROW,
        "(__ballot_sync(~0u, hit) >> begin) & ((1u << kSize) - 1)",
        "__ballot_sync(~0u, hit) & ((1u << kSize) - 1)",
    ),
    Mutation("the first maximum may lie past the row's end", ROW, "mine < cols && to_float", "to_float"),
    Mutation(
        "the difference to the maximum overflows",
        ROW,
        "half_max_(0.5f * max), factor_(2.0f * (factor * kLog2E))",
        "half_max_(max), factor_(factor * kLog2E)",
    ),
    Mutation(
        "weights of samples are left out", ROW, "if (factors.sample_weight) factor *= factors.sample_weight[row];", ""
    ),
    Mutation("runs of a long row are not emptied", ROW, "               run = 0;\n", ""),
    Mutation(
        "a long row's vectors past the end count",
        ROW,
        "run += prim::select(number < vectors_, power.sum(v), 0.0f);",
        "run += power.sum(v);",
    ),
    Mutation(
        "vectors past the end count",
        ROW,
        "prim::select(number(j) < vectors_, power.sum(held_[j]), 0.0f)",
        "power.sum(held_[j])",
    ),
    Mutation("vectors past the end are not filled", ROW, "    fill_with_nan(held_);\n", ""),
    Mutation(
        "runs past the end are not filled",
        ROW,
        "      fill_with_nan(v);\n",
        "",
        survives="what the model leaves in them is a negative number, which is no maximum",
    ),
    Mutation(
        "a tree of a reduction has a step too few",
        ROWS,
        "for (int step = kLanes / 2; step; step /= 2) x = f",
        "for (int step = kLanes / 4; step; step /= 2) x = f",
    ),
    Mutation(
        "no barrier before a block's parts are stored",
        ROWS,
        "    __syncthreads();  // what an earlier reduction left has been read\n",
        "",
        tests=("test_similarity_confidence",),  # find_weights is the kernel that reduces twice
    ),
    Mutation(
        "no barrier before a block's parts are read",
        ROWS,
        "of_warp[rank() / 32] = x;\n    __syncthreads();",
        "of_warp[rank() / 32] = x;",
    ),
    Mutation(
        "rows are called aligned by their first",
        ROWS,
        "is_aligned(data) && stride * int64_t(sizeof(T)) % 16 == 0",
        "is_aligned(data)",
    ),
    Mutation(
        "of two unaligned numbers the second is the first",
        ROWS,
        "return low | uint32_t(high) << 16;",
        "return low | uint32_t(low) << 16;",
    ),
    Mutation(
        "the largest of a vector misses a pair",
        ROWS,
        "__hmax2(__hmax2(a, b), __hmax2(c, d))",
        "__hmax2(__hmax2(a, b), __hmax2(c, c))",
    ),
]
