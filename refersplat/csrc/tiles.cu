// Which Gaussians each tile of the image meets, nearest first: counted, listed and, by their tiles,
// sorted outside.
#include "device.h"
#include "record.h"

#ifndef KEY
#define KEY int32_t
#endif

namespace refer {

struct Image {
  int width, height, tiles_x;
  __device__ Image(int64_t width, int64_t height)
      : width(int(width)), height(int(height)), tiles_x((int(width) + kTile - 1) / kTile) {}
};

// Calls each(tile) for the tiles that the ellipse reaches.
template <typename Each>
__device__ void visit_tiles(const Ellipse<REAL>& e, const Rectangle& r, int tiles_x, Each each) {
  for (int y = r.tile_y; y < r.tile_y + r.tiles_y; ++y) {
    for (int x = r.tile_x; x < r.tile_x + r.tiles_x; ++x) {
      const REAL left = REAL(x * kTile), top = REAL(y * kTile);
      if (reaches_box(e, left, top, left + (kTile - 1), top + (kTile - 1))) each(y * tiles_x + x);
    }
  }
}

// order [N]: the Gaussians by depth. counts [N]: how many tiles each of them reaches, in that
// order.
extern "C" __global__ void count_tiles(const int64_t* order, const REAL* means2d,
                                       const REAL* conics, const REAL* depths,
                                       const REAL* opacities, int64_t width, int64_t height,
                                       int64_t count, REAL* records, int64_t* counts) {
  const int64_t rank = global_thread();
  if (rank >= count) return;
  const int64_t i = order[rank];
  const Image image(width, height);
  Record record = {};
  Rectangle tiles;
  int reached = 0;
  if (find_rectangle(means2d + 2 * i, conics + 3 * i, depths[i], opacities[i], image.width,
                     image.height, record, tiles)) {
    visit_tiles(record, tiles, image.tiles_x, [&](int) { ++reached; });
  }
  if (reached == 0) record.reach = 0;
  reinterpret_cast<Record*>(records)[i] = record;
  counts[rank] = reached;
}

// ends [N]: the sums of the counts up to each. Should a compiler round differently here than in
// count_tiles, nothing is written beyond, and what is missing goes to a tile behind the last.
extern "C" __global__ void list_tiles(const int64_t* order, const REAL* means2d, const REAL* conics,
                                      const REAL* depths, const REAL* opacities, int64_t width,
                                      int64_t height, int64_t count, const int64_t* ends, KEY* keys,
                                      int32_t* gaussians) {
  const int64_t rank = global_thread();
  if (rank >= count) return;
  const int64_t i = order[rank];
  int64_t next = rank == 0 ? 0 : ends[rank - 1];
  const int64_t end = ends[rank];
  if (next == end) return;
  const Image image(width, height);
  Record record;
  Rectangle tiles;
  find_rectangle(means2d + 2 * i, conics + 3 * i, depths[i], opacities[i], image.width,
                 image.height, record, tiles);
  visit_tiles(record, tiles, image.tiles_x, [&](int tile) {
    if (next == end) return;
    keys[next] = KEY(tile);
    gaussians[next++] = int32_t(i);
  });
  for (; next < end; ++next) {
    keys[next] = KEY(image.tiles_x * ((image.height + kTile - 1) / kTile));
    gaussians[next] = int32_t(i);
  }
}

}  // namespace refer
