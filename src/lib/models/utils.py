"""Reading values off maps at cells, and mirroring maps: shared by decoders, losses, detectors and trainers."""

from collections.abc import Sequence

import torch

Output = dict[str, torch.Tensor]  # one stack's raw heads by name, each [B, c, h, w]


def transpose_and_gather_feat(feat: torch.Tensor, ind: torch.Tensor) -> torch.Tensor:
    """The values of a map at the given cells.

    Args:
        feat: [B, C, h, w] map, any float type.
        ind: int64 [B, N], cells as y * w + x.

    Returns:
        [B, N, C] in the type of `feat`; gradients flow back to those cells.
    """
    channels = ind.unsqueeze(1).expand(-1, feat.shape[1], -1)  # [B, C, N]
    return feat.flatten(2).gather(2, channels).transpose(1, 2)  # [B, N, C]


def flip_tensor(x: torch.Tensor) -> torch.Tensor:
    """[..., h, w] maps mirrored left to right."""
    return x.flip(-1)


def flip_lr(x: torch.Tensor, flip_idx: Sequence[Sequence[int]]) -> torch.Tensor:
    """[B, J, h, w] joint maps of the mirrored picture, put back: mirrored, left and right joints swapped.

    Args:
        flip_idx: pairs of 0-based joints that swap sides; joints in no pair stay.
    """
    return flip_tensor(x)[:, swapped_joints(x.shape[1], flip_idx)]


def flip_lr_off(x: torch.Tensor, flip_idx: Sequence[Sequence[int]]) -> torch.Tensor:
    """[B, 2J, h, w] centre-to-joint offsets (x, y of each joint) of the mirrored picture, put back.

    As `flip_lr`, and every x offset changes its sign.
    """
    offsets = flip_tensor(x).unflatten(1, (-1, 2))  # [B, J, 2, h, w]
    offsets = offsets[:, swapped_joints(offsets.shape[1], flip_idx)]
    return torch.stack([-offsets[:, :, 0], offsets[:, :, 1]], 2).flatten(1, 2)  # [B, 2J, h, w]


def swapped_joints(count: int, pairs: Sequence[Sequence[int]]) -> list[int]:
    """0 .. count-1 with the two members of each pair exchanged: the joints' order in a mirrored picture."""
    order = list(range(count))
    for a, b in pairs:
        order[a], order[b] = b, a
    return order


def heatmap_probability(raw: torch.Tensor, mse_loss: bool) -> torch.Tensor:
    """The heatmap [B, C, h, w] in [0, 1] that decoders take, from a raw one.

    Networks trained with `--mse_loss` give it directly; it is only clamped.
    """
    return raw.clamp(0, 1) if mse_loss else raw.sigmoid()


def heatmap_logits(heat: torch.Tensor, mse_loss: bool) -> torch.Tensor:
    """The raw heatmap that a network would have to give for `heat`; the inverse of `heatmap_probability`.

    Probabilities are clamped to [1e-4, 1 - 1e-4], so that it is finite.
    """
    return heat if mse_loss else torch.logit(heat, eps=1e-4)


def depth_of(raw: torch.Tensor) -> torch.Tensor:
    """Depth in metres from the raw depth head: 1 / sigmoid - 1 (section 4.1, after Eigen et al. 2014)."""
    return 1 / (raw.float().sigmoid() + 1e-6) - 1


def depth_logits(depth: torch.Tensor) -> torch.Tensor:
    """The raw head that a network would have to give for `depth` (metres, 0 or more); the inverse of `depth_of`."""
    return torch.logit(1 / (depth.double() + 1) - 1e-6).float()
