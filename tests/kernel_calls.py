"""Random calls of every kernel, registered operator and decoder, right and wrong ones.

    python tests/kernel_calls.py --seed 0 --count 500

Run in a process of its own: a call that corrupts memory ends it. Each call is printed before it is made.
"""

import argparse
import faulthandler
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.ops import deform_conv2d

import kernel_references as slow
from lib.external import dcn, focal, nms, peaks, raster, upsample, winograd
from lib.models import decode
from lib.models.int8_weights import quantize_weight
from lib.models.networks.native_dcn import native_deform_conv2d, native_deform_conv2d_backward
from lib.models.panels import to_panels
from lib.models.winograd import WinogradConv2d

SECONDS = 20  # a call that takes longer hangs
BROKEN = 0.7  # share of the calls that are given something wrong
Arguments = dict[str, Any]
# A function, its arguments by name, and a check of its result that holds while the arguments are right.
Made = tuple[Callable, Arguments, Callable[[Any], None]]


def kernel_calls(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[], None]]]:
    """Endless random calls: (description, function that makes the call and raises AssertionError if it went wrong).

    A right call has to give finite results that equal the slow form's; a wrong one may be refused with an ordinary
    error or be survived.
    """
    while True:
        name = rng.choice(list(KERNELS))
        function, arguments, check = KERNELS[name](rng)
        note = ''
        if rng.random() < BROKEN:
            note, check = ' with ' + ', '.join(damage(rng, arguments) for _ in range(rng.integers(1, 3))), None
        shown = ', '.join(f'{key}={describe(value)}' for key, value in arguments.items())
        yield f'{name}({shown}){note}', partial(make_call, function, arguments, check)


