"""Losses against their published formulas, at saturation and with nothing to learn from."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.external import focal
from lib.models import losses
from lib.models.heatmaps import SparseHeatmap

B, M, H, W = 2, 6, 5, 7


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def heat_target():
    """[B, 3, H, W] below 1 but for three centres."""
    target = 0.9 * rand(B, 3, H, W, seed=1)
    target[0, 0, 2, 3] = target[0, 2, 4, 6] = target[1, 1, 0, 0] = 1
    return target


def slots(dim):
    """output [B, dim, H, W], mask [B, M], ind [B, M], target [B, M, dim]; about half of the slots are empty."""
    mask = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 1]], dtype=torch.uint8)
    ind = (H * W * rand(B, M, seed=2)).long() * mask
    return 4 * rand(B, dim, H, W, seed=3) - 2, mask, ind, 3 * rand(B, M, dim, seed=4) * mask[..., None]


def objects(output, mask, ind, target):
    """(prediction, target) of each object that is there."""
    for b in range(B):
        for m in range(M):
            if mask[b, m]:
                y, x = divmod(int(ind[b, m]), W)
                yield output[b, :, y, x], target[b, m]


def slow_focal(prob, target):
    """Equation 1 of the paper, cell by cell."""
    total, positives = 0.0, 0
    for p, gt in zip(prob.flatten().tolist(), target.flatten().tolist(), strict=True):
        if gt == 1:
            positives += 1
            total -= (1 - p) ** 2 * math.log(p)
        else:
            total -= (1 - gt) ** 4 * p**2 * math.log(1 - p)
    return total / max(positives, 1)


@pytest.mark.parametrize('positives', [True, False])
def test_focal_is_equation_one(positives):
    """Both forms are the paper's formula, and without an object the sum is not divided."""
    logits, target = 8 * rand(B, 3, H, W) - 4, heat_target()
    if not positives:
        target = target.clamp(max=0.9)
    expected = slow_focal(logits.sigmoid(), target)
    assert losses.FocalLoss()(logits.sigmoid(), target).item() == pytest.approx(expected, rel=1e-5)
    assert losses.FocalLossWithLogits()(logits, target).item() == pytest.approx(expected, rel=1e-5)


def laid_out(maps, channels_last):
    return maps.contiguous(memory_format=torch.channels_last) if channels_last else maps


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('scale', [4, 60])
def test_fused_focal_is_the_formula(channels_last, scale):
    """One pass each way gives the value and the gradient of the formula in float64, in either layout of the logits."""
    logits = laid_out(scale * (2 * rand(2, 70, 9, 11) - 1), channels_last).requires_grad_()
    target = rand(2, 70, 9, 11, seed=1) ** 4
    target[:, ::9, 3, 5] = 1
    exact = logits.detach().double().requires_grad_()
    expected = losses.focal_of_logits(exact, target.double())
    expected.backward(torch.tensor(0.7))
    loss = losses.FocalLossWithLogits()(logits, target)
    loss.backward(torch.tensor(0.7))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logits.grad.stride() == logits.stride()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=2e-5, atol=1e-7 * exact.grad.abs().max().item())


@pytest.mark.parametrize('channels_last', [False, True])
def test_fused_focal_is_the_same_for_any_number_of_threads(channels_last):
    """Runs are compared bit for bit, on machines of any number of cores."""
    logits = laid_out(8 * rand(3, 90, 17, 19) - 4, channels_last).flatten(2).numpy()
    target = rand(3, 90, 17 * 19, seed=1).numpy()
    assert focal.loss(logits, target, 1)[0] > 0
    grads = []
    for threads in (1, 2, 3, 7):
        assert focal.loss(logits, target, threads) == focal.loss(logits, target, 1)
        assert focal.loss(logits, None, threads) == focal.loss(logits, None, 1)
        grads.append(np.empty_like(logits))
        focal.differentiate(logits, target, grads[-1], 0.3, threads)
        assert np.array_equal(grads[-1], grads[0])


def test_a_logit_that_is_no_number_shows_in_the_loss():
    """Training stops at a loss that is not finite, which the fused one must not hide."""
    logits = torch.zeros(1, 2, 5, 5)
    logits[0, 1, 2, 3] = torch.nan
    assert losses.FocalLossWithLogits()(logits, torch.zeros_like(logits)).isnan()


