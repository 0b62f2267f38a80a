"""The benchmarks' peers compute what ours do: a faster form is compared with the same work."""

import numpy as np
import pytest
import torch

import many_classes
import published
from lib.external.nms import soft_nms
from lib.models.decode import ctdet_decode, exct_decode
from lib.utils.image import EIG_VAL, EIG_VEC, color_transform, mean_gray, normalize


def maps(seed, *channels, side=16):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, count, side, side, generator=generator) for count in channels]


def test_centre_decoding():
    """Every row, best first."""
    heat, wh, reg = maps(0, 5, 2, 2)
    torch.testing.assert_close(ctdet_decode(heat, wh, reg, K=30), published.ctdet_decode(heat, wh, reg, K=30))


def test_decoding_of_logits():
    """The form of before, which the benchmark of many classes has as its peer, gives the same rows."""
    heat, wh, reg = maps(3, 40, 2, 2)
    logits = 12 * heat - 9
    torch.testing.assert_close(
        ctdet_decode(logits, wh, reg, K=30, logits=True), many_classes.decode_as_before(logits, wh, reg, K=30)
    )


def test_extreme_decoding():
    """Every row with a positive score; the lattice has others as well, which are no detections."""
    heats, regs = maps(1, *[3] * 5), maps(2, *[2] * 4)
    up, left = torch.linspace(1, 0, 16)[:, None], torch.linspace(1, 0, 16)
    for heat, lean in zip(heats, (up, left, 1 - up, 1 - left), strict=False):
        heat *= lean**2  # each side's points are likelier towards that side, or hardly any four would be possible
    want = published.exct_decode(heats, regs, K=10, num_dets=300)
    rows = exct_decode(*heats, *regs, K=10, num_dets=300)
    for mine, theirs in zip(rows, want, strict=True):
        positive = theirs[:, 4] > 0
        assert 3 < positive.sum() < 300
        torch.testing.assert_close(mine[: positive.sum()], theirs[positive])
        assert not mine[positive.sum() :].any()


@pytest.mark.parametrize('method', [0, 1, 2])
def test_soft_suppression(method):
    """The rows kept, in their order."""
    rng = np.random.default_rng(method)
    corners, sides, scores = rng.uniform(0, 60, (80, 2)), rng.uniform(5, 40, (80, 2)), rng.uniform(0, 1, (80, 1))
    boxes = np.hstack([corners, corners + sides, scores]).astype(np.float32)
    theirs = boxes.copy()
    keep = soft_nms(boxes, Nt=0.5, method=method, threshold=0.1)
    assert keep == published.compiled_soft_nms()(theirs, Nt=0.5, method=method, threshold=0.1)
    assert 1 < len(keep) < 80
    np.testing.assert_allclose(boxes[keep], theirs[keep], rtol=1e-4)


def test_colours():
    """The same draws give the same input."""
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    mean, std = np.float32([[[0.4, 0.45, 0.5]]]), np.float32([[[0.3, 0.25, 0.2]]])
    color = color_transform(np.random.default_rng(5), mean_gray(image) / 255, EIG_VAL, EIG_VEC)
    rng = np.random.default_rng(5)
    order = rng.permutation(3).tolist()
    factors = [1 + rng.uniform(-0.4, 0.4) for _ in order]
    want = published.color_and_normalize(image, order, factors, rng.normal(0, 0.1, 3), EIG_VAL, EIG_VEC, mean, std)
    np.testing.assert_allclose(normalize(image, mean, std, color), want, atol=1e-4)
