"""The door of the kernels: what their loops cannot work on is refused in one line that says what was expected."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.external import dcn, focal, peaks, raster, upsample, winograd
from lib.external.slow import dcn as slow_dcn
from lib.models import decode
from lib.models.int8_weights import quantize_weight
from lib.models.networks.native_dcn import native_deform_conv2d, native_deform_conv2d_backward
from lib.models.utils import transpose_and_gather_feat
from lib.models.winograd import WinogradConv2d


def zeros(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def unaligned(*shape: int) -> np.ndarray:
    """float32 at an odd address."""
    return np.zeros(4 * int(np.prod(shape)) + 1, np.uint8)[1:].view(np.float32).reshape(shape)


def call(function, arguments: dict, changes: dict):
    return function(**{**arguments, **changes})


def sample_arguments() -> dict:
    return {
        'x': zeros(2, 5, 6, 8),
        'offset': zeros(2, 36, 5, 6),
        'mask': zeros(2, 18, 5, 6),
        'columns': zeros(60, 72),
        'first_row': 0,
        'kernel': 3,
        'stride': 1,
        'padding': 1,
        'dilation': 1,
        'threads': 1,
    }


def convolve_arguments() -> dict:
    arguments = sample_arguments()
    del arguments['columns'], arguments['first_row']
    more = {'weight': zeros(1, 72, 16), 'bias': zeros(5), 'out': zeros(2, 5, 6, 5), 'sigmoid': True, 'relu': False}
    return {**arguments, **more}


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'x': None}, TypeError, 'x as a NumPy array.*NoneType'),
        ({'x': zeros(2, 5, 6, 8, dtype=np.float64)}, TypeError, r'x as float32 \[B, H, W, C\], found float64'),
        ({'x': zeros(2, 5, 0, 8)}, ValueError, 'with cells'),
        ({'x': zeros(2, 5, 6, 16)[..., ::2]}, ValueError, 'x contiguous'),
        ({'x': unaligned(2, 5, 6, 8)}, ValueError, 'x aligned'),
        ({'x': zeros(1, 5, 6, 8)}, ValueError, r'mask as float32 \[1, '),
        ({'mask': zeros(2, 17, 5, 6)}, ValueError, 'G divides the 8 channels'),
        ({'mask': zeros(2, 27, 5, 6)}, ValueError, 'G divides the 8 channels'),
        ({'mask': zeros(2, 18, 5, 0), 'offset': zeros(2, 36, 5, 0)}, ValueError, 'with cells'),
        ({'offset': zeros(2, 18, 5, 6)}, ValueError, r'offset as float32 \[2, 36, 5, 6\]'),
        ({'columns': zeros(60, 71)}, ValueError, r'columns as float32 \[rows \* w, 72\]'),
        ({'columns': zeros(59, 72)}, ValueError, 'whole rows of 6'),
        ({'columns': zeros(66, 72)}, ValueError, '10 rows at most'),
        ({'columns': read_only(zeros(60, 72))}, ValueError, 'writable'),
        ({'first_row': 1}, ValueError, 'first_row from 0 to 0, found 1'),
        ({'first_row': -1}, ValueError, 'first_row'),
        ({'kernel': 0}, ValueError, 'kernel'),
        ({'stride': 0}, ValueError, 'stride'),
        ({'dilation': 2**40}, ValueError, 'dilation'),
        ({'padding': 1.5}, TypeError, 'padding as a whole number, found float'),
        ({'threads': 0}, ValueError, 'threads'),
    ],
)
def test_sample_refuses(changes, error, words):
    """Shapes, types, layout, bounds and numbers of the sampling; what is right is taken."""
    call(dcn.sample, sample_arguments(), {})
    with pytest.raises(error, match=words):
        call(dcn.sample, sample_arguments(), changes)


def test_arrays_in_the_same_memory():
    """An output over an input, or over another output, would be read after it is overwritten."""
    arguments, room = sample_arguments(), zeros(60 * 72)
    with pytest.raises(ValueError, match='columns in memory of its own, found it overlapping x'):
        call(dcn.sample, arguments, {'columns': room.reshape(60, 72), 'x': room[:480].reshape(2, 5, 6, 8)})
    outputs = {'grad_columns': zeros(60, 72), 'columns': room.reshape(60, 72), 'grad_x': zeros(2, 5, 6, 8)}
    outputs |= {'grad_offset': zeros(60, 36), 'grad_mask': zeros(60, 18)}
    call(dcn.differentiate, arguments, outputs)
    for name, count in (('grad_offset', 36), ('grad_mask', 18)):
        with pytest.raises(ValueError, match=f'{name} in memory of its own, found it overlapping columns'):
            call(dcn.differentiate, arguments, {**outputs, name: room[: 60 * count].reshape(60, count)})
    heat = zeros(1, 3, 3)
    with pytest.raises(ValueError, match='out in memory of its own, found it overlapping heat'):
        peaks.keep(heat, heat)
    room = zeros(1, 4, 8, 8)
    with pytest.raises(ValueError, match='out in memory of its own, found it overlapping x'):
        winograd.convolve(room.reshape(-1)[:128].reshape(1, 4, 8, 4), zeros(36, 1, 4, 16), zeros(8), room, False, 1)
    room = zeros(2, 36, 5, 6)
    with pytest.raises(ValueError, match='out in memory of its own, found it overlapping offset'):
        call(dcn.convolve, convolve_arguments(), {'offset': room, 'out': room.reshape(-1)[:300].reshape(2, 5, 6, 5)})


@pytest.mark.parametrize(
    'changes',
    [
        {'grad_columns': zeros(60, 71)},
        {'grad_x': zeros(2, 5, 6, 7)},
        {'grad_offset': zeros(59, 36)},
        {'grad_mask': zeros(60, 36)},
        {'grad_mask': read_only(zeros(60, 18))},
    ],
)
def test_differentiate_refuses(changes):
    """Each gradient has the shape of its array."""
    arguments = {**sample_arguments(), 'grad_columns': zeros(60, 72), 'grad_x': zeros(2, 5, 6, 8)}
    arguments |= {'grad_offset': zeros(60, 36), 'grad_mask': zeros(60, 18)}
    (name,) = changes
    with pytest.raises(ValueError, match=f'expected {name}'):
        call(dcn.differentiate, arguments, changes)


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'x': zeros(2, 5, 6, 8, dtype=np.uint16)}, TypeError, 'x as float32'),
        ({'x': zeros(2, 5, 0, 8)}, ValueError, 'with cells'),
        ({'mask': zeros(2, 17, 5, 6)}, ValueError, 'G divides the 8 channels'),
        ({'weight': zeros(2, 72, 16)}, ValueError, r'weight as float32 \[1, 72, 16\]'),
        ({'weight': zeros(1, 71, 16)}, ValueError, r'weight as float32 \[1, 72, 16\]'),
        ({'bias': zeros(17)}, ValueError, r'weight as float32 \[2, 72, 16\]'),
        ({'bias': zeros(4)}, ValueError, r'out as float32 \[2, 5, 6, 4\]'),
        ({'out': zeros(2, 5, 5, 5)}, ValueError, r'out as float32 \[2, 5, 6, 5\]'),
        ({'out': read_only(zeros(2, 5, 6, 5))}, ValueError, 'writable'),
        ({'kernel': 0}, ValueError, 'kernel'),
        ({'threads': 0}, ValueError, 'threads'),
    ],
)
def test_deformable_convolution_refuses(changes, error, words):
    """Weights, bias and output go with the map and with one another."""
    call(dcn.convolve, convolve_arguments(), {})
    with pytest.raises(error, match=words):
        call(dcn.convolve, convolve_arguments(), changes)


def int8_arguments() -> dict:
    arguments = {**convolve_arguments(), 'x': zeros(2, 5, 6, 8, dtype=np.uint8), 'zero': 0}
    del arguments['sigmoid']
    return {**arguments, 'weight': zeros(1, 18, 16, 4, dtype=np.int8), 'scale': zeros(5)}


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'x': zeros(2, 5, 6, 8)}, TypeError, 'x as uint8'),
        ({'weight': zeros(1, 18, 16, 4)}, TypeError, 'weight as int8'),
        ({'weight': zeros(1, 17, 16, 4, dtype=np.int8)}, ValueError, r'weight as int8 \[1, 18, 16, 4\]'),
        ({'bias': zeros(17), 'scale': zeros(17)}, ValueError, r'weight as int8 \[2, 18, 16, 4\]'),
        ({'scale': zeros(4)}, ValueError, r'scale as float32 \[5\]'),
        ({'out': read_only(zeros(2, 5, 6, 5))}, ValueError, 'writable'),
        ({'out': zeros(2, 5, 6, 4, dtype=np.uint8)}, ValueError, r'out as uint8 \[2, 5, 6, 5\]'),
        ({'out': zeros(2, 5, 6, 5, dtype=np.int8)}, TypeError, 'out as float32'),
        ({'zero': 256}, ValueError, 'zero from 0 to 255, found 256'),
        ({'share': 1}, ValueError, 'share from 0 to 0, found 1'),
        ({'shares': 0}, ValueError, 'shares'),
        ({'threads': 0}, ValueError, 'threads'),
    ],
)
def test_int8_convolution_refuses(changes, error, words):
    """So do those of the product of whole numbers."""
    call(dcn.convolve_int8, int8_arguments(), {})
    with pytest.raises(error, match=words):
        call(dcn.convolve_int8, int8_arguments(), changes)


def test_int8_convolution_refuses_what_32_bits_cannot_add_up():
    """A sum of so many products could be any number."""
    channels = 65_800
    wide = {'x': zeros(1, 1, 1, channels, dtype=np.uint8), 'mask': zeros(1, 1, 1, 1), 'offset': zeros(1, 2, 1, 1)}
    wide |= {'weight': zeros(1, channels // 4, 16, 4, dtype=np.int8), 'out': zeros(1, 1, 1, 5), 'kernel': 1}
    with pytest.raises(ValueError, match='at most, found 65800'):
        call(dcn.convolve_int8, int8_arguments(), wide)


@pytest.mark.parametrize('shares', [1, 3])
@pytest.mark.parametrize(('channels', 'outputs'), [(2, 1), (41, 16), (64, 50), (1000, 3)])
def test_int8_products_are_exact(channels, outputs, shares):
    """Bytes that are seen whole are multiplied and added up without an error, in any shares; a look outside the map
    sees the byte that stands for 0."""
    rng = np.random.default_rng(channels)
    x = rng.integers(0, 256, (2, 7, 9, channels), np.uint8)
    weight = rng.integers(-127, 128, (outputs, channels))
    weight[:, 0] = 127  # so that the scale is 1
    made = quantize_weight(weight.astype(np.float32))
    bias = np.arange(outputs, dtype=np.float32)
    out = np.full((2, 7, 9, outputs), np.nan, np.float32)
    offset, mask = zeros(2, 2, 7, 9), np.full((2, 1, 7, 9), 100, np.float32)
    offset[1, 0, 0] = -1  # the first row of the second image looks above it
    for share in range(shares):
        dcn.convolve_int8(x, offset, mask, made.panels, made.scale, bias, out, 1, 1, 0, 1, 99, False, 1, share, shares)
    seen = x.astype(int)
    seen[1, 0] = 99
    np.testing.assert_array_equal(out, seen @ weight.T + bias)


@pytest.mark.parametrize('channels', [5, 40, 64, 130])
def test_int8_samples_between_cells_are_those_of_the_slow_form(channels):
    """Compiled and in NumPy: the same whole weights, at places in and around the map, and the same bytes."""
    rng = np.random.default_rng(channels)
    x, offset = rng.integers(0, 256, (1, 6, 7, channels), np.uint8), rng.integers(-200, 200, (1, 18, 6, 7)) / 64
    mask = rng.choice([-100.0, 0, 100, np.nan], (1, 9, 6, 7))  # whose sigmoids are whole 256ths
    made = quantize_weight(rng.normal(size=(20, 9 * channels)).astype(np.float32))
    scale, bias = made.scale / channels, np.full(20, 128, np.float32)
    found = []
    for module in (dcn, slow_dcn):
        for dtype in (np.float32, np.uint8):
            out = np.zeros((1, 6, 7, 20), dtype)
            maps = offset.astype(np.float32), mask.astype(np.float32)
            module.convolve_int8(x, *maps, made.panels, scale, bias, out, 3, 1, 1, 1, 17, False, 1)
            found.append(out)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-6, atol=1e-4)
    assert (abs(found[1].astype(int) - found[3]) <= 1).all() and (found[1] == found[3]).mean() > 0.99
    assert found[1].std() > 10


def upsampling_arguments() -> dict:
    maps = {'low': zeros(2, 3, 4, 5, dtype=np.uint8), 'added': zeros(2, 6, 8, 5, dtype=np.uint8)}
    numbers = {'stride': 2, 'padding': 1, 'zero': 0, 'scale': 1.0, 'bias': 0.0, 'threads': 1}
    return {**maps, 'weight': zeros(4, 4, 5), 'out': zeros(2, 6, 8, 5, dtype=np.uint8), **numbers}


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'low': zeros(2, 3, 4, 5)}, TypeError, 'low as uint8'),
        ({'low': zeros(2, 0, 4, 5, dtype=np.uint8)}, ValueError, 'low with cells'),
        ({'weight': zeros(4, 4, 6)}, ValueError, r'weight as float32 \[k, k, 5\]'),
        ({'weight': zeros(5, 5, 5)}, ValueError, r'k from 2 to 4, found \[5, 5, 5\]'),
        ({'weight': zeros(4, 3, 5)}, ValueError, r'k from 2 to 4, found \[4, 3, 5\]'),
        ({'added': zeros(2, 6, 7, 5, dtype=np.uint8)}, ValueError, r'added as uint8 \[2, 6, 8, 5\]'),
        ({'padding': 4}, ValueError, 'padding that leaves cells'),
        ({'padding': 2}, ValueError, r'added as uint8 \[2, 4, 6, 5\]'),
        ({'out': read_only(zeros(2, 6, 8, 5, dtype=np.uint8))}, ValueError, 'writable'),
        ({'scale': 'x'}, TypeError, 'scale as a number, found str'),
        ({'bias': 10**400}, ValueError, 'bias as a number that a float'),
        ({'zero': -1}, ValueError, 'zero'),
        ({'share': 2, 'shares': 2}, ValueError, 'share from 0 to 1'),
    ],
)
def test_upsampling_refuses(changes, error, words):
    """Maps, weights and output go with one another."""
    call(upsample.add_upsampled, upsampling_arguments(), {})
    with pytest.raises(error, match=words):
        call(upsample.add_upsampled, upsampling_arguments(), changes)


def test_shares_of_an_upsampling_make_the_whole():
    """Each row is filled by one share, with the values that one call gives."""
    rng = np.random.default_rng(0)
    arguments = upsampling_arguments()
    arguments |= {name: rng.integers(0, 256, arguments[name].shape, np.uint8) for name in ('low', 'added')}
    arguments['weight'] = rng.random((4, 4, 5), np.float32) / 4
    upsample.add_upsampled(**arguments)
    whole, parts = arguments['out'], np.zeros_like(arguments['out'])
    for share in range(3):
        before = parts.copy()
        upsample.add_upsampled(**{**arguments, 'out': parts, 'share': share, 'shares': 3})
        assert (parts != before).any(axis=(2, 3)).ravel().nonzero()[0].tolist() == [
            share,
            share + 3,
            share + 6,
            share + 9,
        ]
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'x': zeros(2, 5, 9, 5)}, r'weight as float32 \[36, 2, 5, 16\]'),
        ({'x': zeros(2, 5, 0, 4), 'out': zeros(2, 5, 0, 20)}, 'with cells'),
        ({'bias': zeros(0), 'out': zeros(2, 5, 9, 0)}, 'with cells and channels'),
        ({'weight': zeros(36, 1, 4, 16)}, r'weight as float32 \[36, 2, 4, 16\]'),
        ({'bias': zeros(19)}, r'out as float32 \[2, 5, 9, 19\]'),
        ({'out': zeros(2, 5, 8, 20)}, r'out as float32 \[2, 5, 9, 20\]'),
        ({'out': read_only(zeros(2, 5, 9, 20))}, 'writable'),
        ({'threads': 0}, 'threads'),
    ],
)
def test_winograd_refuses(changes, words):
    """So they do for Winograd's algorithm."""
    arguments = {'x': zeros(2, 5, 9, 4), 'weight': zeros(36, 2, 4, 16), 'bias': zeros(20)}
    arguments |= {'out': zeros(2, 5, 9, 20), 'relu': False, 'threads': 1}
    call(winograd.convolve, arguments, {})
    with pytest.raises(ValueError, match=words):
        call(winograd.convolve, arguments, changes)


