from scripts.cuda.mutations import Mutation

TESTS = ["test_contrast"]
FILE = "product/contrast.cuh"
STEPS, EPILOGUE = "product/contrast/steps.cuh", "product/contrast/epilogue.cuh"
MUTATIONS = [
    Mutation(
        "the models change places between sweeps",
        STEPS,
        "of_tiles - of_rows * a_.col_tiles.divisor(), i % kModels}",
        "of_tiles - of_rows * a_.col_tiles.divisor(), (i + of_rows) % kModels}",
    ),
    Mutation(
        "both models take the tuned one's factors",
        EPILOGUE,
        "const Model<T>& model = a_.models[step.model];",
        "const Model<T>& model = a_.models[0];",
    ),
    Mutation("differences are not absolute", EPILOGUE, "fabsf(tuned.x - x[0])", "(tuned.x - x[0])"),
    Mutation(
        "halves of a tile change places",
        EPILOGUE,
        "sum[1][m] += fabsf(tuned.z - x[2])",
        "sum[0][m] += fabsf(tuned.z - x[2])",
    ),
    Mutation(
        "one model's differences only",
        EPILOGUE,
        "if (step.model == 0)\n          park(acc);",
        "if (step.col_tile == 0)\n          park(acc);",
    ),
    Mutation(
        "blocks park at the same place",
        EPILOGUE,
        "a_.parked + int64_t(blockIdx.x) * (32 * kProductThreads)",
        "a_.parked + int64_t(0)",
    ),
    Mutation(
        "threads park at the same place",
        EPILOGUE,
        "to[(m * 8 + n) * kProductThreads]",
        "to[(m * 4 + n) * kProductThreads]",
    ),
    Mutation("a row's sum survives to the next tile", EPILOGUE, "      total_[half] = 0;\n", ""),
    Mutation("sums of powers survive to the next rows", EPILOGUE, "        sum_[m][half] = 0;\n", ""),
    Mutation("the largest logit survives to the next rows", EPILOGUE, "        top_[m][half] = -kInfinity;\n", ""),
    Mutation(
        "the largest logit is the last tile's", EPILOGUE, "top_[m][half] = fmaxf(before, top);", "top_[m][half] = top;"
    ),
    Mutation("warps' sums are added without a common reference", EPILOGUE, "sum_[m][half] * power;", "sum_[m][half];"),
    Mutation("the logit scale is left out", EPILOGUE, "kProbability ? factor * a_.logit_scale : factor", "factor"),
    Mutation(
        "probabilities are not divided by their sum",
        EPILOGUE,
        "power(acc[m][n][2 * half + e]) * inverse;",
        "power(acc[m][n][2 * half + e]);",
    ),
    Mutation(
        "the mean is over the padded classes",
        EPILOGUE,
        "total[half] / float(classes())",
        "total[half] / float(a_.col_tiles.divisor() * kTileCols)",
    ),
    Mutation(
        "rows past the end are written",
        EPILOGUE,
        "Place::warp_col() == 0 && row < rows()",
        "Place::warp_col() == 0 && row <= rows()",
    ),
    Mutation(
        "shared images are taken for equal models", FILE, "if (m == 1 && same_image_) break;", "if (same_image_) break;"
    ),
    Mutation(
        "images of another layout count as shared",
        FILE,
        "c.image.stride == c.image0.stride && models_[0].split == models_[1].split;",
        "true;",
    ),
    Mutation(
        "fp16 is chosen for one fp16 image",
        FILE,
        "half_ = !must_split(c.image, c.text) && !must_split(c.image, c.text0) && !must_split(c.image0, c.text) &&",
        "half_ =",
    ),
    Mutation(
        "one row of any stride is aligned",
        "product/operand.cuh",
        "rows_are_aligned(static_cast<const __half*>(m.data), m.stride)",
        "(m.rows <= 1 ? is_aligned(m.data) : rows_are_aligned(static_cast<const __half*>(m.data), m.stride))",
    ),
]
