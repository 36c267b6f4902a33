// Lists of the Gaussians in each tile of the image, nearest first: counted, listed and, by their
// tiles, sorted outside. A thread goes through the tiles around its own Gaussian; where these are
// many, its whole warp does, so that nobody waits for the thread of a Gaussian that fills the
// image.
#include "device.h"
#include "record.h"

#ifndef KEY
#define KEY int32_t
#endif

namespace refer {

constexpr int kThreads = 256;
constexpr int kAlone = 16;  // tiles that a thread goes through by itself

// A Gaussian and the tiles around it, for the other threads of its warp.
struct Shown {
  Record record;
  Rectangle tiles;
  int64_t first, end;  // where its pairs are listed
  int32_t gaussian;
};

// Fills in what a thread's Gaussian shows; no tiles where it does not reach the image, or is none.
__device__ inline void show(Shown& own, bool is_one, int64_t i, const REAL* means2d,
                            const REAL* conics, const REAL* depths, const REAL* opacities,
                            int64_t width, int64_t height) {
  own.record = {};
  own.gaussian = int32_t(i);
  const bool is_seen =
      is_one && find_rectangle(means2d + 2 * i, conics + 3 * i, depths[i], opacities[i], int(width),
                               int(height), own.record, own.tiles);
  if (!is_seen) own.tiles = {};
}

// Whether the Gaussian reaches the tile of that place in its rectangle, and which one it is.
__device__ inline bool reaches_tile(const Shown& s, int place, int tiles_across, int& tile) {
  const int x = s.tiles.tile_x + place % s.tiles.tiles_x;
  const int y = s.tiles.tile_y + place / s.tiles.tiles_x;
  tile = y * tiles_across + x;
  const REAL left = REAL(x * kTile), top = REAL(y * kTile);
  return reaches_box(s.record, left, top, left + (kTile - 1), top + (kTile - 1));
}

// Calls write(shown, k, tile) for the k-th tile that each Gaussian of the warp reaches. Returns how
// many the thread's own does. `shown` has a row for each thread of the block.
template <typename Write>
__device__ int visit_tiles(const Shown* shown, int tiles_across, Write write) {
  const Shown& own = shown[threadIdx.x];
  const int lane = lane_of_thread(), size = own.tiles.tiles_x * own.tiles.tiles_y;
  int reached = 0, tile = 0;
  for (int place = 0; place < size && size <= kAlone; ++place) {
    if (reaches_tile(own, place, tiles_across, tile)) write(own, reached++, tile);
  }
  __syncwarp();
  for (unsigned todo = __ballot_sync(kAllLanes, size > kAlone); todo; todo &= todo - 1) {
    const int owner = __ffs(todo) - 1;
    const Shown& s = shown[warp_of_thread() * kWarp + owner];
    const int places = s.tiles.tiles_x * s.tiles.tiles_y;
    int before = 0;
    for (int first = 0; first < places; first += kWarp) {
      const int place = first + lane;
      const bool reaches = place < places && reaches_tile(s, place, tiles_across, tile);
      const unsigned all = __ballot_sync(kAllLanes, reaches);
      if (reaches) write(s, before + __popc(all & ((1u << lane) - 1)), tile);
      before += __popc(all);
    }
    if (lane == owner) reached = before;
  }
  return reached;
}

__device__ inline int tiles_along(int64_t pixels) { return int(pixels + kTile - 1) / kTile; }

// order [N]: the Gaussians by depth. counts [N]: how many tiles each of them reaches, in that
// order.
extern "C" __global__ void __launch_bounds__(kThreads)
    count_tiles(const int64_t* order, const REAL* means2d, const REAL* conics, const REAL* depths,
                const REAL* opacities, int64_t width, int64_t height, int64_t count, REAL* records,
                int64_t* counts) {
  __shared__ Shown shown[kThreads];
  const int64_t rank = global_thread();
  const bool is_one = rank < count;
  const int64_t i = is_one ? order[rank] : 0;
  Shown& own = shown[threadIdx.x];
  show(own, is_one, i, means2d, conics, depths, opacities, width, height);
  const int reached = visit_tiles(shown, tiles_along(width), [](const Shown&, int, int) {});
  if (!is_one) return;
  Record record = own.record;
  if (reached == 0) record.reach = 0;
  reinterpret_cast<Record*>(records)[i] = record;
  counts[rank] = reached;
}

// ends [N]: the sums of the counts up to each. Should a compiler round differently here than in
// count_tiles, nothing is written beyond, and what is missing goes to a tile behind the last.
extern "C" __global__ void __launch_bounds__(kThreads)
    list_tiles(const int64_t* order, const REAL* means2d, const REAL* conics, const REAL* depths,
               const REAL* opacities, int64_t width, int64_t height, int64_t count,
               const int64_t* ends, KEY* keys, int32_t* gaussians) {
  __shared__ Shown shown[kThreads];
  const int64_t rank = global_thread();
  const bool is_one = rank < count;
  Shown& own = shown[threadIdx.x];
  show(own, is_one, is_one ? order[rank] : 0, means2d, conics, depths, opacities, width, height);
  own.first = is_one && rank > 0 ? ends[rank - 1] : 0;
  own.end = is_one ? ends[rank] : 0;
  const int reached = visit_tiles(shown, tiles_along(width), [&](const Shown& s, int k, int tile) {
    if (s.first + k >= s.end) return;
    keys[s.first + k] = KEY(tile);
    gaussians[s.first + k] = s.gaussian;
  });
  for (int64_t next = own.first + reached; next < own.end; ++next) {
    keys[next] = KEY(tiles_along(width) * tiles_along(height));
    gaussians[next] = own.gaussian;
  }
}

}  // namespace refer
