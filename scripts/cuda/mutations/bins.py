from scripts.cuda.mutations import Mutation

TESTS = ["test_bins"]
FILE = "samples/bins.cuh"
HISTOGRAM, PARTS = "samples/bins/histogram.cuh", "samples/bins/parts.cuh"
MUTATIONS = [
    Mutation("a count overflows into the field above it", HISTOGRAM, "kMostPacked = 1023;", "kMostPacked = 1023 + 16;"),
    Mutation(
        "histograms are never emptied on the way",
        FILE,
        "if (pending + kSamples > Tally::kMostPacked) {",
        "if (false) {",
    ),
    Mutation(
        "what is pending is not counted anew",
        FILE,
        "      pending = 0;\n",
        "",
        survives="histograms are then emptied after every tile: slower, the same totals",
    ),
    Mutation("emptied words are counted twice", HISTOGRAM, "        of_block[c * blockDim.x + i] = 0;\n", ""),
    Mutation(
        "histograms begin with what was in shared memory",
        HISTOGRAM,
        "words_[c * blockDim.x] = 0;",
        "words_[c * blockDim.x] += 0;",
    ),
    Mutation(
        "no barrier before histograms are added up",
        HISTOGRAM,
        "const uint32_t lane = threadIdx.x % 32;\n    __syncthreads();",
        "const uint32_t lane = threadIdx.x % 32;",
    ),
    Mutation(
        "no barrier after histograms were added up",
        HISTOGRAM,
        "      if (lane == 0) store ? totals_.store(c, t) : totals_.add(c, t);\n    }\n    __syncthreads();",
        "      if (lane == 0) store ? totals_.store(c, t) : totals_.add(c, t);\n    }",
    ),
    Mutation(
        "no barrier after the edges were copied", FILE, "    edges = copy;\n    __syncthreads();", "    edges = copy;"
    ),
    Mutation("no barrier after the parts were filled", FILE, "n_parts);\n    __syncthreads();", "n_parts);"),
    Mutation(
        "totals are added without atomics",
        HISTOGRAM,
        "if (x) atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(x));",
        "if (x) *total += int64_t(x);",
    ),
    Mutation(
        "blocks store what they should add",
        HISTOGRAM,
        "store ? totals_.store(c, t) : totals_.add(c, t)",
        "totals_.store(c, t)",
    ),
    Mutation(
        "a block that is alone adds to what was never cleared",
        HISTOGRAM,
        "store ? totals_.store(c, t) : totals_.add(c, t)",
        "totals_.add(c, t)",
    ),
    Mutation(
        "one block does not clear the number of invalid samples",
        FILE,
        "if (a.single_block && thread == 0) *a.invalid = 0;",
        "",
    ),
    Mutation("the number of invalid samples is not cleared", FILE, "  if (first == 0) *invalid = 0;\n", ""),
    Mutation("totals are not cleared", FILE, "i < n; i += step) totals[i] = 0;", "i < n; i += step) totals[i] += 0;"),
    Mutation(
        "a run of another cell is not written first",
        HISTOGRAM,
        "    if (cell != cell_) {\n      write();",
        "    if (cell != cell_) {",
    ),
    Mutation(
        "a run that ends is written twice",
        HISTOGRAM,
        "    totals_.add(cell_, t);\n    word_ = 0;",
        "    totals_.add(cell_, t);",
    ),
    Mutation(
        "numbers out of range fall in parts that are not there",
        PARTS,
        "part[min(uint32_t(__float2int_rz(x * parts)), uint32_t(parts))]",
        "part[__float2int_rz(x * parts)]",
    ),
    Mutation("there is no part for 1", PARTS, "uint32_t(parts))];", "uint32_t(parts) - 1)];"),
    Mutation(
        "a part ends where it begins", PARTS, "end = float(i + 1) / float(parts);", "end = float(i) / float(parts);"
    ),
    Mutation("parts with two edges are not noticed", PARTS, "high - low > 1) atomicExch", "high - low > 2) atomicExch"),
    Mutation(
        "too few parts", PARTS, "n_bins <= 16 ? 16 :", "n_bins <= 20 ? 16 :", survives="they are crowded: a search"
    ),
    Mutation(
        "an edge belongs to the bin below it whichever side is closed",
        PARTS,
        "closed_right ? __uint_as_float(__float_as_uint(fabsf(edge)) + 1) : edge",
        "edge",
    ),
    Mutation(
        "1 lies in half-open bins only",
        PARTS,
        "find_bin(begin, edges, 0, n_bins - 1, closed_right)",
        "find_bin(begin, edges, 0, n_bins - 1, false)",
    ),
    Mutation(
        "no barrier between clearing and finding crowded parts",
        FILE,
        "parts.crowded = 0;\n    __syncthreads();",
        "parts.crowded = 0;",
    ),
    Mutation("invalid samples are counted where they seem to fall", FILE, "word & (0 - uint64_t(valid))", "word"),
    Mutation("samples of groups are taken for those of the first", FILE, "|| a.group || !a.aligned", "|| !a.aligned"),
    Mutation("crowded parts are not searched", FILE, "    searched = parts.crowded;\n", ""),
    Mutation("booleans of a vector are in reverse", FILE, "bytes >> (8 * e)", "bytes >> (8 * (kSize - 1 - e))"),
    Mutation(
        "groups that do not exist are counted",
        FILE,
        "uint64_t(group) < uint64_t(a.bins.n_groups)",
        "group < a.bins.n_groups",
    ),
    Mutation("samples of a tile that is not full are read past the end", FILE, "begin + tile > a.n)", "begin > a.n)"),
    Mutation(
        "unaligned samples are loaded in vectors",
        FILE,
        "!Histogram::kInShared || !a.aligned || begin",
        "!Histogram::kInShared || begin",
    ),
    Mutation(
        "a block's next tile is the next block's",
        FILE,
        "begin < a.n; begin += gridDim.x * tile)",
        "begin < a.n; begin += tile)",
    ),
    Mutation(
        "the group of vector samples is the first's",
        FILE,
        "add(x[e], correct[e], group[e]);",
        "add(x[e], correct[e], group[0]);",
    ),
    Mutation(
        "invalid samples are stored, not added",
        FILE,
        "if (invalid) Totals::add_to(a.invalid, invalid);",
        "if (invalid) *a.invalid = invalid;",
    ),
    Mutation(
        "shared memory for one edge too few",
        FILE,
        "size_t(a.bins.n_bins + 1) * sizeof(float)",
        "size_t(a.bins.n_bins) * sizeof(float)",
    ),
    Mutation("edges of equal widths are never made", FILE, "if (make_edges) a.bins.edges = workspace;", ""),
    Mutation(
        "the last inner edge of equal widths is not made",
        FILE,
        "for (int64_t i = first; i <= n_bins; i += step) edges[i]",
        "for (int64_t i = first; i + 1 < n_bins; i += step) edges[i]",
    ),
    Mutation("a step above 1 is no confidence", "../common/bins.h", "x <= T(kMostConfidence);", "x <= T(1);"),
    Mutation("a step above 1 reaches an edge at 1", FILE, "      x = at_most_one(x);\n", ""),
    Mutation("a step above 1 adds more than 1", FILE, "confidence = at_most_one(x[e]);", "confidence = x[e];"),
]