@pytest.mark.parametrize('objects', [((0, 0), (0, 39), (2, 7)), ()])
@pytest.mark.parametrize('kernel', [True, False])
@pytest.mark.parametrize('channels_last', [False, True])
def test_focal_of_a_sparse_heatmap(objects, kernel, channels_last, monkeypatch):
    """Value and gradient are those of the same heatmap with all its zeros, by the kernel and by the formula of GPUs."""
    whole = torch.zeros(3, 40, 9, 11)
    for image, cls in objects:
        whole[image, cls] = rand(9, 11, seed=cls) ** 4
        whole[image, cls, 4, cls % 11] = 1
    images, classes = whole.flatten(2).any(2).nonzero(as_tuple=True)
    sparse = SparseHeatmap(whole[images, classes], images, classes, (3, 40))
    assert sparse.shape == whole.shape and torch.equal(sparse.dense(), whole)

    logits = laid_out(16 * rand(3, 40, 9, 11) - 8, channels_last)
    of_dense, of_sparse = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = losses.FocalLossWithLogits()(of_dense, whole)
    expected.backward()
    if not kernel:
        monkeypatch.setattr(losses, '_has_kernel', lambda maps: False)
    loss = losses.FocalLossWithLogits()(of_sparse, sparse)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(of_sparse.grad, of_dense.grad, rtol=1e-5, atol=1e-9)
    for loss_type in (losses.HeatmapMSELoss, losses.SigmoidMSELoss):
        assert torch.equal(loss_type()(logits, sparse), loss_type()(logits, whole))


def test_sparse_heatmaps_split_as_tensors():
    """A batch in chunks (`--accumulate`), also a short one."""
    maps, images, classes = rand(4, 3, 2), torch.tensor([0, 0, 2, 3]), torch.tensor([1, 4, 0, 5])
    sparse = SparseHeatmap(maps, images, classes, (4, 6))
    for ends in ([1, 3], [2], [2, 4], [3, 6, 9]):
        parts = sparse.tensor_split(ends)
        for part, expected in zip(parts, sparse.dense().tensor_split(ends), strict=True):
            assert part.shape == expected.shape and torch.equal(part.dense(), expected)


def test_focal_learns_from_saturated_maps():
    """Where the published clamp froze a wrong map, the logits form still pulls it back, on both sides."""
    target = heat_target()
    for wrong in (60.0, -60.0):
        logits = torch.full((B, 3, H, W), wrong, requires_grad=True)
        loss = losses.FocalLossWithLogits()(logits, target)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
        assert loss > 50
        pulled = logits.grad[target == 1] < -0.1 if wrong < 0 else logits.grad[target != 1] > 0
        assert pulled.all()


def test_focal_on_certain_probabilities_is_finite():
    """Exact zeros and ones give numbers, not NaN, in value and gradient."""
    for value in (0.0, 1.0):
        prob = torch.full((B, 3, H, W), value, requires_grad=True)
        loss = losses.FocalLoss()(prob, heat_target())
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(prob.grad).all()


def test_focal_is_computed_in_float32():
    """Half-precision outputs lose nothing but their own rounding: sums over a map overflow half precision."""
    logits, target = (8 * rand(B, 3, H, W)).half(), heat_target()
    loss = losses.FocalLossWithLogits()(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_focal(logits.float().sigmoid(), target), rel=1e-4)


@pytest.mark.parametrize(
    'name, term, per_object',
    [
        ('RegL1Loss', lambda p, t: abs(p - t), False),
        ('RegL2Loss', lambda p, t: (p - t) ** 2, False),
        ('NormRegL1Loss', lambda p, t: abs(p / (t + 1e-4) - 1), False),
        ('RegLoss', lambda p, t: 0.5 * (p - t) ** 2 if abs(p - t) < 1 else abs(p - t) - 0.5, True),
    ],
)
def test_regression_formulas(name, term, per_object):
    """Sums over the objects' elements, divided by elements or, smooth L1 alone, by objects."""
    data = slots(2)
    terms = [term(p, t) for pred, gt in objects(*data) for p, t in zip(pred.tolist(), gt.tolist(), strict=True)]
    count = len(terms) / 2 if per_object else len(terms)
    assert getattr(losses, name)()(*data).item() == pytest.approx(sum(terms) / (count + 1e-4), rel=1e-5)


