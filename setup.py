"""Packages of refer3d; everything else stands in pyproject.toml."""

from setuptools import setup

SUBMODULES = ["native", "runs", "text_encoder", "diff_gaussian_rasterization", "simple_knn"]
PACKAGES = ["refersplat", "refersplat.data", "refersplat.model", "refersplat.ops"]

setup(
    packages=PACKAGES + SUBMODULES,
    package_dir={name: f"submodules/{name}" for name in SUBMODULES},
)
