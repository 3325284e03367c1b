from scripts.cuda.mutations import Mutation

TESTS = ["test_similarity"]
FILE = "product/similarity.cuh"
MUTATIONS = [
    Mutation("a block leaves its last tile out", FILE, "size_ = int(end - begin);", "size_ = int(end - begin) - 1;"),
    Mutation(
        "blocks share out fewer tiles than there are",
        FILE,
        "tiles_ = row_tiles * col_tiles;",
        "tiles_ = row_tiles * col_tiles - (col_tiles > 1);",
    ),
    Mutation(
        "a block begins at the first column",
        FILE,
        "first_col_ = int(begin % a.col_tiles.divisor());",
        "first_col_ = 0;",
    ),
    Mutation("a block begins at the first row", FILE, "(first_row_ + rows) * kTileRows", "rows * kTileRows"),
    Mutation(
        "columns go on past the last tile",
        FILE,
        "col = a_.col_tiles.remainder(first_col_ + i);",
        "col = first_col_ + i;",
    ),
    Mutation("rows past the end are written", FILE, "if (row >= rows) continue;", "if (row > rows) continue;"),
    Mutation(
        "classes past the end are written",
        FILE,
        "left - n * 8, classes % 2 == 0",
        "max(left - n * 8, 1), classes % 2 == 0",
    ),
    Mutation(
        "an odd class past the end is written", FILE, "if (left >= 2) __stcs(to + 1, odd);", "__stcs(to + 1, odd);"
    ),
    Mutation(
        "a warp's part that crosses the last class is whole",
        FILE,
        "first_class + kWarpCols <= classes;",
        "first_class + kWarpCols <= classes + 8;",
    ),
    Mutation(
        "rows of an odd number of classes are aligned",
        FILE,
        "whole = classes % 2 == 0 && first_class",
        "whole = first_class",
    ),
    Mutation(
        "the last of an odd number of classes is left out",
        FILE,
        "if (left >= 1) __stcs(to, even);",
        "if (left >= 2) __stcs(to, even);",
    ),
    Mutation("pairs are written at odd places", FILE, "classes % 2 == 0);", "true);"),
    Mutation(
        "the warp's part of a tile is skipped too early",
        FILE,
        "if (first_class >= classes) return;",
        "if (first_class + 1 >= classes) return;",
    ),
    Mutation(
        "both halves of a tile take the first one's factors",
        FILE,
        "a.row_factor[min(tile.row + Place::row(m, half), rows - 1)]",
        "a.row_factor[min(tile.row + Place::row(m, 0), rows - 1)]",
    ),
    Mutation(
        "factors are read past the last row",
        FILE,
        "min(tile.row + Place::row(m, half), rows - 1)",
        "tile.row + Place::row(m, half)",
    ),
    Mutation(
        "the factor of the class is left out",
        FILE,
        "return x * factor * of_row[m];",
        "return x * 0x1p-16f * of_row[m];",
    ),
    Mutation(
        "the factor of the row is left out", FILE, "return x * factor * of_row[m];", "return x * factor * 0x1p16f;"
    ),
    Mutation(
        "factors are those of the tile's first warp",
        FILE,
        "a.columns + first_class,",
        "a.columns + tile.col,",
    ),
    Mutation(
        "rows lie as far apart as padded classes",
        FILE,
        "row * classes + tile.col",
        "row * ((classes + 7) / 8 * 8) + tile.col",
    ),
    Mutation("fp16 is multiplied as bf16", FILE, "!split_ && image.dtype == Dtype::kHalf", "!split_ && false"),
    Mutation(
        "images are read in place though split", FILE, "!split_ && readable_in_place(image)", "readable_in_place(image)"
    ),
    Mutation(
        "rows are kept though they are multiplied pair by pair",
        FILE,
        "!split_ && col_tiles > 1",
        "col_tiles > 1",
    ),
    Mutation(
        "without normalize too rows are normalised",
        FILE,
        "prepare_a(image, split_, normalize,",
        "prepare_a(image, split_, true,",
    ),
    Mutation(
        "factors of split rows leave fp32's range",
        "product/operand.cuh",
        "p.scaling == Scaling::kToOne ? 1 : kBalance",
        "kBalance",
    ),
    Mutation(
        "one row of any stride is aligned",
        "product/operand.cuh",
        "rows_are_aligned(static_cast<const __half*>(m.data), m.stride)",
        "(m.rows <= 1 ? is_aligned(m.data) : rows_are_aligned(static_cast<const __half*>(m.data), m.stride))",
    ),
]
