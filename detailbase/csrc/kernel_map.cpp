// Pairs of an input and an output voxel under the offsets of a convolution's kernel.
#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "op.h"
#include "parallel.h"
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

// The lowest bit that is set, of at least one.
int lowest_bit(uint64_t x) {
#ifdef __GNUC__
  return __builtin_ctzll(x);
#else
  return popcount((x & (0 - x)) - 1);
#endif
}

// Rounds down; b > 0.
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// Coordinate along an axis of one of the 64 places of a brick, whose bits are interleaved.
constexpr int coordinate(int place, int axis) {
  return (place >> (2 - axis) & 1) | (place >> (5 - axis) & 1) << 1;
}

// For each axis and coordinate, one bit for each of the 16 places of a brick that have it.
struct Planes {
  uint64_t at[3][4] = {};

  constexpr Planes() {
    for (int axis = 0; axis < 3; ++axis) {
      for (int place = 0; place < 64; ++place) {
        at[axis][coordinate(place, axis)] |= uint64_t{1} << place;
      }
    }
  }
};
constexpr Planes kPlanes;

// Places of a brick of 4 x 4 x 4 voxels that are occupied, one bit each. Voxels of a brick follow
// one another in Morton's order, so a voxel's rank is the first one's and the bits before its own.
struct Brick {
  uint64_t key, occupied;
  int32_t first;

  int32_t rank(int place) const {
    return first + popcount(occupied & ((uint64_t{1} << place) - 1));
  }
};

// Bricks by place, given by brick coordinates: a quarter of the voxels'.
class BrickTable {
 public:
  explicit BrickTable(const Frame& frame) : frame(frame), slots_(2, -1) {}

  // Occupies places of a brick; returns those that were occupied before.
  uint64_t occupy(int64_t scene, const int64_t (&at)[3], uint64_t places) {
    const uint64_t key = key_of(scene, at);
    if (bricks.empty() || bricks[latest_].key != key) {
      if (2 * bricks.size() >= slots_.size()) fill_slots(slot_bits_ + 1);
      int32_t& slot = slots_[slot_of(key)];
      if (slot < 0) {
        slot = static_cast<int32_t>(bricks.size());
        bricks.push_back({key, 0, 0});
      }
      latest_ = slot;
    }
    const uint64_t before = bricks[latest_].occupied & places;
    bricks[latest_].occupied |= places;
    return before;
  }

  // Sorts the bricks and ranks their voxels, once all are there; returns how many these are.
  int64_t rank() {
    const auto by_key = [](const Brick& a, const Brick& b) { return a.key < b.key; };
    if (!std::is_sorted(bricks.begin(), bricks.end(), by_key)) {
      std::sort(bricks.begin(), bricks.end(), by_key);
      fill_slots(slot_bits_);
    }
    int64_t count = 0;
    for (Brick& brick : bricks) {
      brick.first = static_cast<int32_t>(count);
      count += popcount(brick.occupied);
      if (count >= std::numeric_limits<int32_t>::max()) {
        throw std::invalid_argument("voxels must be fewer than 2^31 - 1");
      }
    }
    return count;
  }

  // A brick, or null where nothing is occupied.
  const Brick* find(int64_t scene, const int64_t (&at)[3]) const {
    const int64_t limit = int64_t{1} << (frame.axis_bits - 2);
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t local = at[axis] - (frame.origin[axis] >> 2);
      if (local < 0 || local >= limit) return nullptr;
    }
    const int32_t found = slots_[slot_of(key_of(scene, at))];
    return found < 0 ? nullptr : &bricks[found];
  }

  const Frame frame;
  std::vector<Brick> bricks;
  std::vector<int32_t> rows;  // by rank

 private:
  uint64_t key_of(int64_t scene, const int64_t (&at)[3]) const {
    const int64_t* const origin = frame.origin;
    return morton(at[0] - (origin[0] >> 2), at[1] - (origin[1] >> 2), at[2] - (origin[2] >> 2)) |
           static_cast<uint64_t>(scene - frame.batch) << (3 * frame.axis_bits - 6);
  }

  // Where a key stands, or may stand: at most half of the slots are taken.
  size_t slot_of(uint64_t key) const {
    size_t i = key * 0x9e3779b97f4a7c15ull >> (64 - slot_bits_);
    while (slots_[i] >= 0 && bricks[slots_[i]].key != key) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  void fill_slots(int bits) {
    slot_bits_ = bits;
    slots_.assign(size_t{1} << bits, -1);
    for (size_t i = 0; i < bricks.size(); ++i) {
      slots_[slot_of(bricks[i].key)] = static_cast<int32_t>(i);
    }
  }

  int slot_bits_ = 1;
  std::vector<int32_t> slots_;  // -1, or a brick
  int32_t latest_ = 0;
};

