"""CUDA kernels without a toolkit: compiled by NVRTC at first use.

An op asks ``kernels`` for what launches its package's kernels, and takes its reference where there
is nothing.
"""

from refer3d.native.cuda.launcher import Kernels, blocks_for, kernels, set_kernels

__all__ = ["Kernels", "blocks_for", "kernels", "set_kernels"]
