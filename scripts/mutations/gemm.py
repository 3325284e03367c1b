from scripts.mutations import Mutation

TESTS = ["test_gemm"]
FILE = "gemm.cuh"
MUTATIONS = [
    Mutation(
        "no barrier between the copies of a chunk and its products",
        FILE,
        "gemm::wait_for_copies(slots.ring - 2);\n            __syncthreads();",
        "gemm::wait_for_copies(slots.ring - 2);",
    ),
    Mutation(
        "no barrier before the first products",
        FILE,
        "gemm::wait_for_copies(slots.ring - 2);\n  __syncthreads();",
        "gemm::wait_for_copies(slots.ring - 2);",
    ),
    Mutation(
        "the first chunk is not waited for",
        FILE,
        "gemm::wait_for_copies(slots.ring - 2);\n  __syncthreads();",
        "__syncthreads();",
    ),
    Mutation(
        "one group of copies too few is waited for",
        FILE,
        "gemm::wait_for_copies(slots.ring - 2);\n            __syncthreads();",
        "gemm::wait_for_copies(slots.ring - 1);\n            __syncthreads();",
    ),
    Mutation(
        "copies are left under way at the end",
        FILE,
        "  gemm::wait_for_copies(0);\n",
        "",
        survives="the groups that are left are empty: the last barrier of the last tile waited for all others",
    ),
    Mutation(
        "the ring has one slot too few", FILE, "ring = ring + 1 == slots.ring ? 0", "ring = ring + 2 == slots.ring ? 0"
    ),
    Mutation("the last columns are not cut off", FILE, "min(max(2 * (depth_ - 8 * piece()), 0), 16)", "16"),
    Mutation(
        "half the last piece is copied",
        FILE,
        "min(max(2 * (depth_ - 8 * piece()), 0), 16)",
        "min(max(depth_ - 8 * piece(), 0), 16)",
    ),
    Mutation(
        "rows past the end are read", FILE, "if (rows <= 32 * part) bytes = 0;", "if (rows < 32 * part) bytes = 0;"
    ),
    Mutation(
        "pieces are permuted by the wrong row", FILE, "piece() ^ row_in_part() % 8", "piece() ^ row_in_part() % 4"
    ),
    Mutation(
        "the odd columns take the even ones' operands",
        FILE,
        "b[quarter % 2][2], b[quarter % 2][3]}",
        "b[quarter % 2][0], b[quarter % 2][1]}",
    ),
    Mutation(
        "an operand of the next step is loaded over the current",
        FILE,
        "prim::load_matrix_x4(a[step % 2][m]",
        "prim::load_matrix_x4(a[0][m]",
    ),
    Mutation(
        "tails of tiles are skipped by a warp too many",
        FILE,
        "tile.col + Place::warp_col() < tile.product->b.rows",
        "tile.col + Place::warp_col() + 1 < tile.product->b.rows",
    ),
    Mutation("a row of the lower half is misplaced", FILE, "m * 16 + half * 8 + int", "m * 16 + half * 4 + int"),
    Mutation(
        "a kept row tile is taken for another's", FILE, "tile_ == 0 || tiles_[tile_ - 1].row != tile.row", "tile_ == 0"
    ),
]