// Rows (batch, x, y, z) in any order; Morton's is the fastest.
template <typename Int>
struct Voxels {
  const Int* rows;
  int64_t count;

  // The brick and the place in it of a row.
  int locate(int64_t row, int64_t (&at)[3]) const {
    int place = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t coordinate = rows[4 * row + axis + 1];
      at[axis] = coordinate >> 2;
      place |= static_cast<int>((coordinate & 1) | (coordinate & 2) << 2) << (2 - axis);
    }
    return place;
  }

  BrickTable table(int threads) const {
    BrickTable table(Frame(
        count, [this](int64_t row, int column) -> int64_t { return rows[4 * row + column]; }));
    for (int64_t row = 0; row < count; ++row) {
      int64_t at[3];
      const int place = locate(row, at);
      if (table.occupy(rows[4 * row], at, uint64_t{1} << place) != 0) {
        int64_t twin = 0;
        while (!std::equal(rows + 4 * row, rows + 4 * row + 4, rows + 4 * twin)) ++twin;
        throw std::invalid_argument("voxels must be distinct, rows " + std::to_string(twin) +
                                    " and " + std::to_string(row) + " are the same");
      }
    }
    table.rows.resize(table.rank());
    parallel_for(count, 1 << 15, threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t at[3];
        const int place = locate(row, at);
        table.rows[table.find(rows[4 * row], at)->rank(place)] = static_cast<int32_t>(row);
      }
    });
    return table;
  }
};

// A kernel along one axis, seen from one side of the convolution: under offset k, place p meets
// place (multiple p + shift + step k) / divisor of the other side, where that is whole. Multiple or
// divisor is 1.
struct Axis {
  int64_t size, multiple, shift, step, divisor;
};

// The bricks of the other side that places meet along each axis. They are given from a block of
// places on: block b begins at place 4 divisor b, and counts bricks from 4 multiple b / 4 on.
class Window {
 public:
  struct Reach {
    int64_t brick;
    int64_t slot = 0;         // number of the brick among those that the block meets
    uint64_t places = 0;      // of the brick, which are met along this axis
    int64_t offsets[4] = {};  // of the kernel, this axis' part, by coordinate in the brick
  };

  explicit Window(const Axis (&axes)[3]) {
    for (int axis = 2; axis >= 0; --axis) {
      const Axis& a = axes[axis];
      multiple[axis] = a.multiple;
      reaches[axis].resize(4 * a.divisor);
      std::vector<int64_t> bricks;
      for (int64_t k = 0; k < a.size; ++k) {
        const int64_t moved = a.shift + k * a.step;
        const int64_t first = -moved - floor_div(-moved, a.divisor) * a.divisor;
        for (int64_t p = first; p < 4 * a.divisor; p += a.divisor) {
          const int64_t place = (p * a.multiple + moved) / a.divisor;
          auto& reach = reaches[axis][p];
          if (reach.empty() || reach.back().brick != place >> 2) reach.push_back({place >> 2});
          reach.back().places |= kPlanes.at[axis][place & 3];
          reach.back().offsets[place & 3] = k * volume;
          bricks.push_back(place >> 2);
        }
      }
      std::sort(bricks.begin(), bricks.end());
      bricks.erase(std::unique(bricks.begin(), bricks.end()), bricks.end());
      slots[axis] = static_cast<int64_t>(bricks.size());
      for (auto& reach : reaches[axis]) {
        for (Reach& r : reach) {
          r.slot = std::lower_bound(bricks.begin(), bricks.end(), r.brick) - bricks.begin();
        }
      }
      volume *= a.size;
    }
  }

  int64_t volume = 1, multiple[3], slots[3];
  std::vector<std::vector<Reach>> reaches[3];  // by place in the block
};