@pytest.mark.parametrize(
    ('changes', 'error', 'words'),
    [
        ({'logits': None}, TypeError, 'logits as a NumPy array'),
        ({'logits': zeros(2, 3, 5, dtype=np.float64)}, TypeError, r'logits as float32 \[B, C, cells\], found float64'),
        ({'logits': zeros(2, 3, 10)[..., ::2]}, ValueError, 'cells or channels last'),
        ({'logits': zeros(3, 2, 5).transpose(1, 0, 2)}, ValueError, 'cells or channels last'),
        ({'target': zeros(2, 3, 6)}, ValueError, r'target as float32 \[2, 3, 5\], found \[2, 3, 6\]'),
        ({'target': zeros(2, 5, 3).transpose(0, 2, 1)}, ValueError, 'target contiguous'),
        ({'grad': zeros(2, 5, 3).transpose(0, 2, 1)}, ValueError, 'grad in memory as the logits'),
        ({'grad': read_only(zeros(2, 3, 5))}, ValueError, 'grad to be writable'),
        ({'threads': 0}, ValueError, 'threads'),
        ({'factor': 'x'}, TypeError, 'number'),
    ],
)
def test_focal_refuses(changes, error, words):
    """Shapes, types and layouts; what is right is taken, with the channels last and without a target, too."""
    logits, target = zeros(2, 3, 5), zeros(2, 3, 5)
    arguments = {'logits': logits, 'target': target, 'grad': zeros(2, 3, 5), 'factor': 1.0, 'threads': 1}
    turned = {name: zeros(2, 5, 3).transpose(0, 2, 1) for name in ('logits', 'grad')}
    for right in ({}, {'target': None}, turned, {**turned, 'target': None}):
        call(focal.differentiate, arguments, right)
    with pytest.raises(error, match=words):
        call(focal.differentiate, arguments, changes)
    with pytest.raises(ValueError, match='grad in memory of its own, found it overlapping target'):
        call(focal.differentiate, arguments, {'grad': target})
    assert focal.loss(zeros(0, 3, 5), zeros(0, 3, 5), 1) == focal.loss(zeros(2, 3, 0), None, 1) == (0.0, 0)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'heat': zeros(3, 4)}, r'heat as float32 \[C, h, w\]'),
        ({'heat': zeros(3, 4, 10)[..., ::2]}, 'maps or channels last'),
        ({'K': 0}, 'K from 1'),
        ({'cells': read_only(np.zeros(9, np.int64))}, 'writable'),
    ],
)
def test_strongest_refuses(changes, words):
    """Another layout, no K; more peaks than there are is no error, and fewer places than there are peaks neither."""
    heat = np.eye(6, dtype=np.float32)[None].repeat(2, 0)
    arguments = {'heat': heat, 'K': 7, 'logits': False, 'cells': np.zeros(40, np.int64)}
    assert peaks.strongest(**arguments) == (12, 1.0)
    for too_few in ({'K': 13}, {'K': 2**31 - 1}, {'cells': np.zeros(4, np.int64)}, {'cells': np.zeros(0, np.int64)}):
        assert call(peaks.strongest, arguments, too_few)[0] == -1
    with pytest.raises(ValueError, match=words):
        call(peaks.strongest, arguments, changes)


