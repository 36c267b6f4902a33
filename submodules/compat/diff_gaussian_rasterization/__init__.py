"""The rasterizer under the names that 3D Gaussian Splatting code imports, on CPUs too.

Takes the place of three families of packages that share the name, told apart by how they are used:

==============================================  ==========================================
settings and arguments                          what a call returns
==============================================  ==========================================
as Kerbl et al. published                       color, radii
with ``antialiasing`` (their later version)     color, radii, inverse depth
with ``include_feature`` (LangSplat's), or      color, language features, radii
``language_feature_precomp`` (ReferSplat's)
==============================================  ==========================================

There may be any number of colours and features. Matrices are transposed, as these code bases keep
them: a row vector is multiplied from the left.
"""

from diff_gaussian_rasterization.rasterizer import (
    GaussianRasterizationSettings,
    GaussianRasterizer,
)

__all__ = ["GaussianRasterizationSettings", "GaussianRasterizer"]
