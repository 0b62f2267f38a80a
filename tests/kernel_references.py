"""Slow forms of the kernels, written to be read."""

import numpy as np
import torch
from torch.nn import functional as F


def slow_iou(a, b):
    """Intersection over union of two boxes x1, y1, x2, y2 of whole pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def slow_nms(boxes, thresh):
    """The kept rows of boxes [N, 5], best first."""
    kept = []
    for row in np.argsort(-boxes[:, 4], kind='stable'):
        if all(slow_iou(boxes[other], boxes[row]) < thresh for other in kept):
            kept.append(int(row))
    return kept


def slow_decay(iou, sigma, Nt, method):
    """The factor on the score of a box that a better one overlaps."""
    if method == 2:
        return np.exp(-(iou**2) / sigma)
    return 1.0 if iou <= Nt else (1 - iou) * (method == 1)


def slow_soft_nms(boxes, sigma=0.5, Nt=0.3, threshold=0.001, method=0):
    """The kept rows of boxes [N, 5 or more] with their decayed scores, best first."""
    left, kept = [box.copy() for box in boxes], []
    while left:
        best = left.pop(int(np.argmax([box[4] for box in left])))
        kept.append(best)
        overlaps = [slow_iou(best, box) for box in left]
        for box, overlap in zip(left, overlaps, strict=True):
            box[4] *= slow_decay(overlap, sigma, Nt, method) if overlap else 1
        left = [box for box, overlap in zip(left, overlaps, strict=True) if box[4] >= threshold or overlap == 0]
    return np.array(kept)


def slow_keep(heat):
    """Maps [n, h, w] with zeros where the 3 x 3 maximum is higher."""
    maps = torch.from_numpy(heat.copy())[:, None]
    return (maps * (maps == F.max_pool2d(maps, 3, stride=1, padding=1)))[:, 0].numpy()


def slow_peaks(heat, K):
    """The K best cells of probabilities [C, h, w] that are the maximum of their neighbourhood, and their values."""
    kept = slow_keep(heat).ravel()
    cells = sorted(range(kept.size), key=lambda cell: (-kept[cell], cell))[:K]
    return cells, kept[cells]


def slow_int8_weight(weight, columns):
    """What the panels of an `Int8Weight` stand for: float32 [out, columns]."""
    rows = np.zeros((len(weight.scale), columns), np.float32)
    for out in range(rows.shape[0]):
        for column in range(columns):
            rows[out, column] = weight.panels[out // 16, column // 4, out % 16, column % 4] * weight.scale[out]
    return rows


def slow_upsampled(low, weight, stride, padding):
    """The depthwise transposed convolution, weight [k, k, C], of maps [B, h, w, C]."""
    maps, kernels = torch.from_numpy(low).permute(0, 3, 1, 2), torch.from_numpy(weight).permute(2, 0, 1)[:, None]
    large = F.conv_transpose2d(maps, kernels, stride=stride, padding=padding, groups=maps.shape[1])
    return large.permute(0, 2, 3, 1).numpy()


def slow_focal(logits, target):
    """Equation 1 of the paper on logits, target [B, C, cells]: the sum, how many centres, the sum's gradient."""
    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor(np.zeros_like(logits) if target is None else target, dtype=torch.float64)
    right = torch.where(wanted == 1, leaf.sigmoid(), (-leaf).sigmoid())
    log_right = torch.where(wanted == 1, F.logsigmoid(leaf), F.logsigmoid(-leaf))
    weight = torch.where(wanted == 1, 1, (1 - wanted) ** 4)
    total = -(weight * (1 - right) ** 2 * log_right).sum()
    total.backward()
    return total.item(), int((wanted == 1).sum()), leaf.grad.numpy()


def slow_planes(image, matrix):
    """The affine map [3, 4] of the pixels of an image [H, W, 3], channels first."""
    return np.moveaxis(image.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3], 2, 0)


def slow_gaussian(heatmap, x, y, reach, sigma, k):
    """The map [h, w] raised to a Gaussian bump."""
    rows, columns = np.indices(heatmap.shape)
    bump = k * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    near = (abs(columns - x) <= reach) & (abs(rows - y) <= reach)
    return np.where(near, np.maximum(heatmap, bump), heatmap)


# Of F(4 x 4, 3 x 3): input tiles d become B^T d B, products p become A^T p A (Lavin and Gray 2016).
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def slow_transform(x):
    """B^T d B of all tiles of maps [B, H, W, C], as [36, tiles, C]."""
    images, height, width, channels = x.shape
    padded = np.zeros((images, -(-height // 4) * 4 + 2, -(-width // 4) * 4 + 2, channels))
    padded[:, 1 : height + 1, 1 : width + 1] = x
    tiles = [
        np.einsum('ij,jkc,lk->ilc', INPUT, padded[b, row : row + 6, column : column + 6], INPUT)
        for b in range(images)
        for row in range(0, height, 4)
        for column in range(0, width, 4)
    ]
    return np.stack(tiles, 2).reshape(36, -1, channels)


def slow_finish(products, bias, shape):
    """A^T p A + bias of products [36, tiles, O], as maps of the shape [B, H, W, O]."""
    images, height, width, channels = shape
    out = np.zeros((images, -(-height // 4) * 4, -(-width // 4) * 4, channels))
    tiles = iter(np.moveaxis(products, 1, 0).reshape(-1, 6, 6, channels))
    for b in range(images):
        for row in range(0, height, 4):
            for column in range(0, width, 4):
                tile = np.einsum('ij,jkc,lk->ilc', OUTPUT, next(tiles), OUTPUT)
                out[b, row : row + 4, column : column + 4] = tile + bias
    return out[:, :height, :width]


def slow_columns(x, offset, mask, kernel, stride, padding, dilation):
    """What deformable taps sample, as `dcn.sample` lays it out; of tensors, so that autograd gives its gradients.

    Args:
        x: [B, H, W, C].
        offset: [B, 2 * G * k * k, h, w].
        mask: [B, G * k * k, h, w].

    Returns:
        [B * h * w, k * k * C].
    """
    batch, height, width, channels = x.shape
    taps = kernel * kernel
    groups, (rows, columns) = mask.shape[1] // taps, mask.shape[2:]
    offset, mask = offset.unflatten(1, (groups, taps, 2)), mask.unflatten(1, (groups, taps))  # [B, G, taps, (2,) h, w]
    steps = torch.arange(kernel) * dilation
    y = (torch.arange(rows) * stride - padding).view(-1, 1) + steps.repeat_interleave(kernel).view(-1, 1, 1)
    z = (torch.arange(columns) * stride - padding) + steps.repeat(kernel).view(-1, 1, 1)
    y, z = y + offset[:, :, :, 0], z + offset[:, :, :, 1]  # [B, G, taps, h, w]
    parts = x.unflatten(3, (groups, -1))  # [B, H, W, G, c]
    b, g = torch.arange(batch).view(-1, 1, 1, 1, 1), torch.arange(groups).view(-1, 1, 1, 1)
    total = 0
    for v in (y.floor(), y.floor() + 1):
        for u in (z.floor(), z.floor() + 1):
            inside = (v >= 0) & (v < height) & (u >= 0) & (u < width)
            weight = (1 - (y - v).abs()) * (1 - (z - u).abs()) * inside * mask
            cells = parts[b, v.clamp(0, height - 1).long(), u.clamp(0, width - 1).long(), g]  # [B, G, taps, h, w, c]
            total = total + weight.unsqueeze(5) * cells
    return total.permute(0, 3, 4, 2, 1, 5).reshape(batch * rows * columns, taps * channels)
