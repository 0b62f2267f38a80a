"""Networks by name, and the weights that their backbones start from.

Checkpoints live in `checkpoints.py`, the families' facts in `families.py`; their published names can be imported from
here, too.
"""

import contextlib
import http.client
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import torch

from ..utils.errors import UserError
from ..utils.schedule import set_learning_rate
from .checkpoints import (
    check_values,
    checkpoint_facts,
    load_checkpoint,
    load_model,
    save_model,
    shorten,
    unwrap_model,
)
from .families import ARCHS, Family, family_of, model_factory, split_arch
from .networks.common import CenterNet, ImageNetWeights
from .recognition import is_counter

__all__ = [
    'ARCHS',
    'Family',
    'checkpoint_facts',
    'create_model',
    'family_of',
    'load_checkpoint',
    'load_model',
    'model_factory',
    'save_model',
    'set_learning_rate',
    'unwrap_model',
]

logger = logging.getLogger(__name__)

FETCH_TIMEOUT = 15  # seconds without an answer


def create_model(arch: str, heads: dict[str, int], head_conv: int, pretrained: str = 'none') -> CenterNet:
    """Build a network.

    Args:
        arch: one of `ARCHS`.
        heads: `{name: output channels}`; names that contain `hm` are heatmaps.
        head_conv: channels of each head's hidden convolution, 0 for none (hourglass: always 256).
        pretrained: how the backbone starts: 'none' (random), 'imagenet' (found in the torch.hub cache or fetched),
            or a file with weights for it (a checkpoint of the same family or a bare state dict).

    Raises:
        UserError: no such arch; the pretrained weights can't be fetched, read, or don't fit the backbone.
    """
    _, layers = split_arch(arch)
    network = family_of(arch).build(layers, heads, head_conv)
    if pretrained == 'none':
        return network
    if pretrained != 'imagenet':
        path = Path(pretrained)
    elif network.imagenet is not None:
        path = fetch_weights(network.imagenet)
    else:
        logger.info('%s: there are no ImageNet weights for its backbone, which starts from random ones', arch)
        return network
    load_backbone(network, path)
    logger.info("%s: the backbone starts from '%s'", arch, path)
    return network


def fetch_weights(weights: ImageNetWeights) -> Path:
    """Return the path of the weights in the torch.hub cache, downloaded when they aren't there yet.

    Raises:
        UserError: they can't be fetched; names the file, where to put it and the way without.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', weights.file_name)
    if not path.exists():
        logger.info('fetching %s', weights.url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with socket_timeout(FETCH_TIMEOUT):
                torch.hub.download_url_to_file(weights.url, str(path), weights.sha256_prefix)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UserError(
                f'the ImageNet weights {weights.file_name} cannot be fetched from {weights.url} ({error}): put '
                f'that file at {path}, or start from random weights with --pretrained none'
            ) from None
    return path


@contextlib.contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """New connections within the block give up after `seconds` without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_backbone(network: CenterNet, path: str | os.PathLike) -> None:
    """Fill the network's backbone from a file, which may name its parameters without the backbone's own `base.`.

    Raises:
        UserError: the file can't be read (`load_checkpoint`), lacks part of the backbone, or holds a value that no
            network can compute with (NaN, infinity, a negative variance).
    """
    found = load_checkpoint(path)['state_dict']
    state, missing = {}, []
    for name, own in network.state_dict().items():
        if not name.startswith(network.backbone_prefixes):
            continue
        value = found.get(name, found.get(name.removeprefix('base.')))
        if value is not None and value.shape == own.shape:
            state[name] = value
        elif not (name.startswith(network.unused_prefixes) or is_counter(name)):
            missing.append(name)
    if missing:
        raise UserError(
            f"'{path}' does not fit the backbone of the network: {shorten(missing)} missing or of another shape; "
            f'give weights for the same --arch, or --pretrained none'
        )
    check_values(state, path)
    network.load_state_dict(state, strict=False)
