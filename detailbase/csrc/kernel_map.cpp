// Pairs of an input and an output voxel under the offsets of a convolution's kernel.
#include <limits>
#include <stdexcept>
#include <string>

#include "op.h"
#include "parallel.h"
#include "radix_sort.h"
#include "voxels.h"

namespace refer {
namespace {

// Pairs of voxels, grouped by block of `block` outputs, then by kernel offset, then by output. The
// group of block b and offset v is starts[b V + v] .. starts[b V + v + 1].
struct PairList {
  std::vector<int32_t> inputs, outputs;
  std::vector<int64_t> starts;

  void move_to(Results& results) {
    results.push_back(result<int32_t>(std::move(inputs)));
    results.push_back(result<int32_t>(std::move(outputs)));
    results.push_back(result<int64_t>(std::move(starts)));
  }
};

constexpr int64_t kRowsAtOnce = 4096;  // a few blocks: enough work for a thread to take

int popcount(uint64_t x) {
#ifdef __GNUC__
  return __builtin_popcountll(x);
#else
  int count = 0;
  for (; x != 0; x &= x - 1) ++count;
  return count;
#endif
}

// Rows (batch, x, y, z), and their Morton order.
template <typename Int>
class SortedVoxels {
 public:
  SortedVoxels(const Int* voxels, int64_t count, int threads)
      : voxels(voxels), frame(count, [voxels](int64_t row, int column) -> int64_t {
          return voxels[4 * row + column];
        }) {
    if (count >= std::numeric_limits<int32_t>::max()) {
      throw std::invalid_argument("voxels must be fewer than 2^31 - 1");
    }
    order.resize(count);
    parallel_for(count, 1 << 15, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Int* v = voxels + 4 * i;
        order[i] = {frame.key(v[0], v[1], v[2], v[3]), i};
      }
    });
    const auto out_of_order = [](const Keyed& a, const Keyed& b) { return a.key > b.key; };
    if (std::adjacent_find(order.begin(), order.end(), out_of_order) != order.end()) {
      radix_sort(order, frame.key_bits, threads);
    }
    const auto twin = std::adjacent_find(
        order.begin(), order.end(), [](const Keyed& a, const Keyed& b) { return a.key == b.key; });
    if (twin != order.end()) {
      throw std::invalid_argument("voxels must be distinct, rows " + std::to_string(twin->row) +
                                  " and " + std::to_string((twin + 1)->row) + " are the same");
    }
  }

  const Int* voxels;
  Frame frame;
  std::vector<Keyed> order;
};

// Finds voxels by place. Voxels of a brick of 4 x 4 x 4 follow one another in Morton's order: a
// brick keeps the first one's rank and a bit for each place, and ranks follow by counting bits.
class BrickTable {
 public:
  struct Brick {
    uint64_t key, occupied;
    int32_t first;
  };

  BrickTable(const std::vector<Keyed>& order, const Frame& frame) : frame_(frame) {
    size_t bricks = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      bricks += i == 0 || order[i].key >> 6 != order[i - 1].key >> 6;
    }
    while (size_t{1} << slot_bits_ < 2 * bricks) ++slot_bits_;
    slots_.assign(size_t{1} << slot_bits_, {0, 0, 0});
    Brick* brick = nullptr;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i == 0 || order[i].key >> 6 != order[i - 1].key >> 6) {
        brick = &slot(order[i].key >> 6);
        *brick = {order[i].key >> 6, 0, static_cast<int32_t>(i)};
      }
      brick->occupied |= uint64_t{1} << (order[i].key & 63);
    }
  }

  // The brick at brick coordinates of a scene, or null where there is none.
  const Brick* find(int64_t scene, int64_t x, int64_t y, int64_t z) const {
    const int64_t limit = int64_t{1} << (frame_.axis_bits - 2);
    if (x < 0 || y < 0 || z < 0 || x >= limit || y >= limit || z >= limit) return nullptr;
    const uint64_t key = morton(x, y, z) | static_cast<uint64_t>(scene - frame_.batch)
                                               << (3 * frame_.axis_bits - 6);
    const Brick& brick = const_cast<BrickTable*>(this)->slot(key);
    return brick.occupied == 0 ? nullptr : &brick;
  }

 private:
  // The place of a key, or the free one for it; the table is never full.
  Brick& slot(uint64_t key) {
    size_t i = key * 0x9e3779b97f4a7c15ull >> (64 - slot_bits_);
    while (slots_[i].occupied != 0 && slots_[i].key != key) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return slots_[i];
  }

  const Frame& frame_;
  int slot_bits_ = 1;
  std::vector<Brick> slots_;
};

