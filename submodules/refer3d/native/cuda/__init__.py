"""CUDA kernels without a toolkit: compiled by NVRTC at first use, or emulated on the CPU in tests.

An op asks ``kernels`` for what launches its package's kernels, and takes its reference where there
is nothing. The code that allocates and launches is the same for a GPU and for the emulation.
"""

from refer3d.native.cuda.emulator import emulation
from refer3d.native.cuda.launcher import Kernels, blocks_for, kernels

__all__ = ["Kernels", "blocks_for", "emulation", "kernels"]
