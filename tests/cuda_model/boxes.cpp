// The copy engine: boxes of a matrix, or bytes as they are, under way to shared memory.
#include "barriers.h"

namespace cuda_model {

namespace {

constexpr int kMaxBoxes = 64, kRowBytes = 128, kPiece = 16;

struct Box {
  TensorMap map;  // of bytes as they are: where they lie, and nothing else
  unsigned char* to;
  int row, column;
  size_t size;
  BarrierState* barrier;
  unsigned phase;
  bool under_way;
};

Box boxes[kMaxBoxes];
int order[kMaxBoxes], n_under_way = 0;  // the oldest first
char issue_tags[kSets][kMaxBoxes];

// A row of a box, which is row `row` of the matrix and row `number` of the box; zeros outside of the matrix.
void copy_row(unsigned char* to, const Box& box, int64_t row, int number) {
  unsigned char bytes[kRowBytes] = {};
  const int64_t first = std::max<int64_t>(-int64_t(box.column), 0),
                last = std::min<int64_t>(box.map.cols - box.column, kRowBytes / 2);
  if (row >= 0 && row < box.map.rows && first < last) {
    const unsigned char* const from = box.map.data + row * box.map.stride + 2 * int64_t(box.column);
    sanitizer_reads(from + 2 * first, size_t(2 * (last - first)));
    for (int64_t i = 2 * first; i < 2 * last; ++i) bytes[i] = from[i];
  }
  sanitizer_writes(to, kRowBytes);
  for (int i = 0; i < kRowBytes; i += kPiece) __builtin_memcpy(to + (i ^ number % 8 * kPiece), bytes + i, kPiece);
}

void land(int slot) {
  Box& box = boxes[slot];
  {
    const AsAgent agent(copy_agent(slot % kCopyAgents));
    __tsan_acquire(&issue_tags[set][slot]);
    if (box.map.box_rows == 0) {
      sanitizer_reads(box.map.data, box.size);
      sanitizer_writes(box.to, box.size);
      __builtin_memcpy(box.to, box.map.data, box.size);
    }
    for (int r = 0; r < box.map.box_rows; ++r) copy_row(box.to + r * kRowBytes, box, int64_t(box.row) + r, r);
    __tsan_release(phase_tag(*box.barrier, box.phase));
  }
  box.under_way = false;
  if (box.barrier->phase != box.phase) die("a box landed in another phase of its barrier than it was issued in");
  bytes_land(*box.barrier, int(box.size));
}

void issue(const TensorMap& map, void* to, int row, int column, size_t size, uint64_t* state, Place place) {
  current->place = place;
  at_atomic();
  BarrierState& barrier = find_barrier(state, place);
  if (!barrier.published) die("a copy for a barrier that was not published");
  int slot = 0;
  while (slot < kMaxBoxes && boxes[slot].under_way) ++slot;
  if (slot == kMaxBoxes) die("too many copies under way");
  Box& box = boxes[slot];
  box = {map, static_cast<unsigned char*>(to), row, column, size, &barrier, barrier.phase, true};
  if (!in_dynamic_shared(to, size)) die("a copy to what is not wholly in dynamic shared memory");
  for (int i = 0; i < n_under_way; ++i) {
    const Box& other = boxes[order[i]];
    if (other.to < box.to + box.size && box.to < other.to + other.size) die("another copy is under way to there");
  }
  ++counters.async_copies;
  __tsan_release(&issue_tags[set][slot]);
  if (settings.copies_land_early)
    land(slot);
  else
    order[n_under_way++] = slot;
}

}  // namespace

void copy_box(void* to, const TensorMap* map, int row, int column, uint64_t* state, Place place) {
  if (uintptr_t(map) % 64) die("copy_box: a map that is not 64-byte aligned");
  if (map->box_rows < 1 || map->box_rows > 256) die("copy_box: not a map");
  if (uintptr_t(to) % 1024) die("copy_box: address not 1024-byte aligned");
  issue(*map, to, row, column, size_t(map->box_rows) * kRowBytes, state, place);
}

void copy_bytes(void* to, const void* from, int bytes, uint64_t* state, Place place) {
  if (bytes <= 0 || (uintptr_t(to) | uintptr_t(from) | uintptr_t(bytes)) % 16)
    die("copy_bytes: addresses and bytes must be multiples of 16");
  issue({static_cast<const unsigned char*>(from), 0, 0, 0, 0}, to, 0, 0, size_t(bytes), state, place);
}

// Lands one, where nothing else can be done.
bool land_a_box() {
  if (n_under_way == 0) return false;
  const int chosen = settings.schedule == Schedule::kShuffle ? int(random_below(unsigned(n_under_way))) : 0;
  const int slot = order[chosen];
  --n_under_way;
  for (int i = chosen; i < n_under_way; ++i) order[i] = order[i + 1];
  land(slot);
  return true;
}

void check_boxes() {
  if (n_under_way) die("a block ended before its copies had landed");
}

}  // namespace cuda_model