// The 27 voxels around one; remembers the bricks around the last.
template <typename Int>
class Neighbourhood {
 public:
  Neighbourhood(const SortedVoxels<Int>& voxels, const BrickTable& table)
      : voxels_(voxels), table_(table) {}

  // Calls emit(offset, row) for each occupied place around a row, itself included.
  template <typename Emit>
  void visit(int64_t row, const Emit& emit) {
    const Int* at = voxels_.voxels + 4 * row;
    int64_t local[3];
    for (int axis = 0; axis < 3; ++axis) local[axis] = at[axis + 1] - voxels_.frame.origin[axis];
    look_around(at[0], local);
    // A place's number inside its brick: two bits of each axis, interleaved.
    constexpr int kSpread[4] = {0, 1, 8, 9};
    int offset = 0;
    for (int dx = -1; dx <= 1; ++dx) {
      const int x = static_cast<int>(local[0] & 3) + dx;
      for (int dy = -1; dy <= 1; ++dy) {
        const int y = static_cast<int>(local[1] & 3) + dy;
        for (int dz = -1; dz <= 1; ++dz, ++offset) {
          const int z = static_cast<int>(local[2] & 3) + dz;
          // -1 lies in the brick before, 4 in the one behind.
          const auto* brick = around_[(x + 4) / 4][(y + 4) / 4][(z + 4) / 4];
          if (brick == nullptr) continue;
          const int place = kSpread[x & 3] << 2 | kSpread[y & 3] << 1 | kSpread[z & 3];
          if ((brick->occupied >> place & 1) == 0) continue;
          const uint64_t before = brick->occupied & ((uint64_t{1} << place) - 1);
          const int64_t rank = brick->first + popcount(before);
          emit(offset, static_cast<int32_t>(voxels_.order[rank].row));
        }
      }
    }
  }

 private:
  void look_around(int64_t scene, const int64_t* local) {
    const int64_t x = local[0] >> 2, y = local[1] >> 2, z = local[2] >> 2;
    if (known_ && scene == scene_ && x == x_ && y == y_ && z == z_) return;
    known_ = true, scene_ = scene, x_ = x, y_ = y, z_ = z;
    for (int i = 0; i < 27; ++i) {
      const int a = i / 9, b = i / 3 % 3, c = i % 3;
      around_[a][b][c] = table_.find(scene, x + a - 1, y + b - 1, z + c - 1);
    }
  }

  const SortedVoxels<Int>& voxels_;
  const BrickTable& table_;
  bool known_ = false;
  int64_t scene_ = 0, x_ = 0, y_ = 0, z_ = 0;
  const BrickTable::Brick* around_[3][3][3] = {};
};

// Groups pairs: `visitor()` makes a function that is called with (output, emit), for a block's
// outputs in turn, and calls emit(offset, input) for each of an output's pairs. It runs twice, to
// count and to fill.
template <typename Visitor>
PairList group_pairs(int64_t outputs, int64_t volume, int64_t block, int threads,
                     const Visitor& visitor) {
  PairList list;
  const int64_t blocks = (outputs + block - 1) / block;
  const int64_t at_once = std::max<int64_t>(1, kRowsAtOnce / block);
  list.starts.assign(blocks * volume + 1, 0);
  const auto for_each = [&](const auto& use) {
    parallel_for(blocks, at_once, threads, [&](int64_t begin, int64_t end) {
      auto visit = visitor();
      for (int64_t output = begin * block; output < std::min(end * block, outputs); ++output) {
        const int64_t group = output / block * volume;
        visit(output, [&](int64_t offset, int32_t input) { use(group + offset, input, output); });
      }
    });
  };
  for_each([&](int64_t group, int32_t, int64_t) { ++list.starts[group + 1]; });
  for (int64_t i = 0; i < blocks * volume; ++i) list.starts[i + 1] += list.starts[i];
  list.inputs.resize(list.starts.back());
  list.outputs.resize(list.starts.back());
  std::vector<int64_t> next(list.starts.begin(), list.starts.end() - 1);
  for_each([&](int64_t group, int32_t input, int64_t output) {
    list.inputs[next[group]] = input;
    list.outputs[next[group]++] = static_cast<int32_t>(output);
  });
  return list;
}

