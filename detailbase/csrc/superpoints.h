// Over-segmentation of a surface: Felzenszwalb and Huttenlocher's, on the edges of a mesh.
#pragma once

#include <cstdint>

namespace refer {

// labels [N] of vertices [N, 3], numbered in the order of their first vertices, for triangles
// faces [F, 3].
//
// An edge weighs 1 - cos of the angle between its vertices' normals, and the square of that where
// the surface is convex. Edges are taken from the lightest on (equal ones by their vertices'
// numbers); one joins two segments that it is no heavier than either's heaviest edge so far plus
// k / size. Then, in the same order, segments of fewer than min_vertices are joined to what they
// touch. Normals are the sums of the faces' cross products.
template <typename T>
void mesh_superpoints(const T* vertices, int64_t num_vertices, const int64_t* faces,
                      int64_t num_faces, double k, int64_t min_vertices, int threads,
                      int64_t* labels);

}  // namespace refer