def make_call(function: Callable, arguments: Arguments, check: Callable[[Any], None] | None) -> None:
    """Call, accept a refusal of wrong arguments, check the result of right ones."""
    try:
        result = function(**arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        if check is not None:
            raise AssertionError(f'right arguments are refused: {error}') from error
        if '.external.' in function.__module__:
            assert isinstance(error, (ValueError, TypeError)), repr(error)
            assert str(error) and '\n' not in str(error), repr(error)
        return
    if check is not None:
        check(result)


def close(got, want, tolerance: float = 1e-4) -> None:
    """Assert that arrays or tensors are finite and nearly equal."""
    got, want = (t.detach().double().numpy() if isinstance(t, torch.Tensor) else np.asarray(t) for t in (got, want))
    assert np.isfinite(got).all()
    scale = max(1, abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale)


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 from a normal distribution."""
    return rng.standard_normal(shape).astype(np.float32)


def integers(rng: np.random.Generator, count: int, most: int) -> list[int]:
    """`count` numbers from 1 to `most`."""
    return rng.integers(1, most + 1, count).tolist()


def boxes(rng: np.random.Generator, columns: int) -> np.ndarray:
    """float32 [0 to 40, columns] rows x1, y1, x2, y2, score and others from 0 to 1."""
    count = int(rng.integers(0, 41))
    corners = rng.uniform(0, 60, (count, 2))
    rows = [corners, corners + rng.uniform(1, 40, (count, 2)), rng.uniform(0.01, 1, (count, columns - 4))]
    return np.hstack(rows).astype(np.float32)


def make_nms(rng: np.random.Generator) -> Made:
    dets = boxes(rng, rng.choice([5, 7, 39]))
    thresh = float(rng.uniform(0.1, 0.9))
    want = slow.slow_nms(dets, thresh)

    def check(kept):
        assert kept == want

    return nms.nms, {'dets': dets, 'thresh': thresh}, check


def make_soft_nms(rng: np.random.Generator) -> Made:
    function = (nms.soft_nms, nms.soft_nms_39)[rng.integers(2)]
    rows, options = boxes(rng, rng.choice([5, 6, 39])), {'method': int(rng.integers(3)), 'threshold': 0.05}
    want = slow.slow_soft_nms(rows, **options)

    def check(kept):
        assert kept == list(range(len(want)))
        close(rows[kept], want.reshape(-1, rows.shape[1]))

    return function, {'boxes': rows, 'sigma': 0.5, 'Nt': 0.3, **options}, check


def make_soft_nms_merge(rng: np.random.Generator) -> Made:
    rows = boxes(rng, rng.choice([7, 39]))
    low, high = rows[:, :4].min(initial=0), rows[:, :4].max(initial=0)

    def check(kept):
        assert np.isfinite(rows).all()
        # Averages of corners lie among them.
        assert (rows[kept, :4] > low - 0.01).all() and (rows[kept, :4] < high + 0.01).all()

    return nms.soft_nms_merge, {'boxes': rows, 'method': int(rng.integers(3)), 'weight_exp': 6.0}, check


def make_keep(rng: np.random.Generator) -> Made:
    heat = (8 * rng.random(integers(rng, 3, 9))).round().astype(np.float32)
    want, out = slow.slow_keep(heat), np.full_like(heat, np.nan)
    return peaks.keep, {'heat': heat, 'out': out}, lambda _: np.testing.assert_array_equal(out, want)


def any_layout(rng: np.random.Generator, maps: np.ndarray) -> np.ndarray:
    """Maps [..., C, cells], or with the channels last in memory."""
    return maps if rng.random() < 0.5 else np.ascontiguousarray(maps.swapaxes(-1, -2)).swapaxes(-1, -2)


def make_strongest(rng: np.random.Generator) -> Made:
    channels, h, w = integers(rng, 3, 14)
    logits = bool(rng.random() < 0.5)
    heat = (3 * floats(rng, channels, h, w)).round(int(rng.integers(0, 4)))
    heat = heat if logits else np.maximum(heat, 0)
    probabilities = torch.from_numpy(heat).sigmoid().numpy() if logits else heat
    K = int(rng.integers(1, 2 + heat.size // 6))
    best, values = slow.slow_peaks(probabilities, K)
    cells = np.full(heat.size + 8, -1)
    heat = any_layout(rng, heat.reshape(channels, -1)).reshape(channels, h, w)

    def check(found):
        count, limit = found
        if (probabilities[probabilities == slow.slow_keep(probabilities)] > 0).sum() < K:
            assert count == -1
            return
        chosen = cells[:count]
        assert (np.diff(chosen) > 0).all() and K <= count <= cells.size
        assert {cell for cell, value in zip(best, values, strict=True) if value > values[-1]} <= set(chosen.tolist())
        assert (heat.reshape(-1)[chosen] >= limit).all()
        kept = slow.slow_keep(probabilities).ravel()
        assert set(np.flatnonzero(kept >= values[-1]).tolist()) <= set(chosen.tolist())

    return peaks.strongest, {'heat': heat, 'K': K, 'logits': logits, 'cells': cells}, check


def focal_arguments(rng: np.random.Generator) -> tuple[Arguments, tuple[float, int, np.ndarray]]:
    """Arguments of `focal.loss`, and what the slow form says of them."""
    batch, channels, cells = integers(rng, 3, 90)
    logits = float(rng.choice([1, 5, 30])) * floats(rng, batch % 3 + 1, channels, cells)
    target = rng.random(logits.shape).astype(np.float32) ** 4
    target[rng.random(logits.shape) < 0.1] = 1
    if rng.random() < 0.2:
        target = None
    want = slow.slow_focal(logits, target)
    return {'logits': any_layout(rng, logits), 'target': target, 'threads': int(rng.integers(1, 4))}, want


def make_focal_loss(rng: np.random.Generator) -> Made:
    arguments, (total, positives, _) = focal_arguments(rng)

    def check(found):
        assert found[1] == positives
        close(found[0], total, 1e-6)

    return focal.loss, arguments, check


def make_focal_gradient(rng: np.random.Generator) -> Made:
    arguments, (*_, gradient) = focal_arguments(rng)
    grad, factor = np.full_like(arguments['logits'], np.nan), float(rng.uniform(0.1, 2))
    return focal.differentiate, {**arguments, 'grad': grad, 'factor': factor}, lambda _: close(grad, factor * gradient)


def make_planes(rng: np.random.Generator) -> Made:
    image = rng.integers(0, 256, (*integers(rng, 2, 50), 3), np.uint8)
    matrix = floats(rng, 3, 4)
    want = slow.slow_planes(image, matrix)
    return raster.affine_planes, {'image': image, 'matrix': matrix}, lambda planes: close(planes, want)


def make_gaussian(rng: np.random.Generator) -> Made:
    heatmap = rng.random(integers(rng, 2, 12)).astype(np.float32)
    x, y = rng.integers(-5, 17, 2).tolist()
    bump = {'x': x, 'y': y, 'reach': int(rng.integers(0, 6)), 'sigma': float(rng.uniform(0.3, 3)), 'k': 1.5}
    want = slow.slow_gaussian(heatmap, **bump)
    return raster.raise_to_gaussian, {'heatmap': heatmap, **bump}, lambda _: close(heatmap, want)


def make_winograd(rng: np.random.Generator) -> Made:
    batch, height, width, channels = integers(rng, 4, 20)
    out_channels, relu = int(rng.integers(1, 40)), bool(rng.integers(2))
    x, bias = floats(rng, batch % 3 + 1, height, width, channels), floats(rng, out_channels)
    weight = floats(rng, 36, channels, out_channels)
    out = np.full((*x.shape[:3], out_channels), np.nan, np.float32)
    want = slow.slow_finish(slow.slow_transform(x) @ weight, bias, out.shape)
    want = np.maximum(want, 0) if relu else want
    panels = to_panels(torch.from_numpy(weight)).numpy()
    arguments = {'x': x, 'weight': panels, 'bias': bias, 'out': out, 'relu': relu, 'threads': int(rng.integers(1, 4))}
    return winograd.convolve, arguments, lambda _: close(out, want)


def some_rows(rng: np.random.Generator, total: int) -> tuple[int, int]:
    """The first of some rows, one at least, and how many they are."""
    first = int(rng.integers(0, total))
    return first, int(rng.integers(1, total - first + 1))


def deformable(rng: np.random.Generator) -> tuple[Arguments, Arguments]:
    """Tensors x [B, H, W, C], offset and mask, and the numbers of a deformable convolution."""
    kernel, stride, dilation, groups = integers(rng, 4, 3)
    padding = int(rng.integers(0, 3))
    batch, channels = int(rng.integers(1, 4)), groups * int(rng.integers(1, 12))
    sides = [dilation * (kernel - 1) + 1 + size for size in integers(rng, 2, 6)]
    h, w = ((side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in sides)
    tensors = {
        'x': floats(rng, batch, *sides, channels),
        'offset': floats(rng, batch, 2 * groups * kernel**2, h, w) * float(rng.choice([0.7, 3, 100])),
        'mask': rng.random((batch, groups * kernel**2, h, w)).astype(np.float32),
    }
    numbers = {'kernel': kernel, 'stride': stride, 'padding': padding, 'dilation': dilation}
    return {name: torch.from_numpy(array) for name, array in tensors.items()}, numbers


def make_sample(rng: np.random.Generator) -> Made:
    tensors, numbers = deformable(rng)
    half = rng.random() < 0.5
    x = tensors['x'].bfloat16() if half else tensors['x']
    want = slow.slow_columns(**{**tensors, 'x': x.float()}, **numbers)
    batch, _, h, w = tensors['mask'].shape
    first, rows = some_rows(rng, batch * h)
    columns = torch.full((rows * w, want.shape[1]), torch.nan, dtype=x.dtype)
    arrays = {**tensors, 'x': x, 'columns': columns}
    arrays = {name: (t.view(torch.uint16) if t.dtype == torch.bfloat16 else t).numpy() for name, t in arrays.items()}
    part = want[first * w : (first + rows) * w]
    arguments = {**arrays, 'first_row': first, **numbers, 'threads': int(rng.integers(1, 4))}
    return dcn.sample, arguments, lambda _: close(columns, part, 1e-2 if half else 1e-4)


def make_convolve(rng: np.random.Generator) -> Made:
    tensors, numbers = deformable(rng)
    sigmoid, relu = bool(rng.integers(2)), bool(rng.integers(2))
    if sigmoid:
        tensors['mask'] = 10 * tensors['mask'] - 5
    mask = tensors['mask'].sigmoid() if sigmoid else tensors['mask']
    columns = slow.slow_columns(**{**tensors, 'mask': mask}, **numbers)
    weight = torch.from_numpy(floats(rng, columns.shape[1], int(rng.integers(1, 40))))
    bias = torch.from_numpy(floats(rng, weight.shape[1]))
    want = columns @ weight + bias  # [B * h * w, O]
    want = want.relu() if relu else want
    batch, _, h, w = tensors['mask'].shape
    out = np.full((batch, h, w, len(bias)), np.nan, np.float32)
    arrays = {name: tensor.numpy() for name, tensor in {**tensors, 'weight': to_panels(weight), 'bias': bias}.items()}
    arguments = {**arrays, 'out': out, **numbers, 'sigmoid': sigmoid, 'relu': relu, 'threads': int(rng.integers(1, 4))}
    return dcn.convolve, arguments, lambda _: close(out.reshape(want.shape), want)


def make_convolve_int8(rng: np.random.Generator) -> Made:
    tensors, numbers = deformable(rng)
    relu, to_bytes, zero = bool(rng.integers(2)), bool(rng.integers(2)), int(rng.integers(256))
    x = rng.integers(0, 256, tensors['x'].shape, np.uint8)
    tensors['mask'] = 10 * tensors['mask'] - 5
    seen = {**tensors, 'x': torch.from_numpy(x.astype(np.float32) - zero), 'mask': tensors['mask'].sigmoid()}
    columns = slow.slow_columns(**seen, **numbers) + zero  # [B * h * w, k * k * C]
    weight = quantize_weight(floats(rng, int(rng.integers(1, 40)), columns.shape[1]))
    scale, bias = weight.scale, floats(rng, len(weight.scale))
    exact = torch.from_numpy(slow.slow_int8_weight(weight, columns.shape[1]))  # [O, k * k * C]
    want = (columns @ exact.t()).numpy()
    if to_bytes:
        factor = np.float32(200 / (1e-3 + np.ptp(want)))
        scale, want, exact = factor * scale, factor * want, factor * exact
        bias += 128 - want.mean()
    want += bias
    want = want.clip(0, 255) if to_bytes else want.clip(0) if relu else want
    # A sample is off by half a step for each rounding: of its modulation, of two pairs of weights, of itself.
    bound = 2.6 * exact.abs().sum(1).numpy() + 0.51 * to_bytes + 1e-4 * (1 + np.abs(want).max())
    batch, _, h, w = tensors['mask'].shape
    out = rng.integers(0, 256, (batch, h, w, len(bias)), np.uint8)
    out = out if to_bytes else np.full(out.shape, np.nan, np.float32)

    def check(_):
        error = np.abs(out.reshape(want.shape) - want)
        assert (error <= bound).all() and error.mean() <= 0.3 * bound.mean()

    arrays = {**{name: tensor.numpy() for name, tensor in tensors.items()}, 'x': x}
    weights = {'weight': weight.panels, 'scale': scale, 'bias': bias}
    more = {'out': out, **numbers, 'zero': zero, 'relu': relu, 'threads': int(rng.integers(1, 4))}
    return dcn.convolve_int8, {**arrays, **weights, **more}, check


def make_add_upsampled(rng: np.random.Generator) -> Made:
    stride = int(rng.integers(1, 5))
    kernel = int(rng.integers(stride, 2 * stride + 1))
    padding = int(rng.integers(0, (kernel + 1) // 2))
    batch, h, w, channels = integers(rng, 3, 6) + integers(rng, 1, 40)
    low = rng.integers(0, 256, (batch, h, w, channels), np.uint8)
    weight, zero = floats(rng, kernel, kernel, channels), int(rng.integers(256))
    want = slow.slow_upsampled(low.astype(np.float32) - zero, weight, stride, padding)
    added, out = (rng.integers(0, 256, want.shape, np.uint8) for _ in range(2))
    scale, bias = rng.normal(), rng.normal() * 100
    want = want + scale * added + bias
    arrays = {'low': low, 'added': added, 'weight': weight, 'out': out}
    more = {'zero': zero, 'scale': scale, 'bias': bias, 'threads': int(rng.integers(1, 4))}

    def check(_):
        assert (np.abs(out - want.clip(0, 255)) < 0.501).all()

    return upsample.add_upsampled, {**arrays, 'stride': stride, 'padding': padding, **more}, check


def make_differentiate(rng: np.random.Generator) -> Made:
    tensors, numbers = deformable(rng)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    want = slow.slow_columns(**leaves, **numbers)
    grad = torch.from_numpy(floats(rng, *want.shape))
    grads = torch.autograd.grad(want, list(leaves.values()), grad)
    start, positions = torch.from_numpy(floats(rng, *tensors['x'].shape)), len(want)
    filled = {
        'columns': torch.full_like(grad, torch.nan),
        'grad_x': start.clone(),
        'grad_offset': torch.full((positions, tensors['offset'].shape[1]), torch.nan),
        'grad_mask': torch.full((positions, tensors['mask'].shape[1]), torch.nan),
    }

    def check(_):
        close(filled['columns'], want)
        close(filled['grad_x'] - start, grads[0])
        for name, theirs in zip(('grad_offset', 'grad_mask'), grads[1:], strict=True):
            close(filled[name], theirs.permute(0, 2, 3, 1).reshape(positions, -1))

    arrays = {name: tensor.numpy() for name, tensor in {**tensors, 'grad_columns': grad, **filled}.items()}
    return dcn.differentiate, {**arrays, 'first_row': 0, **numbers, 'threads': int(rng.integers(1, 4))}, check


def operator_arguments(rng: np.random.Generator) -> Arguments:
    """Arguments of the registered operator, float32 or bfloat16, contiguous or channels-last."""
    tensors, numbers = deformable(rng)
    kernel = numbers.pop('kernel')
    tensors['x'] = tensors['x'].permute(0, 3, 1, 2)
    out_channels, in_channels = int(rng.integers(1, 9)), tensors['x'].shape[1]
    tensors['weight'] = torch.from_numpy(floats(rng, out_channels, in_channels, kernel, kernel)) / kernel
    tensors['bias'] = torch.from_numpy(floats(rng, out_channels))
    dtype, layout = (torch.float32, torch.bfloat16)[rng.integers(2)], rng.integers(2)
    tensors = {name: (tensor.contiguous() if layout else tensor).to(dtype) for name, tensor in sorted(tensors.items())}
    return {**tensors, **numbers}


def make_operator(rng: np.random.Generator) -> Made:
    arguments = operator_arguments(rng)
    want = deform_conv2d(**widen(arguments), weight=arguments['weight'].float())
    tolerance = 1e-4 if arguments['x'].dtype == torch.float32 else 5e-2
    return native_deform_conv2d, arguments, lambda out: close(out, want, tolerance)


def widen(arguments: Arguments) -> Arguments:
    """The arguments in float32 under torchvision's names, but for the weight."""
    named = {{'x': 'input'}.get(name, name): value for name, value in arguments.items() if name != 'weight'}
    return {name: v.float() if isinstance(v, torch.Tensor) else v for name, v in named.items()}


def make_operator_backward(rng: np.random.Generator) -> Made:
    arguments = operator_arguments(rng)
    order = ('x', 'offset', 'weight', 'bias', 'mask')
    leaves = {name: arguments[name].detach().float().requires_grad_() for name in order}
    want = deform_conv2d(**widen({**arguments, **leaves}), weight=leaves['weight'])
    grad = torch.from_numpy(floats(rng, *want.shape))
    theirs = torch.autograd.grad(want, list(leaves.values()), grad)
    tolerance = 1e-4 if arguments['x'].dtype == torch.float32 else 5e-2
    del arguments['bias']

    def check(ours):
        for mine, other in zip(ours, theirs, strict=True):
            close(mine, other, tolerance)

    return native_deform_conv2d_backward, {'grad': grad, **arguments}, check


def make_winograd_layer(rng: np.random.Generator) -> Made:
    channels, out_channels, height, width = integers(rng, 4, 20)
    conv = nn.Conv2d(channels, out_channels, 3, padding=1)
    x = torch.from_numpy(floats(rng, int(rng.integers(0, 3)), channels, height, width))
    want = conv(x)
    layer = WinogradConv2d(conv)
    return layer.forward, {'x': x}, lambda out: close(out, want, 1e-3)


def make_decoder(rng: np.random.Generator) -> Made:
    batch, (classes, height, width, joints) = int(rng.integers(0, 3)), integers(rng, 4, 6)

    def maps(channels):
        return torch.from_numpy(rng.random((batch, channels, height, width)).astype(np.float32))

    heat, options = {'heat': maps(classes)}, {'K': int(rng.integers(1, 60))}
    sides = {f'{side}_heat': maps(classes) for side in 'tlbr'}
    pose = {'kps': maps(2 * joints), 'hm_hp': maps(joints), 'hp_offset': maps(2)}
    function, arguments, columns = (
        (decode.ctdet_decode, {**heat, 'wh': maps(2), 'reg': maps(2)}, 6),
        (decode.multi_pose_decode, {**heat, 'wh': maps(2), **pose}, 6 + 2 * joints),
        (decode.ddd_decode, {**heat, 'rot': maps(8), 'depth': maps(1), 'dim': maps(3)}, 16),
        (
            decode.exct_decode,
            {
                **sides,
                'ct_heat': maps(classes),
                't_regr': maps(2),
            },
            14,
        ),
    )[rng.integers(4)]
    cells = 1000 if 'ct_heat' in arguments else min(options['K'], classes * height * width)

    def check(rows):
        assert rows.shape == (batch, cells, columns) and rows.isfinite().all()

    return function, {**arguments, **options}, check


# name -> function(rng) that makes right arguments of it.
KERNELS: dict[str, Callable[[np.random.Generator], Made]] = {
    'nms.nms': make_nms,
    'nms.soft_nms': make_soft_nms,
    'nms.soft_nms_merge': make_soft_nms_merge,
    'peaks.keep': make_keep,
    'peaks.strongest': make_strongest,
    'focal.loss': make_focal_loss,
    'focal.differentiate': make_focal_gradient,
    'raster.affine_planes': make_planes,
    'raster.raise_to_gaussian': make_gaussian,
    'winograd.convolve': make_winograd,
    'dcn.sample': make_sample,
    'dcn.convolve': make_convolve,
    'dcn.convolve_int8': make_convolve_int8,
    'dcn.differentiate': make_differentiate,
    'upsample.add_upsampled': make_add_upsampled,
    'deform_conv2d': make_operator,
    'deform_conv2d_backward': make_operator_backward,
    'WinogradConv2d': make_winograd_layer,
    'decode': make_decoder,
}


def damage(rng: np.random.Generator, arguments: Arguments) -> str:
    """Replace one of the arguments by something wrong, or by the same in another layout; says which and how."""
    name = str(rng.choice(list(arguments)))
    value = arguments[name]
    if isinstance(value, np.ndarray):
        kinds, others = ARRAY_DAMAGE, [v for v in arguments.values() if isinstance(v, np.ndarray)]
    elif isinstance(value, torch.Tensor):
        kinds, others = TENSOR_DAMAGE, [v for v in arguments.values() if isinstance(v, torch.Tensor)]
    else:
        arguments[name] = NUMBERS[rng.integers(len(NUMBERS))]
        return f'{name} replaced'
    kind = str(rng.choice(list(kinds)))
    try:
        arguments[name] = kinds[kind](rng, value, others)
    except (
        ArithmeticError,
        IndexError,
        ValueError,
        TypeError,
        RuntimeError,
    ):  # an earlier damage left nothing to change in this way
        return f'{name} as it was'
    return f'{name}: {kind}'


NUMBERS = [0, 1, 2, 7, -1, -(2**31), 2**31 - 1, 2**31, 2**32, 2**62, 2**63, -(2**63), 10**30, 1.5, np.nan, None, 'x']


def other_size(rng: np.random.Generator, value, others):
    """The same array or tensor, one axis shorter, empty, or longer."""
    axis = int(rng.integers(value.ndim))
    size = value.shape[axis]
    rows = [max(size - 1, 0), 0, size + 1][rng.integers(3)]
    places = np.arange(rows) % size
    return value[(slice(None),) * axis + (places,)]


def spoiled(rng: np.random.Generator, value, others):
    """The same with some values that are no numbers, infinite or huge."""
    value = value.clone() if isinstance(value, torch.Tensor) else value.copy()
    flat = value.reshape(-1)
    flat[rng.integers(0, len(flat), 5)] = float(rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30, 2**31, -(2**31)]))
    return flat.reshape(value.shape)