// What voxels meet, one after the other; remembers the bricks around the last.
template <typename Int>
class Neighbourhood {
 public:
  Neighbourhood(const Int* voxels, const Window& window, const BrickTable& table)
      : voxels_(voxels),
        window_(window),
        table_(table),
        around_(window.slots[0] * window.slots[1] * window.slots[2], &kUnknown) {}

  // Calls use(x, y, z, at) for each brick that a row may meet: its reaches and its coordinates.
  template <typename Use>
  void visit_bricks(int64_t row, const Use& use) {
    const Int* const voxel = voxels_ + 4 * row;
    bool has_moved = voxel[0] != scene_;
    const std::vector<Window::Reach>* reaches[3];
    for (int axis = 0; axis < 3; ++axis) {
      const int64_t period = static_cast<int64_t>(window_.reaches[axis].size());
      int64_t p = voxel[axis + 1] - block_[axis] * period;
      if (p < 0 || p >= period) {
        has_moved = true;
        block_[axis] = floor_div(voxel[axis + 1], period);
        p = voxel[axis + 1] - block_[axis] * period;
      }
      reaches[axis] = &window_.reaches[axis][p];
    }
    if (has_moved) {
      scene_ = voxel[0];
      std::fill(around_.begin(), around_.end(), &kUnknown);
    }
    int64_t at[3];
    for (const auto& x : *reaches[0]) {
      at[0] = block_[0] * window_.multiple[0] + x.brick;
      for (const auto& y : *reaches[1]) {
        at[1] = block_[1] * window_.multiple[1] + y.brick;
        for (const auto& z : *reaches[2]) {
          at[2] = block_[2] * window_.multiple[2] + z.brick;
          use(x, y, z, at);
        }
      }
    }
  }

  // Calls emit(offset, row) for each voxel of the table that a row meets.
  template <typename Emit>
  void visit(int64_t row, const Emit& emit) {
    visit_bricks(row, [&](const auto& x, const auto& y, const auto& z, const int64_t (&at)[3]) {
      const Brick*& brick =
          around_[(x.slot * window_.slots[1] + y.slot) * window_.slots[2] + z.slot];
      if (brick == &kUnknown) brick = table_.find(voxels_[4 * row], at);
      if (brick == nullptr) return;
      uint64_t met = brick->occupied & x.places & y.places & z.places;
      for (; met != 0; met &= met - 1) {
        const int place = lowest_bit(met);
        const int64_t offset = x.offsets[coordinate(place, 0)] + y.offsets[coordinate(place, 1)] +
                               z.offsets[coordinate(place, 2)];
        emit(offset, table_.rows[brick->rank(place)]);
      }
    });
  }

 private:
  static constexpr Brick kUnknown{0, 0, 0};

  const Int* voxels_;
  const Window& window_;
  const BrickTable& table_;
  int64_t scene_ = 0, block_[3] = {0, 0, 0};
  std::vector<const Brick*> around_;
};

// Groups pairs: `visitor()` makes a function that is called with (output, emit), for a block's
// outputs in turn, and calls emit(offset, input) for each of an output's pairs.
template <typename Visitor>
PairList group_pairs(int64_t outputs, int64_t volume, int64_t block, int threads,
                     const Visitor& visitor) {
  struct Pair {
    int32_t offset, input, output;
  };
  const int64_t blocks = (outputs + block - 1) / block;
  const int64_t at_once = std::max<int64_t>(1, kRowsAtOnce / block);
  std::vector<PairList> parts((blocks + at_once - 1) / at_once);
  PairList list;
  list.starts.assign(blocks * volume + 1, 0);
  parallel_for(blocks, at_once, threads, [&](int64_t begin, int64_t end) {
    PairList& part = parts[begin / at_once];
    auto visit = visitor();
    std::vector<Pair> pairs;
    std::vector<int64_t> next(volume);
    for (int64_t b = begin; b < end; ++b) {
      pairs.clear();
      int64_t* const counts = &list.starts[b * volume + 1];
      for (int64_t output = b * block; output < std::min((b + 1) * block, outputs); ++output) {
        visit(output, [&](int64_t offset, int32_t input) {
          pairs.push_back({static_cast<int32_t>(offset), input, static_cast<int32_t>(output)});
          ++counts[offset];
        });
      }
      int64_t size = static_cast<int64_t>(part.inputs.size());
      for (int64_t v = 0; v < volume; ++v) {
        next[v] = size;
        size += counts[v];
      }
      part.inputs.resize(size);
      part.outputs.resize(size);
      for (const Pair& pair : pairs) {
        const int64_t place = next[pair.offset]++;
        part.inputs[place] = pair.input;
        part.outputs[place] = pair.output;
      }
    }
  });
  for (int64_t i = 0; i < blocks * volume; ++i) list.starts[i + 1] += list.starts[i];
  list.inputs.resize(list.starts.back());
  list.outputs.resize(list.starts.back());
  parallel_for(static_cast<int64_t>(parts.size()), 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = list.starts[i * at_once * volume];
      std::copy(parts[i].inputs.begin(), parts[i].inputs.end(), list.inputs.begin() + first);
      std::copy(parts[i].outputs.begin(), parts[i].outputs.end(), list.outputs.begin() + first);
      parts[i] = {};
    }
  });
  return list;
}

