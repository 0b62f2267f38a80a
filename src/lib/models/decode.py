"""From activated maps to detections: peaks of the heatmap, and the values of the other heads at them.

A cell that equals the maximum of its 3x3 neighbourhood is a detection; that replaces non-maximum
suppression ("Objects as Points", sections 3 and 4). Decoders take probabilities and, for ddd, depth in
metres; they never change their inputs, carry no gradient, and answer in float32 and in coordinates of the
output map. A K above the number of cells becomes that number, and an empty batch gives an empty result. Maps
that do not go together are a ValueError that names them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ..external import peaks as peak_kernel
from .utils import transpose_and_gather_feat

JOINT_THRESH = 0.1  # a joint's heatmap peak under this draws no joint
JOINT_REACH = 0.3  # nor does one further away than this share of the box's longer side
TOP, LEFT, BOTTOM, RIGHT = range(4)  # the order of extreme points everywhere
KERNEL_TYPES = (torch.float32, torch.float16, torch.bfloat16)  # of heatmaps; those not in float32 are converted
ROWS = torch.tensor([-1, -1, -1, 0, 0, 0, 1, 1, 1])  # of a neighbourhood of 3 x 3 cells, from its middle
COLUMNS = torch.tensor([-1, 0, 1, -1, 0, 1, -1, 0, 1])
LATTICE_LIMIT = 1 << 18  # pairs of pairs that the extreme point decoder scores together


class Peaks(NamedTuple):
    """The K best cells of each image, best first; every field is [B, K]. `K` is at most the number of cells."""

    scores: torch.Tensor  # float32
    inds: torch.Tensor  # int64, the cell: y * w + x
    classes: torch.Tensor  # int64, 0-based
    ys: torch.Tensor  # float32, whole numbers
    xs: torch.Tensor

    @property
    def cells(self) -> torch.Tensor:
        """[B, K, 2] integer positions x, y, as float32."""
        return torch.stack([self.xs, self.ys], 2)

    def points(self, reg: torch.Tensor | None) -> torch.Tensor:
        """Return [B, K, 2] positions: the cells plus the offset map `reg` [B, 2, h, w], or 0.5 without one."""
        return self.cells + (0.5 if reg is None else transpose_and_gather_feat(reg, self.inds))


@torch.no_grad()
def keep_peaks(heat: torch.Tensor) -> torch.Tensor:
    """Set every cell to 0 that is below the maximum of its 3x3 neighbourhood; cells on a plateau are all kept.

    Args:
        heat: [..., h, w] maps.

    Returns:
        a new tensor of the same shape and type.
    """
    maps = heat.reshape(math.prod(heat.shape[:-2]), *heat.shape[-2:]).contiguous()  # [n, h, w]
    if maps.device.type == 'cpu' and maps.dtype == torch.float32 and not torch.compiler.is_compiling():
        kept = torch.empty_like(maps)
        peak_kernel.keep(maps.numpy(), kept.numpy())
    else:
        highest = F.max_pool2d(maps.unsqueeze(1), 3, stride=1, padding=1).squeeze(1)  # [n, h, w]
        kept = torch.where(maps == highest, maps, 0)
    return kept.view(heat.shape)


def top_k(heat: torch.Tensor, K: int) -> Peaks:
    """Find the K highest cells over all classes.

    They lie within the K rows whose maxima are highest, so only those rows are sorted through. Of equal cells those of
    the better row come first, so that the cells of score 0 which fill up few peaks are those of an exported file.

    Args:
        heat: [B, C, h, w] scores.
        K: how many an image; more than there are cells become that number.

    Returns:
        the cells, best first.

    Raises:
        ValueError: a K below 1, or a heatmap without cells.
    """
    if K < 1:
        raise ValueError(f'expected K of 1 or more, found {K}')
    check_heatmap(heat)
    B, C, h, w = heat.shape
    rows = heat.reshape(B, C * h, w)
    best_rows = take_highest(rows.amax(2), K if C * h >= K else C * h)[1]  # [B, R]
    candidates = rows.gather(1, best_rows.unsqueeze(2).expand(-1, -1, w)).flatten(1)  # [B, R*w]
    scores, order = take_highest(candidates, K if C * h * w >= K else C * h * w)  # [B, K]
    place = order // w
    row, x = best_rows.gather(1, place), order - place * w  # ONNX has no remainder by a size that is not fixed
    classes = row // h
    y = row - classes * h
    return Peaks(scores.float(), y * w + x, classes, y.float(), x.float())


def take_highest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the highest values of each row, best first; of equal ones the first, as ONNX's TopK does.

    Args:
        values: [B, n].
        count: how many, n at most.

    Returns:
        them and their places, both [B, count].
    """
    if values.device.type == 'cpu' and not torch.compiler.is_compiling():
        best, places = values.sort(dim=1, descending=True, stable=True)  # torch's topk takes any of equal values
        return best[:, :count], places[:, :count]
    return values.topk(count)