def test_weighted_l1_counts_single_elements():
    """With a mask [B, M, dim] only the visible joints' elements count."""
    output, mask, ind, target = slots(4)
    visible = mask[..., None] * torch.tensor([1, 1, 0, 0])
    terms = [
        abs(p - t) for pred, gt in objects(output, mask, ind, target) for p, t in zip(pred[:2], gt[:2], strict=True)
    ]
    got = losses.RegWeightedL1Loss()(output, visible, ind, target)
    assert got.item() == pytest.approx(float(sum(terms)) / (len(terms) + 1e-4), rel=1e-5)


def test_l1_is_a_mean_over_all_slots():
    """ddd's L1 counts the empty slots too."""
    data = slots(3)
    total = sum(float((pred - gt).abs().sum()) for pred, gt in objects(*data))
    assert losses.L1Loss()(*data).item() == pytest.approx(total / (B * M * 3), rel=1e-5)


def test_dense_l1():
    """Differences weigh as the mask says and are divided by its sum."""
    output, target, mask = (rand(B, 2, H, W, seed=s) for s in (1, 2, 3))
    expected = (output * mask - target * mask).abs().sum() / (mask.sum() + 1e-4)
    assert torch.allclose(losses.DenseL1Loss()(output, mask, target), expected)


def test_rotation_formula():
    """Cross-entropy counts masked slots as ln 2 each; residuals count where their bin is set."""
    output, mask, ind, _ = slots(8)
    rotbin = (rand(B, M, 2, seed=6) > 0.4).long() * mask[..., None]
    rotres = (6 * rand(B, M, 2, seed=7) - 3) * mask[..., None]
    expected = 0.0
    for k in range(2):
        entropy, residual = [], []
        for b in range(B):
            for m in range(M):
                y, x = divmod(int(ind[b, m]), W)
                values = output[b, 4 * k : 4 * k + 4, y, x]
                logits = values[:2] if mask[b, m] else torch.zeros(2)
                entropy.append(float(-logits.log_softmax(0)[rotbin[b, m, k]]))
                if rotbin[b, m, k]:
                    angle = rotres[b, m, k]
                    truth = torch.stack([angle.sin(), angle.cos()])
                    residual.append(float(F.smooth_l1_loss(values[2:], truth, reduction='sum')))
        expected += sum(entropy) / len(entropy) + sum(residual) / len(residual)
    got = losses.BinRotLoss()(output, mask, ind, rotbin, rotres)
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('name', ['RegLoss', 'RegL1Loss', 'RegL2Loss', 'NormRegL1Loss', 'RegWeightedL1Loss', 'L1Loss'])
def test_empty_ground_truth(name):
    """A batch without objects costs 0, and its gradient is 0 rather than NaN or missing."""
    output, mask, ind, target = (torch.zeros_like(part) for part in slots(2))
    output = (output + 5).requires_grad_()
    loss = getattr(losses, name)()(output, mask, ind, target)
    loss.backward()
    assert loss.item() == 0 and not output.grad.any()


def test_empty_rotation_and_dense_maps():
    """The same for the two losses of other shapes; the cross-entropy of no object is ln 2 a bin [keep]."""
    output = torch.ones(B, 8, H, W, requires_grad=True)
    nothing = torch.zeros(B, M, dtype=torch.long)
    loss = losses.BinRotLoss()(output, nothing, nothing, torch.zeros(B, M, 2).long(), torch.zeros(B, M, 2))
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log(2)) and not output.grad.any()
    output = torch.ones(B, 2, H, W, requires_grad=True)
    loss = losses.DenseL1Loss()(output, torch.zeros(B, 2, H, W), torch.zeros(B, 2, H, W))
    loss.backward()
    assert loss.item() == 0 and not output.grad.any()


def test_gradients_stay_at_the_objects():
    """Only the objects' cells learn; the empty slots' cell 0 does not."""
    output, mask, ind, target = slots(2)
    output.requires_grad_()
    losses.RegL1Loss()(output, mask, ind, target).backward()
    touched = output.grad.abs().sum(1).flatten(1) > 0
    expected = torch.zeros(B, H * W, dtype=torch.bool)
    for b in range(B):
        expected[b, ind[b][mask[b] > 0]] = True
    assert torch.equal(touched, expected) and not expected[:, 0].any()