// The pairs of voxels, as outputs, with those of a table that they meet, as inputs.
template <typename Int>
PairList find_pairs(const Voxels<Int>& voxels, const Window& window, const BrickTable& table,
                    int64_t block, int threads) {
  return group_pairs(voxels.count, window.volume, block, threads, [&] {
    return [around = Neighbourhood<Int>(voxels.rows, window, table)](
               int64_t row, const auto& emit) mutable { around.visit(row, emit); };
  });
}

// A convolution's kernel, from numbers [4, 3]: sizes, strides, paddings and dilations along x, y,
// z. Output o meets input stride o - padding + dilation k under offset k.
struct Kernel {
  int64_t size[3], stride[3], padding[3], dilation[3];

  explicit Kernel(Array<const int64_t> numbers) {
    constexpr int64_t kMost = 1 << 15;
    int64_t volume = 1;
    for (int axis = 0; axis < 3; ++axis) {
      int64_t* const own[] = {&size[axis], &stride[axis], &padding[axis], &dilation[axis]};
      for (int i = 0; i < 4; ++i) {
        *own[i] = numbers[3 * i + axis];
        if (*own[i] < (i == 2 ? 0 : 1) || *own[i] > kMost) {
          throw std::invalid_argument(
              "kernel, stride and dilation must lie in 1..32768, padding in 0..32768, got " +
              std::to_string(*own[i]));
        }
      }
      volume *= size[axis];
      if (volume > kMost) throw std::invalid_argument("kernel must have at most 32768 places");
    }
  }

  Window from_outputs() const {
    return Window({axis_from_outputs(0), axis_from_outputs(1), axis_from_outputs(2)});
  }
  Window from_inputs() const {
    return Window({axis_from_inputs(0), axis_from_inputs(1), axis_from_inputs(2)});
  }

 private:
  Axis axis_from_outputs(int i) const { return {size[i], stride[i], -padding[i], dilation[i], 1}; }
  Axis axis_from_inputs(int i) const { return {size[i], 1, padding[i], -dilation[i], stride[i]}; }
};

// The pairs of a kernel [4, 3] whose outputs are its inputs, distinct voxels [M, 4].
template <typename Int>
Results submanifold_map(Array<const Int> voxels, Array<const int64_t> kernel, int64_t block,
                        int threads) {
  const Voxels<Int> given{voxels, voxels.shape(0)};
  const BrickTable table = given.table(threads);
  Results results;
  find_pairs(given, Kernel(kernel).from_outputs(), table, block, threads).move_to(results);
  return results;
}

