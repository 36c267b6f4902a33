"""Builds the network from its options: the one place that knows its parts and their widths."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from detailbase.config import NetworkConfig
from detailbase.model.backbone import Backbone, SparseUNet
from detailbase.model.decoder import Decoder
from detailbase.model.descriptors import DescriptorEncoder
from detailbase.model.grouping import ObjectGrouping
from detailbase.model.network import DetailBase
from refer3d.runs.errors import InputError

BACKBONES: dict[str, Callable[[NetworkConfig], Backbone]] = {
    "unet": lambda options: SparseUNet(channels=options.channels)
}
"""Backbones by the name that ``--network.backbone`` gives."""


def build(options: NetworkConfig, text_dim: int) -> DetailBase:
    """Makes the network with random weights, drawn part by part in the order below.

    Args:
        options: The parts and their sizes.
        text_dim: T, the width of word features.

    Raises:
        InputError: There is no backbone of that name.
    """
    if options.backbone not in BACKBONES:
        raise InputError(
            f"--network.backbone: expected one of {', '.join(BACKBONES)}, got "
            f"{options.backbone!r}; name one of them"
        )
    backbone = BACKBONES[options.backbone](options)
    width, descriptors, grouping, classifier = backbone.width, None, None, None
    if options.descriptors:
        descriptors = DescriptorEncoder(width)
        width *= 2
    if options.objects:
        grouping = ObjectGrouping(width, options.objects)
        width *= 3
    if options.classes:
        classifier = nn.Linear(width, options.classes)
    sizes = (options.width, options.heads, options.hidden, options.layers)
    switches = (options.cross_attn_norm, options.choice, options.relations)
    decoder = Decoder(text_dim, width, *sizes, *switches)
    return DetailBase(backbone, decoder, descriptors, grouping, classifier)
