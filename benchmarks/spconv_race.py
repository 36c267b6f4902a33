"""Repeats spconv's convolutions on the CPU and counts the runs that depart from the others.

With one thread none does. With two, a row sometimes holds exactly what belongs to another row of
the same kernel offset, one from the other thread's half of the pairs.

``OMP_NUM_THREADS=2 python benchmarks/spconv_race.py --case tests/parity/cases/detailbase_a.npz``
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detailbase.model.backbone import spatial_shape
from pointgroup_ops import voxelization
from spconv.pytorch import SparseConv3d, SparseConvTensor, SparseInverseConv3d, SubMConv3d

WIDTHS = (6, 64, 32)


@torch.no_grad()
def main() -> None:
    """Prints how many runs departed from the usual result, and what their wrong rows hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=Path, required=True, help="parity case of detailbase")
    parser.add_argument("--runs", type=int, default=3000, help="of each convolution")
    options = parser.parse_args()
    torch.manual_seed(0)
    with np.load(options.case) as file:
        points, rows, voxels = (
            torch.from_numpy(file[name]) for name in ("in_feats", "in_v2p_map", "in_voxel_coords")
        )
    fine = SparseConvTensor(
        *(voxelization(points, rows, 4), voxels.int(), spatial_shape(voxels)),
        batch_size=int(voxels[-1, 0]) + 1,
    )
    around = SubMConv3d(WIDTHS[0], WIDTHS[2], 3, padding=1, bias=False)
    down = SparseConv3d(*WIDTHS[:2], 2, stride=2, bias=False, indice_key="down")
    up = SparseInverseConv3d(*WIDTHS[1:], 2, bias=False, indice_key="down")
    coarse = down(fine)
    for name, conv, given in (("around", around, fine), ("down", down, fine), ("up", up, coarse)):
        right = torch.stack([conv(given).features for _ in range(5)]).median(dim=0).values
        departed = [
            out
            for out in (conv(given).features for _ in range(options.runs))
            if differs(out, right).any()
        ]
        print(f"{name}: {len(departed)} of {options.runs} runs departed")
        if conv is up:
            for out in departed:
                explain(out, right, up, coarse)


def differs(out: Tensor, right: Tensor) -> Tensor:  # [M, D], [M, D] -> [M] bool
    """Marks the rows that are more than rounding away."""
    return (out - right).abs().amax(dim=1) > 1e-5


def explain(out: Tensor, right: Tensor, up: SparseInverseConv3d, coarse: SparseConvTensor) -> None:
    """Names the pair whose product each wrong row of an inverse convolution holds."""
    known = coarse.indice_dict["down"]
    matrices = up.weight.reshape(WIDTHS[2], -1, WIDTHS[1]).unbind(dim=1)
    for row in differs(out, right).nonzero()[:, 0].tolist():
        for offset, matrix in enumerate(matrices):
            count = int(known.indice_pair_num[offset])
            outputs, inputs = known.indice_pairs[:, offset, :count].long()
            for place in (outputs == row).nonzero()[:, 0].tolist():
                products = coarse.features[inputs] @ matrix.T
                error, other = (products - out[row]).abs().amax(dim=1).min(dim=0)
                print(
                    f"  row {row}: pair {place} of {count} (offset {offset}) holds the product "
                    f"of pair {int(other)}, up to {float(error):.0e}"
                )


if __name__ == "__main__":
    main()