def test_raster_refuses():
    """A read-only map, no sigma, a negative reach; numbers that overflow 64 bits are far outside and draw nothing."""
    heatmap = zeros(3, 4)
    raster.raise_to_gaussian(heatmap, 2**70, -(2**70), 2, 1.0)
    assert not heatmap.any()
    for changes in ({'sigma': 0.0}, {'sigma': float('nan')}, {'reach': -1}, {'heatmap': read_only(zeros(3, 4))}):
        with pytest.raises(ValueError, match='expected'):
            call(raster.raise_to_gaussian, {'heatmap': heatmap, 'x': 1, 'y': 1, 'reach': 1, 'sigma': 1.0}, changes)
    with pytest.raises(TypeError, match='matrix as float32'):
        raster.affine_planes(zeros(2, 2, 3, dtype=np.uint8), np.zeros((3, 4)))


def test_many_threads_are_no_crash():
    """More threads than a system starts would end the process: at most 256 are."""
    call(dcn.sample, sample_arguments(), {'threads': 2**31 - 1})


def operator_arguments(dtype=torch.float32) -> list:
    """x, offset, weight, bias, stride, padding, dilation, mask."""
    shapes = ((2, 6, 5, 7), (2, 36, 5, 7), (4, 6, 3, 3), (4,), (2, 18, 5, 7))
    torch.manual_seed(0)
    x, offset, weight, bias, mask = (torch.randn(shape).to(dtype) for shape in shapes)
    return [x, offset, weight, bias, 1, 1, 1, mask]


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (0, torch.zeros(2, 6, 5, 0)),
        (0, torch.zeros(6, 5, 7)),
        (1, torch.zeros(2, 2, 5, 7)),
        (1, torch.zeros(2, 36, 1, 1)),
        (2, torch.zeros(4, 5, 3, 3)),
        (2, torch.zeros(4, 6, 3, 2)),
        (3, torch.zeros(5)),
        (7, torch.zeros(2, 144, 5, 7)),
        (7, torch.zeros(2, 3, 5, 7)),
        (4, 2),
        (5, 0),
        (4, 0),
        (6, 0),
    ],
)
def test_operators_refuse_shapes(place, value):
    """Forward and backward alike, before anything is read; a convolution of those numbers has another output."""
    args = operator_arguments()
    args[place] = value
    x, offset, weight, bias, *geometry, mask = args
    with pytest.raises(ValueError, match='expected'):
        native_deform_conv2d(*args)
    if value is not bias:
        with pytest.raises(ValueError, match='expected'):
            native_deform_conv2d_backward(torch.zeros(2, 4, 5, 7), x, offset, weight, mask, *geometry)


