from scripts.cuda.mutations import Mutation

TESTS = ["test_density"]
FILE = "samples/density.cuh"
MUTATIONS = [
    Mutation(
        "queries past the end are read", FILE, "mine = query < a.n_queries ? query : a.n_queries - 1;", "mine = query;"
    ),
    Mutation("queries past the end are written", FILE, "if (warp == 0 && query < a.n_queries) {", "if (warp == 0) {"),
    Mutation("the last query's warp does not end", FILE, "if (query >= a.n_queries) return;", ""),
    Mutation(
        "points past the end are at the origin",
        FILE,
        "one ? p[0] : kInfinity, one ? p[1] : kInfinity,",
        "one ? p[0] : 0.0f, one ? p[1] : 0.0f,",
    ),
    Mutation(
        "a part takes the next part's first points too",
        FILE,
        "begin + a.points_per_part : a.n_points;",
        "a.n_points : a.n_points;",
    ),
    Mutation(
        "a tile is overwritten before it has been read",
        FILE,
        "    __syncthreads();  // the last tile has been read\n",
        "",
    ),
    Mutation(
        "a tile is read before it has been written",
        FILE,
        "    }\n    __syncthreads();\n    if (first",
        "    }\n    if (first",
    ),
    Mutation(
        "sums of warps are read before they are written",
        FILE,
        "  sums[threadIdx.x] = total;\n  __syncthreads();\n",
        "  sums[threadIdx.x] = total;\n",
    ),
    Mutation("the last warp is left out", FILE, "w < kDensityWarps; ++w", "w < kDensityWarps - 1; ++w"),
    Mutation("the last part is left out", FILE, "p < a.parts; ++p", "p < a.parts - 1; ++p"),
    Mutation("all warps read the same run", FILE, "&tile[warp * (kRunOfWarp / 2)]", "&tile[0]"),
    Mutation(
        "the axes change places",
        FILE,
        "-float(exponent_scale(a.bandwidth[0]))",
        "-float(exponent_scale(a.bandwidth[1]))",
    ),
    Mutation("faint sums are taken as they are", FILE, "sum >= kFaintest ? log2(sum)", "sum >= 0 ? log2(sum)"),
    Mutation(
        "sums that are no numbers are not made anew",
        FILE,
        "sum >= kFaintest ? log2(sum)",
        "!(sum < kFaintest) ? log2(sum)",
    ),
    Mutation("each lane has a largest term of its own", FILE, "top = Lanes<32>::reduce(top,", "Lanes<32>::reduce(top,"),
    Mutation(
        "of faint points every 32nd is seen",
        FILE,
        "i < a.n_points; i += 32)\n    if",
        "i < a.n_points; i += 64)\n    if",
    ),
    Mutation("NaN counts for nothing far away", FILE, "!(t < -60)", "t >= -60"),
    Mutation("points lie one after the other", FILE, "a.points + point * a.point_stride;", "a.points + point * 2;"),
]
