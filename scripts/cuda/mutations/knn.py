from scripts.cuda.mutations import Mutation

TESTS = ["test_knn"]
FILE = "product/knn.cuh"
SEARCH, PREPARE, SCAN = "product/knn/search.cuh", "product/knn/prepare.cuh", "product/knn/scan.cuh"
FINISH, SELECT = "product/knn/finish.cuh", "product/knn/select.cuh"
DISTANCE, OPERAND = "product/distance.cuh", "product/operand.cuh"
MUTATIONS = [
    Mutation("no slack", SEARCH, "return 2.02f *", "return 0.0f *"),
    Mutation(
        "no slack for the rounding of copies",
        SEARCH,
        "(accumulation + r + R + r * R + 8 * u)",
        "(accumulation + 8 * u)",
    ),
    Mutation("no slack for what sums lose", SEARCH, "(accumulation + r + R + r * R + 8 * u)", "(r + R + r * R)"),
    Mutation("the bank's rounding is not measured", PREPARE, "residual = max(residual, facts.residual);", ""),
    Mutation("a copy's numbers overflow", PREPARE, "13 - ilogb(facts.norm)", "20 - ilogb(facts.norm)"),
    Mutation(
        "rows too short to be unit vectors are judged", PREPARE, "return norm > 1e-12 && (", "return norm > 0 && ("
    ),
    Mutation("rows beyond fp32's range are judged", PREPARE, "(norm > 1e-15 && norm < 1e15);", "norm < 1e30;"),
    Mutation(
        "the squared norm is not halved",
        PREPARE,
        "float(facts.norm * facts.norm / 2)",
        "float(facts.norm * facts.norm)",
    ),
    Mutation("what lies past the bank's end passes", PREPARE, "float fact = kNaN;", "float fact = 0;"),
    Mutation("what lies past the queries' end passes", SCAN, "judged ? -kInfinity : kNaN", "-kInfinity"),
    Mutation(
        "no barrier after the facts of a tile are stored",
        SCAN,
        "heads.fact[threadIdx.x] = next_fact;\n    __syncthreads();",
        "heads.fact[threadIdx.x] = next_fact;",
    ),
    Mutation("a tile gets the facts of the one before", SCAN, "s.fact[tiles[i + 1].col", "s.fact[tiles[i].col"),
    Mutation(
        "the last part of the bank ends early",
        SCAN,
        "end = col_tiles * (split + 1) / s.splits",
        "end = col_tiles * (split + 1) / (s.splits + 1) + 1",
    ),
    Mutation(
        "a list has too little room",
        SCAN,
        "return trigger_of(kept) - 1 + kTileCols;",
        "return trigger_of(kept) - 1 + kTileCols / 2;",
    ),
    Mutation("full lists are not noticed", SCAN, "return longest >= s_.trigger;", "return false;"),
    Mutation(
        "appending is not atomic",
        SCAN,
        "const int at = atomicAdd(&heads_.count[row], 1);",
        "const int at = heads_.count[row]++;",
    ),
    Mutation(
        "lists are cut at the wrong rank",
        SCAN,
        "warp_kth_largest(keys, n, s_.kept)",
        "warp_kth_largest(keys, n, s_.kept - 1)",
    ),
    Mutation(
        "an entry is overwritten before it was read",
        SCAN,
        "    __syncwarp();  // all that will be overwritten has been read\n",
        "",
    ),
    Mutation(
        "entries of a cut list overlap",
        SCAN,
        "from[count + __popc(staying & ((1u << lane) - 1))]",
        "from[count + __popc(staying & ((1u << lane) - 1)) / 2]",
    ),
    Mutation(
        "lists of near-ties stay full",
        SCAN,
        "if (!__syncthreads_or(crowded)) return;",
        "if (__syncthreads_or(crowded) || true) return;",
    ),
    Mutation(
        "distances are ranked before all are measured",
        SCAN,
        "if (threadIdx.x == 0) heads_.lowest_key = ~0u;\n    __syncthreads();",
        "if (threadIdx.x == 0) heads_.lowest_key = ~0u;",
    ),
    Mutation(
        "the threshold after an exact cut has no slack",
        SCAN,
        "from_key(heads_.lowest_key) - slack(s_, s_.query_facts[query(row)])",
        "from_key(heads_.lowest_key)",
    ),
    Mutation(
        "a query's own row takes a place in its list", FILE, "plan.kept = plan.k + exclude_self;", "plan.kept = plan.k;"
    ),
    Mutation(
        "a query's own row is looked for in the first chunk only",
        FINISH,
        "row == s_.first_query + query_",
        "row == query_",
    ),
    Mutation(
        "a list is read as the next query's",
        FINISH,
        "return s.lists + (split * s.queries.rows + query) * s.capacity;",
        "return s.lists + (split + query * s.splits) * s.capacity;",
    ),
    Mutation("the finalists' room overflows", FINISH, "n_ > kFinishRoom - kFinishThreads", "n_ > kFinishRoom"),
    Mutation(
        "bank rows out of range are forgotten",
        FINISH,
        "const bool wanted = i < s.totals->out_of_range;",
        "const bool wanted = false;",
    ),
    Mutation(
        "a query out of range is compared with too few rows",
        FINISH,
        "row - threadIdx.x < s.bank.rows; row +=",
        "row < s.bank.rows; row += 2 *",
    ),
    Mutation(
        "a row that is not finite spoils itself too",
        FINISH,
        "return last >= 0 && !(s.exclude_self",
        "return last >= 0 && !(false",
    ),
    Mutation("two rows that are not finite count as one", FINISH, "first == last && last ==", "last =="),
    Mutation("finalists are not settled in the end", FINISH, "  finalists.settle();\n", ""),
    Mutation(
        "negative scores are in reverse order",
        SELECT,
        "return bits & 0x80000000u ? ~bits : bits | 0x80000000u;",
        "return bits | 0x80000000u;",
    ),
    Mutation(
        "a block's k-th largest is the one before",
        SELECT,
        "while (larger + digits.count[digit] < k)",
        "while (larger + digits.count[digit] < k - 1)",
        tests=("test_select",),
    ),
    Mutation(
        "a digit's rank is among all keys",
        SELECT,
        "digits.left = k - larger;",
        "digits.left = k;",
        tests=("test_select",),
    ),
    Mutation(
        "keys with other digits before count",
        SELECT,
        "uint64_t(key ^ kth) >> (shift + 8) == 0",
        "true",
        tests=("test_select",),
    ),
    Mutation(
        "keys of nothing count",
        SELECT,
        "if (key != 0 && uint64_t",
        "if (uint64_t",
        survives="where they are the k-th largest, that is 0 either way; it spares atomics",
        tests=("test_select",),
    ),
    Mutation("counts of digits are not cleared", SELECT, "digits.count[i] = 0;", ";", tests=("test_select",)),
    Mutation(
        "fewer than k keys have a k-th largest",
        SELECT,
        "larger < k) digits.left = 0;",
        "false) digits.left = 0;",
        tests=("test_select",),
    ),
    Mutation(
        "no barrier before digits are counted",
        SELECT,
        "digits.count[i] = 0;\n    __syncthreads();",
        "digits.count[i] = 0;",
        tests=("test_select",),
    ),
    Mutation("a list has the length of the one before", FINISH, "        n = next;\n", ""),
    Mutation(
        "equal rows are apart: one product is fused",
        DISTANCE,
        "__dmul_rn(y[i], scale_b) - __dmul_rn(x[i], scale_a)",
        "__fma_rn(y[i], scale_b, -__dmul_rn(x[i], scale_a))",
    ),
    Mutation(
        "a row's tail is left out of its distance",
        DISTANCE,
        "first < a.cols; first += 4 * kRowLanes",
        "first + 3 * kRowLanes < a.cols; first += 4 * kRowLanes",
    ),
    Mutation(
        "lanes are added in another order",
        DISTANCE,
        "sum = __fma_rn(difference, difference, sum);",
        "sum = __fma_rn(difference, difference, sum) + 0x1p-40;",
    ),
    Mutation("zero rows become NaN", DISTANCE, "norm >= 0 ? 1e-12 : norm", "norm"),
    Mutation(
        "one row of any stride is aligned",
        OPERAND,
        "rows_are_aligned(static_cast<const __half*>(m.data), m.stride)",
        "(m.rows <= 1 ? is_aligned(m.data) : rows_are_aligned(static_cast<const __half*>(m.data), m.stride))",
    ),
]