def test_operators_refuse_types_and_gradients():
    """float64 maps have no kernel, integers are no weights, a gradient is of the output's shape."""
    x, offset, weight, bias, *geometry, mask = operator_arguments()
    with pytest.raises(TypeError, match='x in float32 or bfloat16, found torch.float64'):
        native_deform_conv2d(x.double(), offset, weight, bias, *geometry, mask)
    with pytest.raises(TypeError, match='weight in a float type, found torch.int64'):
        native_deform_conv2d(x, offset, weight.long(), bias, *geometry, mask)
    with pytest.raises(ValueError, match=r'grad \[2, 5, 5, 7\]'):
        native_deform_conv2d_backward(torch.zeros(2, 5, 5, 7), x, offset, weight, mask, *geometry)


@pytest.fixture(params=['float32', 'bfloat16', 'bfloat16 of the processor'])
def dtype(request, monkeypatch):
    """A type of maps; the operators compute bfloat16 in float32, or where the processor has it as it is."""
    has = 'processor' in request.param
    monkeypatch.setattr('lib.models.networks.native_dcn.cpu_has_bfloat16', lambda: has)
    return getattr(torch, request.param.split()[0])


@pytest.mark.parametrize('mixed', [False, True])
@pytest.mark.parametrize('shape', ['plain', 'one channel', 'one cell', 'no image'])
def test_shape_functions(dtype, mixed, shape):
    """torch is told the type, the shape and the strides that the kernels give, for both operators."""
    x, offset, weight, bias, *geometry, mask = operator_arguments(dtype)
    if shape == 'one channel':
        x, weight, offset, mask = x[:, :1], weight[:, :1, :1, :1], offset[:, :2], mask[:, :1]
        geometry = [1, 0, 1]
    elif shape == 'one cell':
        x, offset, mask = (t[:1, :, :1, :1] for t in (x, offset, mask))
    elif shape == 'no image':
        x, offset, mask = x[:0], offset[:0], mask[:0]
    if mixed:  # as under autocast
        weight, bias = weight.float(), bias.float()
    forward = (x, offset, weight, bias, *geometry, mask)
    grad = torch.randn(native_deform_conv2d(*forward).shape)
    for operator, args in (
        (native_deform_conv2d, forward),
        (native_deform_conv2d_backward, (grad, x, offset, weight, mask, *geometry)),
    ):
        torch.library.opcheck(operator, args)
        real = operator(*args)
        fake = operator(*(a.to('meta') if isinstance(a, torch.Tensor) else a for a in args))
        for ours, theirs in zip(*(r if isinstance(r, tuple) else (r,) for r in (real, fake)), strict=True):
            assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())