def best_peaks(heat: torch.Tensor, K: int, logits: bool = False) -> Peaks:
    """Find the K best peaks over all classes: `top_k(keep_peaks(heat), K)`, in one pass where there is a kernel for it.

    Of equal peaks that pass finds the one of the lowest class first, and there of the lowest cell.

    Args:
        heat: [B, C, h, w] probabilities, or with `logits` what they are the sigmoids of: peaks are judged by the
            probabilities, but few of these are computed.
        K: how many an image; more than there are cells become that number.

    Raises:
        ValueError: as `top_k`.
    """
    if heat.device.type != 'cpu' or heat.dtype not in KERNEL_TYPES or torch.compiler.is_compiling() or K < 1:
        return top_k(keep_peaks(heat.sigmoid() if logits else heat), K)
    check_heatmap(heat)
    heat = heat.detach().float()
    found = [_best_cells(image, K, logits) for image in heat]
    left = [i for i, of_image in enumerate(found) if of_image is None]
    if len(left) == len(found):
        return top_k(keep_peaks(heat.sigmoid() if logits else heat), K)
    h, w = heat.shape[2:]
    if left:  # image by image, so that one's answer does not depend on the others
        rest = heat[left]
        peaks = top_k(keep_peaks(rest.sigmoid() if logits else rest), K)
        for i, scores, cells in zip(left, peaks.scores, peaks.classes * (h * w) + peaks.inds, strict=True):
            found[i] = scores, cells
    scores, cells = (torch.stack(part) for part in zip(*filter(None, found), strict=True))  # [B, K]
    inds = cells % (h * w)
    return Peaks(scores, inds, cells // (h * w), (inds // w).float(), (inds % w).float())


def _best_cells(heat: torch.Tensor, K: int, logits: bool) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the scores [K] and cells c * h * w + y * w + x [K] of the best peaks of one image's maps [C, h, w].

    None where the kernel does not find them: there are fewer peaks of a probability over 0, or very many that are as
    high as the K-th.
    """
    _, h, w = heat.shape
    if not (heat.is_contiguous() or heat.permute(1, 2, 0).is_contiguous()):
        heat = heat.contiguous()
    room = np.empty(min(4 * K + 1024, heat.numel()), np.int64)
    count, limit = peak_kernel.strongest(heat.numpy(), K, logits, room)
    if count < K:
        return None
    cells = torch.from_numpy(room[:count])  # [n]
    c, y, x = cells // (h * w), cells // w % h, cells % w
    if logits:
        rows = (y[:, None] + ROWS).clamp(0, h - 1)  # [n, 9]
        columns = (x[:, None] + COLUMNS).clamp(0, w - 1)
        windows = heat[c[:, None], rows, columns].sigmoid()  # [n, 9]
        is_peak = windows[:, 4] == windows.amax(1)
        scores, cells = windows[is_peak, 4], cells[is_peak]
        least = torch.tensor([limit]).sigmoid()
    else:
        scores, least = heat[c, y, x], torch.tensor([limit])
    scores, order = scores.sort(descending=True, stable=True)
    if len(scores) < K or scores[K - 1] < least:
        return None
    return scores[:K], cells[order[:K]]


def check_heatmap(heat: torch.Tensor) -> None:
    """Refuse what is not a heatmap [B, C, h, w] with cells; B may be 0.

    Raises:
        ValueError: naming the shape.
    """
    if heat.dim() != 4 or not all(heat.shape[1:]):
        raise ValueError(f'expected a heatmap [B, C, h, w] with cells, found {list(heat.shape)}')


def check_maps(heat: torch.Tensor, **maps: tuple[torch.Tensor | None, int]) -> None:
    """Refuse maps that do not go with a heatmap: reading them at its cells would fail late, or take other cells.

    Args:
        heat: [B, C, h, w].
        maps: by name, a map or None, and the number of its channels.

    Raises:
        ValueError: a heatmap without cells; or naming the first map of another shape than [B, channels, h, w].
    """
    check_heatmap(heat)
    for name, (values, channels) in maps.items():
        expected = [heat.shape[0], channels, *heat.shape[2:]]
        if values is not None and list(values.shape) != expected:
            raise ValueError(
                f'expected {name} {expected} beside a heatmap {list(heat.shape)}, found {list(values.shape)}'
            )


def centred_boxes(centre: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Return the boxes x1, y1, x2, y2 [B, K, 4] of the given centres and widths, heights, both [B, K, 2]."""
    return torch.cat([centre - size / 2, centre + size / 2], 2)


@torch.no_grad()
def ctdet_decode(
    heat: torch.Tensor,
    wh: torch.Tensor,
    reg: torch.Tensor | None = None,
    cat_spec_wh: bool = False,
    K: int = 100,
    logits: bool = False,
) -> torch.Tensor:
    """Decode boxes (section 4, "From points to bounding boxes").

    Args:
        heat: [B, C, h, w] probabilities.
        wh: [B, 2, h, w] width and height in output pixels, or [B, 2C, h, w] with `cat_spec_wh`.
        reg: [B, 2, h, w] offset of the centre within its cell; None means the cell's middle.
        logits: `heat` are the logits of the probabilities, which decode to the same rows in less time.

    Returns:
        [B, K, 6] rows x1, y1, x2, y2, score, class (0-based), best first.
    """
    check_maps(heat, wh=(wh, 2 * heat.shape[1] if cat_spec_wh else 2), reg=(reg, 2))
    peaks = best_peaks(heat, K, logits)
    size = transpose_and_gather_feat(wh, peaks.inds)  # [B, K, 2] or [B, K, 2C]
    if cat_spec_wh:
        of_class = peaks.classes[..., None, None].expand(-1, -1, 1, 2)
        size = size.unflatten(2, (-1, 2)).gather(2, of_class).squeeze(2)  # [B, K, 2]
    boxes = centred_boxes(peaks.points(reg), size)
    return torch.cat([boxes, peaks.scores.unsqueeze(2), peaks.classes.unsqueeze(2)], 2)


@torch.no_grad()
def multi_pose_decode(
    heat: torch.Tensor,
    wh: torch.Tensor,
    kps: torch.Tensor,
    reg: torch.Tensor | None = None,
    hm_hp: torch.Tensor | None = None,
    hp_offset: torch.Tensor | None = None,
    K: int = 100,
    return_keypoint_scores: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Decode boxes with J joints (section 4.2): joints regressed from the centre snap to peaks of the joint maps.

    Args:
        heat: [B, C, h, w] probabilities.
        wh: [B, 2, h, w] width and height in output pixels.
        kps: [B, 2J, h, w] joint minus integer centre, x and y of each joint.
        reg: [B, 2, h, w] offset of the centre within its cell; None means the cell's middle.
        hm_hp: [B, J, h, w] probabilities of the joints; None leaves the joints as regressed.
        hp_offset: [B, 2, h, w] offset of a joint within its cell; None means the cell's middle.
        return_keypoint_scores: return a second tensor, [B, K, J] scores of the joints: the peak's score for
            one that snapped, else the joint map's heat where the joint lies (0 outside the map); without
            `hm_hp` the detection's own score.

    Returns:
        [B, K, 4 + 1 + 2J + 1] rows x1, y1, x2, y2, score, x and y of each joint, class; best first.
    """
    check_maps(heat, wh=(wh, 2), reg=(reg, 2), hm_hp=(hm_hp, kps.shape[1] // 2), hp_offset=(hp_offset, 2))
    check_maps(heat, kps=(kps, kps.shape[1] // 2 * 2))
    peaks = best_peaks(heat, K)
    boxes = centred_boxes(peaks.points(reg), transpose_and_gather_feat(wh, peaks.inds))
    joints = transpose_and_gather_feat(kps, peaks.inds).unflatten(2, (-1, 2))  # [B, K, J, 2]
    joints = joints + peaks.cells.unsqueeze(2)
    if hm_hp is None:
        joint_scores = peaks.scores.unsqueeze(2).expand(joints.shape[:3])  # [B, K, J]
    else:
        joints, joint_scores = _snap_joints(joints, boxes, hm_hp, hp_offset, K)
    detections = torch.cat([boxes, peaks.scores.unsqueeze(2), joints.flatten(2), peaks.classes.unsqueeze(2)], 2)
    return (detections, joint_scores) if return_keypoint_scores else detections


def _snap_joints(
    joints: torch.Tensor, boxes: torch.Tensor, hm_hp: torch.Tensor, hp_offset: torch.Tensor | None, K: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move joints [B, K, J, 2] of boxes [B, K, 4] to peaks of their maps hm_hp; also gives their scores [B, K, J].

    A joint stays where it is when the nearest of its map's K best peaks is outside the box or too far away.
    """
    B, J, h, w = hm_hp.shape
    regressed = joints.transpose(1, 2)  # [B, J, K, 2]
    corners = boxes.unsqueeze(1)  # [B, 1, K, 4]

    # Each joint's map is a one-class heatmap; L peaks of each.
    peaks = best_peaks(hm_hp.reshape(B * J, 1, h, w), K)
    peak_scores = peaks.scores.unflatten(0, (B, J))  # [B, J, L]
    points = peaks.cells.unflatten(0, (B, J))  # [B, J, L, 2]
    if hp_offset is None:
        points = points + 0.5
    else:
        inds = peaks.inds.unflatten(0, (B, J)).flatten(1)  # [B, J * L]
        points = points + transpose_and_gather_feat(hp_offset, inds).view_as(points)

    distances = _distances(regressed, points)  # [B, J, K, L]
    distances = distances.masked_fill((peak_scores <= JOINT_THRESH).unsqueeze(2), float('inf'))
    distance, nearest = distances.min(3)  # [B, J, K]
    candidate = points.gather(2, nearest.unsqueeze(3).expand(-1, -1, -1, 2))  # [B, J, K, 2]

    low, high = corners[..., :2], corners[..., 2:]
    inside = ((candidate >= low) & (candidate <= high)).all(3)
    snaps = inside & (distance <= JOINT_REACH * (high - low).amax(3))  # [B, J, K]

    placed = torch.where(snaps.unsqueeze(3), candidate, regressed)
    scores = torch.where(snaps, peak_scores.gather(2, nearest), _heat_at(hm_hp, placed))
    return placed.transpose(1, 2), scores.transpose(1, 2)


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distances [..., n, m] between points [..., n, 2] and [..., m, 2]."""
    if torch.compiler.is_compiling():  # ONNX has no cdist
        return (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1).sqrt()
    return torch.cdist(a, b, compute_mode='donot_use_mm_for_euclid_dist')


def _heat_at(heat: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return float32 [B, J, K], the maps [B, J, h, w] at the cells that hold points [B, J, K, 2]; 0 outside."""
    h, w = heat.shape[2:]
    x, y = points.floor().unbind(3)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    cells = torch.where(inside, y * w + x, 0).long()
    return torch.where(inside, heat.flatten(2).gather(2, cells).float(), 0)


@torch.no_grad()
def ddd_decode(
    heat: torch.Tensor,
    rot: torch.Tensor,
    depth: torch.Tensor,
    dim: torch.Tensor,
    wh: torch.Tensor | None = None,
    reg: torch.Tensor | None = None,
    K: int = 40,
) -> torch.Tensor:
    """Decode 3D boxes seen in one image (section 4.1).

    Args:
        heat: [B, C, h, w] probabilities.
        rot: [B, 8, h, w]: of bin 1 logit 0, logit 1, sin, cos; then of bin 2 alike.
        depth: [B, 1, h, w] metres.
        dim: [B, 3, h, w] height, width, length in metres.
        wh: [B, 2, h, w] width and height of the 2D box in output pixels; None leaves the columns out.
        reg: [B, 2, h, w] offset of the centre within its cell; None means the cell's middle.

    Returns:
        [B, K, 18] (16 without `wh`) rows x, y, score, rot 8, depth, dim 3, (w, h), class; best first.
    """
    check_maps(heat, rot=(rot, 8), depth=(depth, 1), dim=(dim, 3), wh=(wh, 2), reg=(reg, 2))
    peaks = best_peaks(heat, K)
    heads = [head for head in (rot, depth, dim, wh) if head is not None]
    values = [transpose_and_gather_feat(head, peaks.inds) for head in heads]
    return torch.cat([peaks.points(reg), peaks.scores.unsqueeze(2), *values, peaks.classes.unsqueeze(2)], 2).float()


@torch.no_grad()
def exct_decode(
    t_heat: torch.Tensor,
    l_heat: torch.Tensor,
    b_heat: torch.Tensor,
    r_heat: torch.Tensor,
    ct_heat: torch.Tensor,
    t_regr: torch.Tensor | None = None,
    l_regr: torch.Tensor | None = None,
    b_regr: torch.Tensor | None = None,
    r_regr: torch.Tensor | None = None,
    K: int = 40,
    scores_thresh: float = 0.1,
    center_thresh: float = 0.1,
    aggr_weight: float = 0.0,
    num_dets: int = 1000,
    agnostic: bool = False,
) -> torch.Tensor:
    """Decode boxes from their topmost, leftmost, bottommost and rightmost points (ExtremeNet).

    Every four of the K best points a side that can be one object's (same class, none beyond the one that
    should be extreme) are scored (t + l + b + r + 2 * centre) / 6. Impossible ones are ruled out pair by
    pair, and the others scored in slices: the K^4 lattice is never built.

    Args:
        t_heat, l_heat, b_heat, r_heat: [B, C, h, w] probabilities; [B, 1, h, w] with `agnostic`.
        ct_heat: [B, C, h, w] probabilities of the centres, read at the middle of the box.
        t_regr, l_regr, b_regr, r_regr: [B, 2, h, w] offsets within the cell; None means the cell's middle.
        scores_thresh, center_thresh: least probability of a point, of the centre.
        aggr_weight: how much of a flat edge's heat its points gather; 0 switches that off.
        num_dets: rows an image, 0 or more.
        agnostic: the four sides have no classes; the centre's best class is the object's.

    Returns:
        [B, num_dets, 14] rows x1, y1, x2, y2, score, tx, ty, lx, ly, bx, by, rx, ry, class; best first.
        Only rows with positive scores are detections; the rows left over are zero.
    """
    heats = {'t_heat': t_heat, 'l_heat': l_heat, 'b_heat': b_heat, 'r_heat': r_heat}
    regrs = {'t_regr': t_regr, 'l_regr': l_regr, 'b_regr': b_regr, 'r_regr': r_regr}
    check_maps(ct_heat, **{name: (heat, 1 if agnostic else ct_heat.shape[1]) for name, heat in heats.items()})
    check_maps(ct_heat, **{name: (regr, 2) for name, regr in regrs.items()})
    sides = []
    for heat, along in zip(heats.values(), (3, 2, 3, 2), strict=True):
        if aggr_weight > 0:
            sides.append(top_k(keep_peaks(aggregate_edges(heat, along, aggr_weight)).clamp(max=1), K))
        else:
            sides.append(best_peaks(heat, K))
    points = torch.stack([side.points(r) for side, r in zip(sides, regrs.values(), strict=True)], 1)  # [B, 4, K, 2]
    cells = torch.stack([side.cells for side in sides], 1)  # [B, 4, K, 2]
    scores = torch.stack([side.scores for side in sides], 1)  # [B, 4, K]
    classes = torch.stack([side.classes for side in sides], 1)  # [B, 4, K]
    if agnostic:
        classes = torch.zeros_like(classes)
        ct_heat, ct_classes = ct_heat.max(1, keepdim=True)  # [B, 1, h, w]

    find = _best_of_all_quads if torch.compiler.is_compiling() else _best_quads
    quads, score, middle = find(cells, classes, scores, ct_heat, scores_thresh, center_thresh, num_dets)
    sources, places = (ct_classes.flatten(1), middle) if agnostic else (classes[:, TOP], quads[..., TOP])
    labels = sources.gather(1, places)  # [B, num_dets]
    return _quad_rows(points, quads, score, labels)


def _quad_rows(points: torch.Tensor, quads: torch.Tensor, score: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the rows [B, n, 14] of fours of points; those whose score is 0 are zero.

    Args:
        points: [B, 4, K, 2] x, y of the points of each side.
        quads: int64 [B, n, 4] which of them make a four.
        score, labels: [B, n] of each four.
    """
    chosen = points.gather(2, quads.transpose(1, 2).unsqueeze(3).expand(-1, -1, -1, 2))  # [B, 4, n, 2]
    x, y = chosen.transpose(1, 2).unbind(3)  # [B, n, 4]
    box = torch.stack([x[..., LEFT], y[..., TOP], x[..., RIGHT], y[..., BOTTOM]], 2)  # [B, n, 4]
    corners = torch.stack([x, y], 3).flatten(2)  # [B, n, 8]
    rows = torch.cat([box, score.unsqueeze(2), corners, labels.unsqueeze(2)], 2)  # [B, n, 14]
    return torch.where(score.unsqueeze(2) > 0, rows, 0)


# One class-agnostic map a side: as exct_decode, with its arguments.
agnex_ct_decode = partial(exct_decode, agnostic=True)


def _best_quads(
    cells: torch.Tensor, classes: torch.Tensor, scores: torch.Tensor, ct_heat: torch.Tensor, *limits: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best fours of points that can be the extreme points of one object, best first.

    Args:
        cells: [B, 4, K, 2] x, y of the top, left, bottom and right points.
        classes, scores: [B, 4, K] of each.
        ct_heat: [B, C, h, w] probabilities of the centres.
        limits: least score of a point, least probability of a centre, how many fours to return.

    Returns:
        int64 [B, count, 4] the fours, [B, count] their scores, int64 [B, count] the cells y * w + x of their centres;
        zeros where there are fewer.
    """
    count = int(limits[-1])
    quads, middles = classes.new_zeros(len(cells), count, 4), classes.new_zeros(len(cells), count)
    best = scores.new_zeros(len(cells), count)
    for image in range(len(cells)):
        found, score, middle = _best_quads_of_image(
            cells[image], classes[image], scores[image], ct_heat[image], limits[0], limits[1], count
        )
        quads[image, : len(found)], best[image, : len(found)], middles[image, : len(found)] = found, score, middle
    return quads, best, middles


def _best_of_all_quads(
    cells: torch.Tensor, classes: torch.Tensor, scores: torch.Tensor, ct_heat: torch.Tensor, *limits: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the fours as `_best_quads` does, with its arguments and returns, in steps that do not depend on the values.

    For exported files: the whole lattice of K^4 fours is scored.
    """
    scores_thresh, center_thresh, count = limits
    B, _, K, _ = cells.shape
    h, w = ct_heat.shape[2:]
    x, y = cells.unbind(3)  # [B, 4, K]
    agree = _agreement(cells, classes, scores, scores_thresh)
    rows = ((y[:, TOP, :, None] + y[:, BOTTOM, None] + 0.5) / 2).long()  # [B, K, K]
    columns = ((x[:, LEFT, :, None] + x[:, RIGHT, None] + 0.5) / 2).long().flatten(1)  # [B, K * K]
    places = (classes[:, TOP, :, None] * h + rows).flatten(1)  # [B, K * K], rows of the centres' maps
    middle_rows = ct_heat.flatten(1, 2).gather(1, places.unsqueeze(2).expand(-1, -1, w)).float()  # [B, K * K, w]
    centre = middle_rows.gather(2, columns.unsqueeze(1).expand(-1, K * K, -1))  # [B, K * K, K * K]
    high = (scores[:, TOP, :, None] + scores[:, BOTTOM, None]).flatten(1)  # [B, K * K]
    wide = (scores[:, LEFT, :, None] + scores[:, RIGHT, None]).flatten(1)
    fits_top = (agree(TOP, LEFT).unsqueeze(3) & agree(TOP, RIGHT).unsqueeze(2)).flatten(2)  # [B, K, K * K]
    fits_bottom = (agree(BOTTOM, LEFT).unsqueeze(3) & agree(BOTTOM, RIGHT).unsqueeze(2)).flatten(2)
    possible = (fits_top.unsqueeze(2) & fits_bottom.unsqueeze(1)).flatten(1, 2)  # [B, K * K, K * K]
    possible = possible & agree(TOP, BOTTOM).flatten(1).unsqueeze(2) & agree(LEFT, RIGHT).flatten(1).unsqueeze(1)
    score = (high.unsqueeze(2) + wide.unsqueeze(1) + 2 * centre) / 6
    score = torch.where(possible & (centre >= center_thresh), score, 0).flatten(1)  # [B, K ** 4]
    best, place = F.pad(score, (0, max(0, int(count) - K**4))).topk(int(count))  # [B, count]
    place = place.clamp(max=K**4 - 1)
    i, j = place // K**2, place % K**2
    middle = rows.flatten(1).gather(1, i) * w + columns.gather(1, j)  # [B, count]
    return torch.stack([i // K, j // K, i % K, j % K], 2), best, middle


def _agreement(
    cells: torch.Tensor, classes: torch.Tensor, scores: torch.Tensor, scores_thresh: float
) -> Callable[[int, int], torch.Tensor]:
    """Return the function that says which points of two sides can be one object's.

    Args:
        cells: [..., 4, K, 2] x, y of the top, left, bottom and right points.
        classes, scores: [..., 4, K] of each.
        scores_thresh: least score of a point.

    Returns:
        A function of two sides a, b that returns [..., K, K]: whether point i of a and j of b are strong, of one class,
        and each the furthest on its own side.
    """
    x, y = cells.unbind(-1)  # [..., 4, K]
    reach = torch.stack([-y, -x, y, x], -3)  # [..., 4, 4, K]: how far up, left, down, right each point of each side is
    strong = scores >= scores_thresh

    def agree(a: int, b: int) -> torch.Tensor:
        far_a = reach[..., a, a, :, None] >= reach[..., a, b, None, :]
        far_b = reach[..., b, b, None, :] >= reach[..., b, a, :, None]
        same = classes[..., a, :, None] == classes[..., b, None, :]
        return same & strong[..., a, :, None] & strong[..., b, None, :] & far_a & far_b

    return agree


def _best_quads_of_image(
    cells: torch.Tensor,
    classes: torch.Tensor,
    scores: torch.Tensor,
    ct_heat: torch.Tensor,
    scores_thresh: float,
    center_thresh: float,
    count: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the best fours of points that can be the extreme points of one object, at most `count`, best first.

    A four is possible when its six pairs are. A pair (top, bottom) gives the row of the centre, a pair (left, right)
    its column, and both their share of the score: the fours are a table of the possible pairs of either kind, gone
    through in slices of bounded size.

    Args:
        cells: [4, K, 2] x, y of the top, left, bottom and right points.
        classes, scores: [4, K] of each.
        ct_heat: [C, h, w] probabilities of the centres.

    Returns:
        int64 [n, 4] the fours, [n] their scores, all positive, int64 [n] the cells y * w + x of their centres.
    """
    x, y = cells.unbind(2)  # [4, K]
    agree = _agreement(cells, classes, scores, scores_thresh)
    top_left, top_right = agree(TOP, LEFT), agree(TOP, RIGHT)
    bottom_left, bottom_right = agree(BOTTOM, LEFT), agree(BOTTOM, RIGHT)
    top, bottom = agree(TOP, BOTTOM).nonzero(as_tuple=True)  # [n]
    left, right = agree(LEFT, RIGHT).nonzero(as_tuple=True)  # [m]
    rows = ((y[TOP, top] + y[BOTTOM, bottom] + 0.5) / 2).long()  # [n]
    columns = ((x[LEFT, left] + x[RIGHT, right] + 0.5) / 2).long()  # [m]
    high = (scores[TOP, top] + scores[BOTTOM, bottom])[:, None]  # [n, 1]
    wide = scores[LEFT, left] + scores[RIGHT, right]  # [m]
    fits_top = top_left[:, left] & top_right[:, right]  # [K, m]: a top point with both points of such a pair
    fits_bottom = bottom_left[:, left] & bottom_right[:, right]

    best, best_scores = top.new_zeros(0), scores.new_zeros(0)  # places in the table [n, m], counted row by row
    step = max(1, LATTICE_LIMIT // max(1, len(left)))
    for start in range(0, len(top), step):
        t, b = top[start : start + step], bottom[start : start + step]  # [s]
        middle_rows = ct_heat[classes[TOP, t], rows[start : start + step]].float()  # [s, w]
        centre = middle_rows.index_select(1, columns)  # [s, m]
        possible = fits_top[t] & fits_bottom[b] & (centre >= center_thresh)
        score = (high[start : start + step] + wide + 2 * centre) / 6
        score, place = score.masked_fill_(~possible, 0).flatten().topk(min(count, score.numel()))
        best, best_scores = torch.cat([best, place + start * len(left)]), torch.cat([best_scores, score])
        best_scores, order = best_scores.topk(min(count, len(best_scores)))
        best = best[order]
    best, best_scores = best[best_scores > 0], best_scores[best_scores > 0]
    i, j = best // max(1, len(left)), best % max(1, len(left))
    middle = rows[i] * ct_heat.shape[2] + columns[j]
    return torch.stack([top[i], left[j], bottom[i], right[j]], 1), best_scores, middle


def aggregate_edges(heat: torch.Tensor, dim: int, weight: float) -> torch.Tensor:
    """Gather the heat of flat edges at their ends (ExtremeNet, edge aggregation).

    Each cell gains `weight` times the sum of the cells before it in the non-decreasing run along `dim` that ends at
    it, coming from either direction.

    Args:
        heat: [B, C, h, w] probabilities.
        dim: the axis along which edges run, 2 or 3.
        weight: share of the run that a cell gains.

    Returns:
        a new tensor [B, C, h, w].
    """
    lines = heat.float().movedim(dim, 0)  # [n, ...]
    lines = torch.stack([lines, lines.flip(0)], 1)  # [n, 2, ...]: read forwards and backwards
    rises = (lines[1:] >= lines[:-1]).float()
    sums = lines.clone()  # of each cell's run up to and with itself
    for i in range(1, len(sums)):
        sums[i].addcmul_(sums[i - 1], rises[i - 1])
    before = sums - lines
    gathered = weight * before[:, 0] + weight * before[:, 1].flip(0)  # [n, ...]
    return heat + gathered.movedim(0, dim)
