from scripts.cuda.mutations import Mutation

TESTS = ["test_gemm"]
FILE, TILE = "product/gemm.cuh", "product/tile.cuh"
MUTATIONS = [
    Mutation(
        "no barrier between the copies of a chunk and its products",
        FILE,
        "gemm::wait_for_copies(slots.ring - 2);\n          __syncthreads();",
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
        "gemm::wait_for_copies(slots.ring - 2);\n          __syncthreads();",
        "gemm::wait_for_copies(slots.ring - 1);\n          __syncthreads();",
    ),
    Mutation(
        "copies are left under way at the end",
        FILE,
        "  gemm::wait_for_copies(0);\n",
        "",
        survives="the groups that are left are empty: the last barrier of the last tile waited for all others",
    ),
    Mutation(
        "the products' ring has one slot too few",
        FILE,
        "ring = ring + 1 == slots.ring ? 0",
        "ring = ring + 2 == slots.ring ? 0",
    ),
    Mutation(
        "the last columns are not cut off",
        FILE,
        "const bool any = left_ > 8 * Piece::number();",
        "const bool any = true;",
    ),
    Mutation("a piece too few is copied", FILE, "left_ > 8 * Piece::number()", "left_ > 8 * Piece::number() + 8"),
    Mutation("a row past the end is read", FILE, "any && x.rows > 32 * part", "any && x.rows >= 32 * part"),
    Mutation("pieces are permuted by the wrong row", TILE, "(number() ^ row() % 8)", "(number() ^ row() % 4)"),
    Mutation(
        "the odd columns take the even ones' operands",
        FILE,
        "b[quarter % 2][2], b[quarter % 2][3]}",
        "b[quarter % 2][0], b[quarter % 2][1]}",
    ),
    Mutation(
        "the next step's rows are those of this step",
        FILE,
        "fragments.load_a(next_rows, (step + 1) % 4, m)",
        "fragments.load_a(next_rows, step, m)",
    ),
    Mutation(
        "the next chunk's rows are looked for in this one",
        FILE,
        "rows(step < 3 ? chunk : chunk + 1)",
        "rows(chunk)",
    ),
    Mutation(
        "rows of the next step overwrite this one's",
        FILE,
        "fragments.multiply<T>(acc, m, 3);\n            if (more) fragments.load_a(next_rows, (step + 1) % 4, m);",
        "if (more) fragments.load_a(next_rows, (step + 1) % 4, m);\n            fragments.multiply<T>(acc, m, 3);",
    ),
    Mutation(
        "tails of tiles are skipped by a warp too many",
        FILE,
        "tile.col + Place::warp_col() < tile.product->b.rows",
        "tile.col + Place::warp_col() + 1 < tile.product->b.rows",
    ),
    Mutation("a row of the lower half is misplaced", TILE, "m * 16 + half * 8 + int", "m * 16 + half * 4 + int"),
    Mutation(
        "a kept row tile is taken for another's", FILE, "tile_ == 0 || tiles_[tile_ - 1].row != tile.row", "tile_ == 0"
    ),
    Mutation("kept rows are copied over the ring", FILE, "(slots_.rows == slots_.ring ? ring_ : chunk_)", "ring_"),
    Mutation("the ring overtakes kept rows", TILE, "chunks > ring &&", "chunks >= ring - 1 &&"),
    Mutation(
        "a pair of terms is forgotten",
        FILE,
        "pair_ = chunk_ = 0;",
        "pair_ = chunk_ = 0;\n      if (product().pairs > 1) pair_ = 1;",
    ),
    Mutation("the terms of a are in the order of b's", TILE, "0x118 >> 2", "0x052 >> 2"),
    Mutation("the middle terms are not multiplied", TILE, "0x052 >> 2", "0x042 >> 2"),
]