def registered_operators() -> list[str]:
    """The operators that the package has registered with torch."""
    return sorted(name for name in torch._C._dispatch_get_all_op_names() if name.startswith('lib::'))


@pytest.mark.parametrize('mixed', [False, True])
@pytest.mark.parametrize('name', registered_operators())
def test_opcheck_of_every_operator(name, mixed, dtype):
    """Schema, gradients, shape function and tracing; one that is registered anew needs arguments here.

    `mixed` has weights in float32 beside maps of another type.
    """
    x, offset, weight, bias, *geometry, mask = operator_arguments(dtype)
    if mixed:
        weight, bias = weight.float(), bias.float()
    tensors = [tensor.requires_grad_() for tensor in (x, offset, weight, mask)]
    grad = torch.randn(2, 4, 5, 7).to(weight.dtype)
    arguments = {
        'lib::deform_conv2d': (*tensors[:3], bias.requires_grad_(), *geometry, mask),
        'lib::deform_conv2d_backward': (grad, *(tensor.detach() for tensor in tensors), *geometry),
    }
    assert set(arguments) == set(registered_operators())
    torch.library.opcheck(getattr(torch.ops.lib, name.removeprefix('lib::')).default, arguments[name])


def test_winograd_layer_refuses():
    """Other channels once corrupted the heap; a convolution that it cannot do is refused when the layer is made."""
    layer = WinogradConv2d(nn.Conv2d(6, 5, 3, padding=1))
    assert layer(torch.zeros(0, 6, 4, 4)).shape == (0, 5, 4, 4)
    for x in (torch.zeros(1, 7, 4, 4), torch.zeros(6, 4, 4), torch.zeros(1, 6, 4, 0)):
        with pytest.raises(ValueError, match=r'x \[B, 6, H, W\]'):
            layer(x)
    with pytest.raises(TypeError, match='float32 on the cpu, found torch.float64'):
        layer(torch.zeros(1, 6, 4, 4).double())
    layer.bias = torch.zeros(3)
    with pytest.raises(ValueError, match=r'out as float32 \[1, 4, 4, 3\]'):
        layer(torch.zeros(1, 6, 4, 4))
    for conv in (nn.Conv2d(6, 5, 3), nn.Conv2d(6, 5, 5, padding=2), nn.Conv2d(6, 6, 3, padding=1, groups=2)):
        with pytest.raises(ValueError, match='expected a 3 x 3 convolution'):
            WinogradConv2d(conv)