def unaligned(rng: np.random.Generator, value, others):
    """A copy at an odd address."""
    room = np.zeros(value.nbytes + 1, np.uint8)[1:]
    copy = room.view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def read_only(rng: np.random.Generator, value, others):
    """A copy that cannot be written to."""
    copy = value.copy()
    copy.flags.writeable = False
    return copy


def one_value_everywhere(rng: np.random.Generator, value, others):
    """A writable view whose strides are all 0."""
    return np.lib.stride_tricks.as_strided(value, value.shape, [0] * value.ndim)


def pick(rng: np.random.Generator, items: list):
    return items[rng.integers(len(items))]


# kind -> function(rng, array, arrays among the arguments)
ARRAY_DAMAGE = {
    'another type': lambda rng, a, _: a.astype(pick(rng, ['f8', 'f2', 'i4', 'u1', 'u2', '>f4', 'c8', 'O', '?', 'S4'])),
    'another size': other_size,
    'an axis less': lambda rng, a, _: a[0],
    'an axis more': lambda rng, a, _: a[None],
    'no axes': lambda rng, a, _: np.zeros((), a.dtype),
    'every second': lambda rng, a, _: np.repeat(a, 2, -1)[..., ::2],
    'backwards': lambda rng, a, _: a[::-1],
    'column-major': lambda rng, a, _: np.asfortranarray(a),
    'transposed': lambda rng, a, _: a.T,
    'unaligned': unaligned,
    'read-only': read_only,
    'strides of 0': one_value_everywhere,
    'bad values': spoiled,
    'the same memory': lambda rng, a, others: pick(rng, others),
    'overlapping': lambda rng, a, others: pick(rng, others).reshape(-1)[-a.size :].reshape(a.shape),
    'a list': lambda rng, a, _: a.tolist(),
    'nothing': lambda rng, a, _: None,
    'a tensor': lambda rng, a, _: torch.from_numpy(a),
    'a string': lambda rng, a, _: 'x',
}

DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool]
TENSOR_DAMAGE = {
    'another type': lambda rng, t, _: t.to(pick(rng, [*DTYPES, torch.complex64])),
    'another size': other_size,
    'an axis less': lambda rng, t, _: t[0],
    'an axis more': lambda rng, t, _: t[None],
    'every second': lambda rng, t, _: t.repeat_interleave(2, -1)[..., ::2],
    'transposed': lambda rng, t, _: t.mT,
    'strides of 0': lambda rng, t, _: t.reshape(-1)[:1].reshape((1,) * t.ndim).expand(t.shape),
    'bad values': spoiled,
    'the same memory': lambda rng, t, others: pick(rng, others),
    'sparse': lambda rng, t, _: t.to_sparse(),
    'without memory': lambda rng, t, _: t.to('meta'),
    'with gradient': lambda rng, t, _: t.detach().requires_grad_(),
}


def describe(value: Any) -> str:
    """An argument in few words."""
    if isinstance(value, np.ndarray):
        return f'{value.dtype}{list(value.shape)}'
    if isinstance(value, torch.Tensor):
        return f'{str(value.dtype).removeprefix("torch.")}{list(value.shape)}'
    return repr(value)[:40]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--count', type=int, default=500)
    args = parser.parse_args()
    warnings.simplefilter('ignore')  # of numpy and torch, on values that are no numbers
    torch.manual_seed(args.seed)
    calls = kernel_calls(np.random.default_rng(args.seed))
    for number in range(args.count):
        description, call = next(calls)
        print(f'seed {args.seed} call {number}: {description}', flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        call()
    faulthandler.cancel_dump_traceback_later()
    print('all calls made')


if __name__ == '__main__':
    faulthandler.enable()
    main()