// The bricks of the outputs in the grid [2, 3], from its first to its last place, that inputs meet.
template <typename Int>
BrickTable find_outputs(const Voxels<Int>& inputs, const Frame& frame, const Kernel& kernel,
                        const Window& window, const int64_t* grid) {
  int64_t ends[2][4] = {{frame.low[0]}, {frame.high[0]}};
  bool is_empty = inputs.count == 0;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t low = frame.low[axis + 1], high = frame.high[axis + 1];
    if (low < -(int64_t{1} << 62) || high > int64_t{1} << 62) {
      throw std::invalid_argument("coords must lie within 2^62 of 0");
    }
    const int64_t stride = kernel.stride[axis], padding = kernel.padding[axis];
    const int64_t first = low + padding - kernel.dilation[axis] * (kernel.size[axis] - 1);
    using Limits = std::numeric_limits<Int>;
    ends[0][axis + 1] = std::max<int64_t>(
        {-floor_div(-first, stride), grid[axis], static_cast<int64_t>(Limits::min())});
    ends[1][axis + 1] = std::min<int64_t>(
        {floor_div(high + padding, stride), grid[3 + axis], static_cast<int64_t>(Limits::max())});
    is_empty |= ends[0][axis + 1] > ends[1][axis + 1];
  }
  BrickTable outputs(Frame(is_empty ? 0 : 2, [&](int64_t row, int i) { return ends[row][i]; }));
  if (is_empty) return outputs;
  Neighbourhood<Int> around(inputs.rows, window, outputs);
  for (int64_t row = 0; row < inputs.count; ++row) {
    around.visit_bricks(row, [&](const auto& x, const auto& y, const auto& z, const auto& at) {
      uint64_t places = x.places & y.places & z.places;
      for (int axis = 0; axis < 3; ++axis) {
        for (int i = 0; i < 4; ++i) {
          const int64_t place = 4 * at[axis] + i;
          const bool is_inside = ends[0][axis + 1] <= place && place <= ends[1][axis + 1];
          if (!is_inside) places &= ~kPlanes.at[axis][i];
        }
      }
      if (places != 0) outputs.occupy(inputs.rows[4 * row], at, places);
    });
  }
  return outputs;
}

// The rows (batch, x, y, z) of a ranked table, in Morton's order.
template <typename Int>
std::vector<Int> voxels_of(const BrickTable& table) {
  const Frame& frame = table.frame;
  const uint64_t axis_mask = (uint64_t{1} << (frame.axis_bits - 2)) - 1;
  std::vector<Int> voxels;
  voxels.reserve(4 * table.rows.size());
  for (const Brick& brick : table.bricks) {
    const auto scene = static_cast<int64_t>(brick.key >> (3 * frame.axis_bits - 6));
    for (uint64_t rest = brick.occupied; rest != 0; rest &= rest - 1) {
      voxels.push_back(static_cast<Int>(scene + frame.batch));
      for (int axis = 0; axis < 3; ++axis) {
        const uint64_t local = gather_bits(brick.key >> (2 - axis)) & axis_mask;
        voxels.push_back(static_cast<Int>(frame.origin[axis] + 4 * static_cast<int64_t>(local) +
                                          coordinate(lowest_bit(rest), axis)));
      }
    }
  }
  return voxels;
}

// The map of a kernel [4, 3] from distinct voxels [M, 4] to all that they meet in the grid [2, 3],
// from its first to its last place. Returns these outputs [M', 4] in Morton's order, the pairs
// grouped by them, and the pairs grouped by the voxels: the same with inputs and outputs exchanged.
template <typename Int>
Results kernel_map(Array<const Int> voxels, Array<const int64_t> kernel_numbers,
                   Array<const int64_t> grid, int64_t block, int threads) {
  const Kernel kernel(kernel_numbers);
  const Window window = kernel.from_inputs();
  const Voxels<Int> inputs{voxels, voxels.shape(0)};
  const BrickTable input_table = inputs.table(threads);
  BrickTable output_table = find_outputs(inputs, input_table.frame, kernel, window, grid);
  output_table.rows.resize(output_table.rank());
  std::iota(output_table.rows.begin(), output_table.rows.end(), 0);
  std::vector<Int> coords = voxels_of<Int>(output_table);
  const Voxels<Int> outputs{coords.data(), static_cast<int64_t>(output_table.rows.size())};
  PairList down = find_pairs(outputs, kernel.from_outputs(), input_table, block, threads);
  PairList up = find_pairs(inputs, window, output_table, block, threads);
  Results results = {result<Int>(std::move(coords))};
  down.move_to(results);
  up.move_to(results);
  return results;
}

REFER_OP(submanifold_map, submanifold_map, int32_t, int64_t)
REFER_OP(kernel_map, kernel_map, int32_t, int64_t)

}  // namespace
}  // namespace refer