def test_decoders_name_maps_that_do_not_go_together():
    """Values were read at other cells, or far inside torch failed; an empty map or no K is refused."""
    heat, two = torch.rand(2, 3, 4, 5), torch.rand(2, 2, 4, 5)
    for wh, words in ((two[:1], 'wh'), (two[..., :4], 'wh'), (heat, r'wh \[2, 2, 4, 5\]')):
        with pytest.raises(ValueError, match=words):
            decode.ctdet_decode(heat, wh)
    with pytest.raises(ValueError, match=r'wh \[2, 6, 4, 5\]'):
        decode.ctdet_decode(heat, two, cat_spec_wh=True)
    with pytest.raises(ValueError, match='with cells'):
        decode.ctdet_decode(heat[..., :0], two[..., :0])
    with pytest.raises(ValueError, match='K of 1 or more, found 0'):
        decode.ctdet_decode(heat, two, K=0)
    with pytest.raises(ValueError, match=r'kps .* found \[2, 3, 4, 5\]'):
        decode.multi_pose_decode(heat, two, heat)
    with pytest.raises(ValueError, match='b_heat'):
        decode.exct_decode(heat, heat, heat[:, :1], heat, heat)
    with pytest.raises(ValueError, match='a map .* and cells'):
        transpose_and_gather_feat(heat, torch.zeros(1, 4, dtype=torch.int64))


@pytest.mark.parametrize('joints', [True, False])
def test_no_images(joints):
    """An empty batch decodes to no rows."""
    heat, two = torch.rand(0, 1, 4, 5), torch.rand(0, 2, 4, 5)
    assert decode.ctdet_decode(heat, two, K=7).shape == (0, 7, 6)
    maps = {'hm_hp': heat, 'hp_offset': two} if joints else {}
    assert decode.multi_pose_decode(heat, two, two, **maps, K=7).shape == (0, 7, 8)
    assert decode.exct_decode(*[heat] * 5).shape == (0, 1000, 14)
    assert decode.keep_peaks(heat.double()).shape == heat.shape
