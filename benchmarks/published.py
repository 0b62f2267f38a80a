"""The published forms of what this project does faster: what the benchmarks measure it against.

Written anew and literally, step by step as the published code and the papers describe it, not to be used for anything
else. `tests/test_published.py` holds them against ours.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from Cython.Build import cythonize
from setuptools import Distribution, Extension


def gather(feat: torch.Tensor, inds: torch.Tensor) -> torch.Tensor:
    """Return [B, N, C] of maps [B, C, h, w] at cells [B, N]: the maps are laid out with channels last, then indexed."""
    feat = feat.permute(0, 2, 3, 1).contiguous()
    feat = feat.view(feat.size(0), -1, feat.size(3))  # [B, h*w, C]
    return feat.gather(1, inds.unsqueeze(2).expand(inds.size(0), inds.size(1), feat.size(2)))


def peaks(heat: torch.Tensor) -> torch.Tensor:
    """Return heat [B, C, h, w] times whether a cell is the maximum of its 3x3 neighbourhood."""
    highest = F.max_pool2d(heat, (3, 3), stride=1, padding=1)
    return heat * (highest == heat).float()


def top_k(heat: torch.Tensor, K: int) -> tuple[torch.Tensor, ...]:
    """Scores, cells, classes, ys, xs [B, K]: the best K of each class, then the best K of those C*K."""
    batch, classes, height, width = heat.size()
    scores, inds = torch.topk(heat.view(batch, classes, -1), K)  # [B, C, K]
    inds = inds % (height * width)
    ys = (inds / width).int().float()
    xs = (inds % width).int().float()
    score, ind = torch.topk(scores.view(batch, -1), K)  # [B, K]
    clses = (ind / K).int()
    inds, ys, xs = (t.view(batch, -1, 1).gather(1, ind.unsqueeze(2)).view(batch, K) for t in (inds, ys, xs))
    return score, inds, clses, ys, xs


def ctdet_decode(heat: torch.Tensor, wh: torch.Tensor, reg: torch.Tensor, K: int = 100) -> torch.Tensor:
    """Rows x1, y1, x2, y2, score, class [B, K, 6] of maps [B, C, h, w], [B, 2, h, w], [B, 2, h, w]."""
    batch = heat.size(0)
    scores, inds, clses, ys, xs = top_k(peaks(heat), K)
    offset = gather(reg, inds).view(batch, K, 2)
    xs = xs.view(batch, K, 1) + offset[:, :, 0:1]
    ys = ys.view(batch, K, 1) + offset[:, :, 1:2]
    wh = gather(wh, inds).view(batch, K, 2)
    clses = clses.view(batch, K, 1).float()
    scores = scores.view(batch, K, 1)
    boxes = torch.cat(
        [xs - wh[..., 0:1] / 2, ys - wh[..., 1:2] / 2, xs + wh[..., 0:1] / 2, ys + wh[..., 1:2] / 2], dim=2
    )
    return torch.cat([boxes, scores, clses], dim=2)


def exct_decode(
    heats: Sequence[torch.Tensor],
    regrs: Sequence[torch.Tensor],
    K: int = 40,
    scores_thresh: float = 0.1,
    center_thresh: float = 0.1,
    num_dets: int = 1000,
) -> torch.Tensor:
    """Decode to rows [B, num_dets, 14] of box, score, four points, class: every one of the K^4 combinations is scored.

    Combinations that cannot be are marked by taking 1 off their score once for every reason.

    Args:
        heats: [B, C, h, w] of the top, left, bottom and right points and of the centres.
        regrs: [B, 2, h, w] of the four sides.
    """
    *side_heats, ct_heat = heats
    batch, _, height, width = ct_heat.size()
    shapes = [(batch, K, 1, 1, 1), (batch, 1, K, 1, 1), (batch, 1, 1, K, 1), (batch, 1, 1, 1, K)]
    lattice = (batch, K, K, K, K)
    sides = []
    for heat, regr, shape in zip(side_heats, regrs, shapes, strict=True):
        heat = peaks(heat)
        heat[heat > 1] = 1
        scores, inds, clses, ys, xs = top_k(heat, K)
        offset = gather(regr, inds)
        whole = [t.view(shape).expand(lattice) for t in (scores, clses, ys, xs)]
        moved = [(t + offset[..., axis]).view(shape).expand(lattice) for t, axis in ((ys, 1), (xs, 0))]
        sides.append([*whole, *moved])
    (t_scores, t_clses, t_ys, t_xs, t_y, t_x), (l_scores, l_clses, l_ys, l_xs, l_y, l_x) = sides[:2]
    (b_scores, b_clses, b_ys, b_xs, b_y, b_x), (r_scores, r_clses, r_ys, r_xs, r_y, r_x) = sides[2:]

    centre_xs = ((l_xs + r_xs + 0.5) / 2).long()
    centre_ys = ((t_ys + b_ys + 0.5) / 2).long()
    centre_inds = t_clses.long() * (height * width) + centre_ys * width + centre_xs
    ct_scores = ct_heat.view(batch, -1).gather(1, centre_inds.view(batch, -1)).view(lattice)
    scores = (t_scores + l_scores + b_scores + r_scores + 2 * ct_scores) / 6

    reasons = [
        (t_clses != l_clses) + (t_clses != b_clses) + (t_clses != r_clses) > 0,
        (t_ys > l_ys) + (t_ys > b_ys) + (t_ys > r_ys) > 0,
        (l_xs > t_xs) + (l_xs > b_xs) + (l_xs > r_xs) > 0,
        (b_ys < t_ys) + (b_ys < l_ys) + (b_ys < r_ys) > 0,
        (r_xs < t_xs) + (r_xs < l_xs) + (r_xs < b_xs) > 0,
        (t_scores < scores_thresh)
        + (l_scores < scores_thresh)
        + (b_scores < scores_thresh)
        + (r_scores < scores_thresh)
        + (ct_scores < center_thresh)
        > 0,
    ]
    for wrong in reasons:
        scores = scores - wrong.float()

    scores, inds = torch.topk(scores.view(batch, -1), num_dets)
    columns = (l_x, t_y, r_x, b_y, t_x, t_y, l_x, l_y, b_x, b_y, r_x, r_y, t_clses.float())
    values = [t.contiguous().view(batch, -1).gather(1, inds).unsqueeze(2) for t in columns]
    return torch.cat([*values[:4], scores.unsqueeze(2), *values[4:]], dim=2)


@cache
def compiled_soft_nms() -> Callable[..., list[int]]:
    """Return the soft-NMS of `published_nms.pyx`, built when it is asked for."""
    source = Extension('published_nms', [str(Path(__file__).with_name('published_nms.pyx'))])
    with tempfile.TemporaryDirectory() as folder:
        extensions = cythonize(source, build_dir=folder, language_level=3, quiet=True)
        build = Distribution({'ext_modules': extensions}).get_command_obj('build_ext')
        build.build_lib = build.build_temp = folder
        build.ensure_finalized()
        build.run()
        spec = importlib.util.spec_from_file_location(source.name, build.get_outputs()[0])
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.soft_nms


def color_and_normalize(
    image: np.ndarray,
    order: list[int],
    factors: list[float],
    noise: np.ndarray,
    eig_val: np.ndarray,
    eig_vec: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
) -> np.ndarray:
    """Return the input float32 [3, H, W] of a uint8 BGR window [H, W, 3]; one pass over the picture for each step.

    Args:
        order: the order of brightness 0, contrast 1 and saturation 2.
        factors: what each multiplies by, in that order.
        noise: [3] of the lighting, a factor for each eigenvector.
        mean, std: [1, 1, 3] of the channels on [0, 1].
    """
    image = image.astype(np.float32) / 255.0
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for kind, alpha in zip(order, factors, strict=True):
        image *= alpha
        if kind == 1:
            image += (1 - alpha) * gray.mean()
        elif kind == 2:
            image += (1 - alpha) * gray[:, :, None]
    image += np.dot(eig_vec, eig_val * noise)
    image = (image - mean) / std
    return image.transpose(2, 0, 1)
