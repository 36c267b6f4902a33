// Over-segmentation of surfaces: Felzenszwalb and Huttenlocher's, on the edges of a mesh or between
// neighbouring points.
//
// An edge weighs 1 - cos of the angle between the normals at its ends. Edges are taken from the
// lightest on; one joins two segments that it is no heavier than either's heaviest edge so far plus
// k / size. Then, in the same order, segments of fewer than min_size vertices are joined to what
// they touch.
#pragma once

#include <cstdint>

namespace refer {

// Normals of a mesh. By area: the faces' cross products, added and brought to length 1.
// As ScanNet's own program takes them: the mean of the faces' unit normals, whatever its length,
// in float32, and every side of every triangle is an edge, so most occur twice.
enum class MeshRule { kArea, kScannet };

// labels [N] of vertices [N, 3], numbered in the order of their first vertices, for triangles
// faces [F, 3]. Weights are squared where the surface is convex. Equal edges come in the order of
// their vertices' numbers, or of the faces for kScannet.
template <typename T>
void mesh_superpoints(const T* vertices, int64_t num_vertices, const int64_t* faces,
                      int64_t num_faces, double k, int64_t min_size, MeshRule rule, int threads,
                      int64_t* labels);

// labels [N] of points [N, 3] with colors [N, 3], from the mergers of regions.h; scale is a length.
// Each point has the normal of the plane through its nearest `neighbours`, itself counted.
template <typename T>
void cloud_superpoints(const T* points, const T* colors, int64_t num_points, int64_t neighbours,
                       double scale, int64_t min_size, int threads, int64_t* labels);

}  // namespace refer
