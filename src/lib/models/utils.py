"""Reading values off maps at cells, and mirroring maps: shared by decoders, losses, detectors and trainers."""

import math
from collections.abc import Sequence

import torch

Output = dict[str, torch.Tensor]  # one stack's raw heads by name, each [B, c, h, w]


def transpose_and_gather_feat(feat: torch.Tensor, ind: torch.Tensor) -> torch.Tensor:
    """Return the values of a map at the given cells.

    Args:
        feat: [B, C, h, w] map, any float type.
        ind: int64 [B, N], cells as y * w + x.

    Returns:
        [B, N, C] in the type of `feat`; gradients flow back to those cells.

    Raises:
        ValueError: another number of axes, or of images.
    """
    if feat.dim() != 4 or ind.dim() != 2 or feat.shape[0] != ind.shape[0]:
        raise ValueError(
            f'expected a map [B, C, h, w] and cells [B, N], found {list(feat.shape)} and {list(ind.shape)}'
        )
    channels = ind.unsqueeze(1).expand(-1, feat.shape[1], -1)  # [B, C, N]
    return feat.flatten(2).gather(2, channels).transpose(1, 2)  # [B, N, C]


def halve(both: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split [2B, ...], B of images and then B of their mirror images, into the two, [B, ...] each."""
    plain, mirrored = both.unflatten(0, (2, -1))
    return plain, mirrored


def flip_tensor(x: torch.Tensor) -> torch.Tensor:
    """Mirror maps [..., h, w] left to right."""
    return x.flip(-1)


def flip_lr(x: torch.Tensor, flip_idx: Sequence[Sequence[int]]) -> torch.Tensor:
    """Turn the joint maps of a mirrored image into those of the image: mirror them, swap left and right joints.

    Args:
        x: [B, J, h, w] maps of the mirrored image.
        flip_idx: pairs of 0-based joints that swap sides; joints in no pair stay.

    Returns:
        [B, J, h, w].
    """
    return flip_tensor(x)[:, swapped_joints(x.shape[1], flip_idx)]


def flip_lr_off(x: torch.Tensor, flip_idx: Sequence[Sequence[int]]) -> torch.Tensor:
    """Turn centre-to-joint offsets of a mirrored image into those of the image: as `flip_lr`, and x changes its sign.

    Args:
        x: [B, 2J, h, w] offsets (x, y of each joint) of the mirrored image.
        flip_idx: as for `flip_lr`.

    Returns:
        [B, 2J, h, w].
    """
    offsets = flip_tensor(x).unflatten(1, (-1, 2))  # [B, J, 2, h, w]
    offsets = offsets[:, swapped_joints(offsets.shape[1], flip_idx)]
    return torch.stack([-offsets[:, :, 0], offsets[:, :, 1]], 2).flatten(1, 2)  # [B, 2J, h, w]


def swapped_joints(count: int, pairs: Sequence[Sequence[int]]) -> list[int]:
    """Return the order of joints in a mirrored image: 0 .. count-1 with the two members of each pair exchanged."""
    order = list(range(count))
    for a, b in pairs:
        order[a], order[b] = b, a
    return order


def heatmap_probability(raw: torch.Tensor, mse_loss: bool) -> torch.Tensor:
    """Activate a raw heatmap: the probabilities that decoders take.

    Args:
        raw: [B, C, h, w] output of the network.
        mse_loss: whether it was trained with `--mse_loss` and gives probabilities, which are only clamped.

    Returns:
        [B, C, h, w] in [0, 1].
    """
    return raw.clamp(0, 1) if mse_loss else raw.sigmoid()


def heatmap_logits(heat: torch.Tensor, mse_loss: bool) -> torch.Tensor:
    """Return the raw heatmap that activates to `heat`: the inverse of `heatmap_probability`.

    Args:
        heat: [B, C, h, w] probabilities, which are clamped to [1e-4, 1 - 1e-4] so that the logits are finite.
        mse_loss: as for `heatmap_probability`.

    Returns:
        [B, C, h, w].
    """
    return heat if mse_loss else torch.logit(heat, eps=1e-4)


def depth_of(raw: torch.Tensor) -> torch.Tensor:
    """Return the depth in metres from the raw depth head, 1 / sigmoid - 1 (section 4.1, after Eigen et al. 2014).

    Args:
        raw: output of the network, any shape.

    Returns:
        float32 of the same shape.
    """
    return 1 / (raw.float().sigmoid() + 1e-6) - 1


def depth_logits(depth: torch.Tensor) -> torch.Tensor:
    """Return the raw depth head for a depth: the inverse of `depth_of`.

    Args:
        depth: metres, 0 or more, any shape.

    Returns:
        float32 of the same shape.
    """
    return torch.logit(1 / (depth.double() + 1) - 1e-6).float()


def alpha_of(rot: torch.Tensor) -> torch.Tensor:
    """Return the observation angle in radians [...] from the rotation head [..., 8]: `ddd_utils.get_alpha` in torch."""
    first = torch.atan2(rot[..., 2], rot[..., 3]) - math.pi / 2  # [...]
    second = torch.atan2(rot[..., 6], rot[..., 7]) + math.pi / 2  # [...]
    return torch.where(rot[..., 1] > rot[..., 5], first, second)
