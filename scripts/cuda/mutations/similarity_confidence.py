from scripts.cuda.mutations import Mutation

TESTS = ["test_similarity_confidence"]
ROWS, OPERAND, DIVISOR = "product/tile_rows.cuh", "product/operand.cuh", "product/divisor.cuh"
WEIGHTS, PARTS = "product/similarity_confidence/weights.cuh", "product/similarity_confidence/parts.cuh"
SWEEPS, EPILOGUE = "product/similarity_confidence/sweeps.cuh", "product/similarity_confidence/epilogue.cuh"
MUTATIONS = [
    Mutation(
        "the last of equal classes is predicted",
        EPILOGUE,
        "for (int n = 7; n >= 0; --n)",
        "for (int n = 0; n < 8; ++n)",
    ),
    Mutation(
        "the odd of two equal classes is predicted",
        EPILOGUE,
        "          if (acc[m][n][2 * half + 1] == of_row) first[m] = n * 8 + 1;\n"
        "          if (acc[m][n][2 * half] == of_row) first[m] = n * 8;\n",
        "          if (acc[m][n][2 * half] == of_row) first[m] = n * 8;\n"
        "          if (acc[m][n][2 * half + 1] == of_row) first[m] = n * 8 + 1;\n",
    ),
    Mutation(
        "a later tile wins a tie",
        EPILOGUE,
        "const bool higher = top > part_[half].top;",
        "const bool higher = top >= part_[half].top;",
    ),
    Mutation(
        "a later warp wins a tie", EPILOGUE, "combine(index, Min());", "combine(index, [](int, int b) { return b; });"
    ),
    Mutation(
        "parts that are not the largest offer their class",
        EPILOGUE,
        "part_[half].top == top[half] ? part_[half].index : INT_MAX;",
        "part_[half].index;",
    ),
    Mutation("rows of other lanes are not looked at", EPILOGUE, "0x11111111u << m", "0x11111110u << m"),
    Mutation(
        "the class is counted from the tile",
        EPILOGUE,
        "part_[half].index = first_class + index;",
        "part_[half].index = index;",
    ),
    Mutation(
        "sums of an earlier tile keep their reference",
        ROWS,
        "sum == 0 ? 0 : sum * power(before)",
        "sum",
    ),
    Mutation("a tile's sum keeps its own reference", ROWS, "__fmaf_rn(added, power(top),", "__fmaf_rn(added, 1.0f,"),
    Mutation(
        "sums of warps are added without a common reference",
        PARTS,
        "chosen * RelativePower(top, gain * weight)(part.top)",
        "chosen",
    ),
    Mutation(
        "the weight of the first class picks the sum",
        PARTS,
        "weights->value[w] == weight",
        "weights->value[0] == weight",
    ),
    Mutation("a fifth weight goes unnoticed", WEIGHTS, "round <= kFewWeights; ++round", "round < kFewWeights; ++round"),
    Mutation(
        "a weight is found twice",
        WEIGHTS,
        "for (int j = 0; j < round; ++j) found",
        "for (int j = 1; j < round; ++j) found",
    ),
    Mutation(
        "the class weight is left out of stored rows",
        EPILOGUE,
        "* class_weight(half);\n      }\n    }\n    __syncthreads();",
        ";\n      }\n    }\n    __syncthreads();",
    ),
    Mutation(
        "the class weight is left out of the second sweep",
        EPILOGUE,
        "if (step.sweep > 0) gain *= class_weight(half);",
        "",
    ),
    Mutation(
        "the second sweep adds to the first's sums", EPILOGUE, "if (last_sweep && n_sums_ > 0) {", "if (n_sums_ > 0) {"
    ),
    Mutation(
        "the sample weight is left out",
        EPILOGUE,
        "return kBias ? weight : weight * row_scale(half);",
        "return kBias ? weight : row_scale(half);",
    ),
    Mutation(
        "a biased row is scaled twice",
        EPILOGUE,
        "return kBias ? weight : weight * row_scale(half);",
        "return weight * row_scale(half);",
    ),
    Mutation(
        "a row's state survives to the next tile",
        EPILOGUE,
        "part.top = -kInfinity;\n",
        "",
    ),
    Mutation(
        "sums survive to the next rows",
        EPILOGUE,
        "for (float& sum : part.sum) sum = 0;",
        "for (float& sum : part.sum) sum *= 1;",
    ),
    Mutation(
        "no barrier between the rows' factors and their use",
        EPILOGUE,
        "min(first_row + int(threadIdx.x), rows() - 1)];\n    __syncthreads();",
        "min(first_row + int(threadIdx.x), rows() - 1)];",
    ),
    Mutation(
        "no barrier between what rows are summed by and the sums",
        EPILOGUE,
        "      }\n    }\n    __syncthreads();\n    const int n",
        "      }\n    }\n    const int n",
    ),
    Mutation(
        "no barrier before an exchange is read",
        ROWS,
        "OwnedRows::row(half)] = x[half];\n  __syncthreads();",
        "OwnedRows::row(half)] = x[half];",
    ),
    Mutation(
        "no barrier before an exchange is overwritten",
        ROWS,
        "of_row[3 * kTileRows]));\n  }\n  __syncthreads();",
        "of_row[3 * kTileRows]));\n  }",
    ),
    Mutation("a lane sends what it keeps", ROWS, "odd ? x[0] : x[1], 1)", "odd ? x[1] : x[0], 1)"),
    Mutation(
        "rows past the end are written",
        EPILOGUE,
        "&& row(first_row, half) < rows();",
        "&& row(first_row, half) <= rows();",
    ),
    Mutation("classes past the last count", OPERAND, "p.columns[row] = {0, -kInfinity};", "p.columns[row] = {0, 0};"),
    Mutation(
        "rows are read behind their last column",
        OPERAND,
        "first + e < cols ? to_float(row[first + e]) : 0.0f",
        "to_float(row[first + e])",
    ),
    Mutation(
        "the lowest term is lost",
        OPERAND,
        "for (int term = 0; term < 3; ++term)",
        "for (int term = 0; term < 2; ++term)",
    ),
    Mutation("what rounding took away is not handed on", OPERAND, "x[2 * w] -= __uint_as_float(words[w] << 16);", ""),
    Mutation(
        "long classes overflow the product",
        OPERAND,
        "(p.scaling == Scaling::kToSmall ? -16 : 0)",
        "(p.scaling == Scaling::kToSmall ? 60 : 60)",
    ),
    Mutation(
        "the power of a scaled row is not taken back",
        OPERAND,
        "inverse_norm(length) : 1.0, -power)",
        "inverse_norm(length) : 1.0, 0)",
    ),
    Mutation("the length of a short row is its own", OPERAND, "if (square < 1e-24f) return balance * 1e12f;", ""),
    Mutation("a long row overflows", OPERAND, "return sum > 1e-30f && sum < 1e30f ?", "return true ?"),
    Mutation(
        "a long row in place overflows",
        OPERAND,
        "__any_sync(~0u, !(square < 1e30f))",
        "false && __any_sync(~0u, !(square < 1e30f))",
    ),
    Mutation(
        "an infinite row counts as long",
        OPERAND,
        "if (!in_range && !(small_square < kInfinity)) return kNaN;",
        "",
        survives="NaN comes of its products with infinity all the same, and of 1 / infinity times infinity",
    ),
    Mutation(
        "a part of a row's pieces is left out of its length",
        OPERAND,
        "if (Piece::number() == part) row_factor[row]",
        "if (Piece::number() == 0 && part < 3) row_factor[row]",
    ),
    Mutation(
        "a row's length is one lane's",
        OPERAND,
        "const float square = Lanes<8>::reduce(sum_[part], Plus());",
        "const float square = Lanes<4>::reduce(sum_[part], Plus());",
    ),
    Mutation(
        "the last tile of a quotient is the next", DIVISOR, "factor_ >> (31 + shift_)", "(factor_ + 1) >> (30 + shift_)"
    ),
    Mutation(
        "blocks that share rows leave tiles out",
        SWEEPS,
        "first_tile(split + 1) - first_tile(split)",
        "1",
    ),
    Mutation(
        "blocks that share rows share the first ones",
        SWEEPS,
        "a_.splits.quotient(int(blockIdx.x)) * kTileRows",
        "0",
    ),
    Mutation(
        "a part carries on from the block's last tile",
        EPILOGUE,
        "if (a_.parts || sweeps_.begins_rows(i)) begin_part();",
        "if (sweeps_.begins_rows(i)) begin_part();",
    ),
    Mutation(
        "warps write their parts to the same place", EPILOGUE, "tile * 4 + Place::warp_col() / kWarpCols", "tile * 4"
    ),
    Mutation("factors that were found are not kept", EPILOGUE, "a_.found_factor[i] = row_factor()[threadIdx.x];", ";"),
    Mutation(
        "the logits of rows that blocks share lie with the blocks",
        EPILOGUE,
        "(a_.parts ? int64_t(first_row) :",
        "(false ? int64_t(first_row) :",
    ),
    Mutation(
        "a later part wins a tie", PARTS, "if (part.top > mine.top) mine.index", "if (part.top >= mine.top) mine.index"
    ),
    Mutation(
        "parts that nobody wrote are merged",
        PARTS,
        "t * kTileCols + lane * kWarpCols >= classes",
        "t * kTileCols >= classes",
    ),
    Mutation(
        "the weight is left out of rows that blocks share",
        PARTS,
        "__shfl_sync(~0u, gain * class_weight, 0)",
        "__shfl_sync(~0u, gain, 0)",
    ),
    Mutation(
        "parts are combined in another order than merged ones",
        ROWS,
        "f(f(of_row[0], of_row[2 * kTileRows]), f(of_row[kTileRows], of_row[3 * kTileRows]))",
        "f(f(of_row[0], of_row[kTileRows]), f(of_row[2 * kTileRows], of_row[3 * kTileRows]))",
    ),
    Mutation(
        "one row of any stride is aligned",
        OPERAND,
        "rows_are_aligned(static_cast<const __half*>(m.data), m.stride)",
        "(m.rows <= 1 ? is_aligned(m.data) : rows_are_aligned(static_cast<const __half*>(m.data), m.stride))",
    ),
]