// A kernel of 3 x 3 x 3 around each of M distinct voxels [M, 4] (batch, x, y, z). Offset
// 9 (dx + 1) + 3 (dy + 1) + dz + 1 pairs output p with input p + (dx, dy, dz). Voxels may come in
// any order; Morton's is the fastest. Returns the pairs.
template <typename Int>
Results submanifold_map(Array<const Int> voxels, int64_t block, int threads) {
  const int64_t count = voxels.shape(0);
  const SortedVoxels<Int> sorted(voxels, count, threads);
  const BrickTable table(sorted.order, sorted.frame);
  Results results;
  group_pairs(count, 27, block, threads, [&] {
    return [around = Neighbourhood<Int>(sorted, table)](int64_t row, const auto& emit) mutable {
      around.visit(row, emit);
    };
  }).move_to(results);
  return results;
}

// A kernel of 2 x 2 x 2 with a stride of 2: input p belongs to output floor(p / 2), under offset
// 4 dx + 2 dy + dz with d = p mod 2. The outputs are in Morton's order. Of a grid of x, y, z
// voxels, outputs that reach over its end are left out, and so are the pairs with them. Returns the
// outputs [M', 4], the pairs down, and those up: the same with inputs and outputs exchanged.
template <typename Int>
Results strided_map(Array<const Int> voxels, int64_t size_x, int64_t size_y, int64_t size_z,
                    int64_t block, int threads) {
  const int64_t count = voxels.shape(0);
  const SortedVoxels<Int> sorted(voxels, count, threads);
  const auto& order = sorted.order;
  std::vector<Int> outputs;
  std::vector<int64_t> children;  // the first rank of each output's inputs
  std::vector<int32_t> parent(count, -1);
  std::vector<uint8_t> place(count);
  bool is_inside = true;
  for (int64_t rank = 0; rank < count; ++rank) {
    const int64_t row = order[rank].row;
    if (rank == 0 || order[rank].key >> 3 != order[rank - 1].key >> 3) {
      const Int* at = voxels + 4 * row;
      const Int coarse[3] = {at[1] >> 1, at[2] >> 1, at[3] >> 1};
      is_inside = coarse[0] < size_x / 2 && coarse[1] < size_y / 2 && coarse[2] < size_z / 2;
      if (is_inside) {
        children.push_back(rank);
        outputs.insert(outputs.end(), {at[0], coarse[0], coarse[1], coarse[2]});
      }
    }
    if (is_inside) parent[row] = static_cast<int32_t>(children.size() - 1);
    place[row] = order[rank].key & 7;
  }
  PairList down = group_pairs(static_cast<int64_t>(children.size()), 8, block, threads, [&] {
    return [&](int64_t output, const auto& emit) {
      const uint64_t cell = order[children[output]].key >> 3;
      for (int64_t rank = children[output]; rank < count && order[rank].key >> 3 == cell; ++rank) {
        emit(static_cast<int64_t>(order[rank].key & 7), static_cast<int32_t>(order[rank].row));
      }
    };
  });
  PairList up = group_pairs(count, 8, block, threads, [&] {
    return [&](int64_t row, const auto& emit) {
      if (parent[row] >= 0) emit(place[row], parent[row]);
    };
  });
  Results results = {result<Int>(std::move(outputs))};
  down.move_to(results);
  up.move_to(results);
  return results;
}

REFER_OP(submanifold_map, submanifold_map, int32_t, int64_t)
REFER_OP(strided_map, strided_map, int32_t, int64_t)

}  // namespace
}  // namespace refer
