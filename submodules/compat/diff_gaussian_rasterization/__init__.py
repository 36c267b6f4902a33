"""The rasterizer under the names that 3D Gaussian Splatting code imports, on CPUs too.

Takes the place of the families of packages that share the name, told apart by how they are used:

==============================================  ==========================================
settings and arguments                          what a call returns
==============================================  ==========================================
as Kerbl et al. published                       color, radii
with ``antialiasing`` (their later version)     color, radii, inverse depth
with ``include_feature`` (LangSplat's), or      color, language features, radii
``language_feature_precomp`` (ReferSplat's)
``semantic_feature`` (Feature 3DGS)             color, features, radii, depth
``sh_objs`` (Gaussian Grouping)                 color, radii, features
any, after :func:`set_outputs`                  what it names
==============================================  ==========================================

Forks that return depth and alpha take the same arguments as the published code, so say it once:
``diff_gaussian_rasterization.set_outputs("color", "radii", "depth", "alpha")``, or set
``DIFF_GAUSSIAN_RASTERIZATION_OUTPUTS=color,radii,depth,alpha`` before such a program starts.

There may be any number of colours and features. Matrices are transposed, as these code bases keep
them: a row vector is multiplied from the left.
"""

from diff_gaussian_rasterization.rasterizer import (
    GaussianRasterizationSettings,
    GaussianRasterizer,
    set_outputs,
)
from diff_gaussian_rasterization.sparse_adam import SparseGaussianAdam

__all__ = [
    "GaussianRasterizationSettings",
    "GaussianRasterizer",
    "SparseGaussianAdam",
    "set_outputs",
]
