"""Deformable convolution: the layer against its definition, our CPU operator against torchvision's."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from lib.models.networks import native_dcn
from lib.models.networks.dcn import BACKENDS, DCN
from lib.models.networks.native_dcn import native_deform_conv2d
from lib.utils.errors import UserError

# batch, in, out, height, width, kernel, stride, padding, dilation, groups of offsets, size of the offsets in cells
CASES = {
    'plain': (2, 32, 16, 13, 17, 3, 1, 1, 1, 1, 2.0),
    'far outside': (1, 16, 8, 12, 12, 3, 1, 1, 1, 1, 30.0),
    'unmoved': (2, 5, 3, 7, 7, 3, 1, 1, 1, 1, 0.0),
    'stride 2': (1, 20, 8, 15, 14, 3, 2, 1, 1, 1, 1.0),
    'dilation 2': (3, 32, 8, 9, 9, 3, 1, 2, 2, 1, 1.0),
    'groups': (2, 24, 8, 9, 9, 3, 1, 1, 1, 3, 1.0),
    'kernel 5': (1, 8, 4, 10, 12, 5, 2, 2, 1, 1, 3.0),
    'kernel 1': (1, 8, 4, 5, 6, 1, 1, 0, 1, 1, 1.0),
    'one cell': (1, 4, 2, 1, 1, 3, 1, 1, 1, 1, 0.5),
}


pytestmark = pytest.mark.usefixtures('seeded')


def arguments(case: str, dtype=torch.float32) -> list:
    """x, offset, weight, bias, stride, padding, dilation, mask of one of the cases."""
    b, c, out, height, width, k, stride, padding, dilation, groups, size = CASES[case]
    shape = F.conv2d(torch.empty(b, 1, height, width), torch.empty(1, 1, k, k), None, stride, padding, dilation).shape
    x, weight, bias = (
        torch.randn(b, c, height, width),
        torch.randn(out, c, k, k) / math.sqrt(c * k * k),
        torch.randn(out),
    )
    offset = torch.randn(b, 2 * groups * k * k, *shape[2:]) * size
    mask = torch.rand(b, groups * k * k, *shape[2:])
    x, offset, weight, bias, mask = (t.to(dtype).requires_grad_() for t in (x, offset, weight, bias, mask))
    return [x, offset, weight, bias, stride, padding, dilation, mask]


def tensors(args: list) -> list[torch.Tensor]:
    return [a for a in args if isinstance(a, torch.Tensor)]


def slow_dcn(layer: DCN, x: torch.Tensor) -> torch.Tensor:
    """Modulated deformable convolution, one output value after another."""
    images, _, height, width = x.shape
    kernel, raw = layer.weight.shape[-1], layer.conv_offset_mask(x)
    taps = kernel * kernel
    out = layer.bias.view(1, -1, 1, 1).repeat(images, 1, *raw.shape[2:])

    def pixel(b: int, row: int, column: int) -> torch.Tensor:
        inside = 0 <= row < height and 0 <= column < width
        return x[b, :, row, column] if inside else torch.zeros_like(x[b, :, 0, 0])

    for b, i, j, tap in torch.cartesian_prod(*map(torch.arange, (images, *raw.shape[2:], taps))).tolist():
        dy, dx = raw[b, 2 * tap : 2 * tap + 2, i, j].tolist()
        y = i * layer.stride - layer.padding + tap // kernel * layer.dilation + dy
        z = j * layer.stride - layer.padding + tap % kernel * layer.dilation + dx
        top, left = math.floor(y), math.floor(z)
        value = sum(
            pixel(b, row, column) * (1 - abs(y - row)) * (1 - abs(z - column))
            for row in (top, top + 1)
            for column in (left, left + 1)
        )
        weight = layer.weight[:, :, tap // kernel, tap % kernel]  # [out, in]
        out[b, :, i, j] += weight @ (value * raw[b, 2 * taps + tap, i, j].sigmoid())
    return out


@pytest.mark.parametrize(
    'options', [{}, {'stride': 2}, {'dilation': 2, 'padding': 2}, {'kernel_size': 1, 'padding': 0}]
)
def test_dcn_against_the_definition(options):
    """Offsets (dy, dx) interleaved, then sigmoid modulations; zeros outside."""
    layer = DCN(3, 4, **options)
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), slow_dcn(layer, x), rtol=1e-4, atol=1e-4)


def test_dcn_starts_as_a_half_weighted_convolution():
    """New offsets are zero and modulations a half; weights uniform within 1 / sqrt(in * k * k), bias zero."""
    layer, x = DCN(16, 8), torch.randn(1, 16, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight / 2, padding=1), rtol=1e-4, atol=1e-5)
    assert 0.95 / 12 < layer.weight.abs().max() <= 1 / 12
    assert (layer.bias == 0).all()


@pytest.mark.parametrize('case', CASES)
def test_native_equals_torchvision(case):
    """Output and all five gradients, in strips of one row as in one strip."""
    args = arguments(case)
    want = deform_conv2d(*args)
    grad = torch.randn_like(want)
    want_grads = torch.autograd.grad(want, tensors(args), grad)
    for least in (1, 25, 1 << 20):  # positions of a strip: one row, a few, all
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native_dcn, 'STRIP_BYTES', 1)
            patch.setattr(native_dcn, 'LEAST_POSITIONS', least)
            got = native_deform_conv2d(*args)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
            for ours, theirs in zip(torch.autograd.grad(got, tensors(args), grad), want_grads, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_native_takes_any_strides():
    """Channels-last, sliced and transposed inputs give what contiguous ones do; so does a gradient that is expanded."""
    args = arguments('plain')
    want = native_deform_conv2d(*args)
    want_grads = torch.autograd.grad(want.sum(), tensors(args))
    strided = [
        args[0].detach().to(memory_format=torch.channels_last),
        torch.cat([args[1].detach(), torch.zeros_like(args[1])], 1)[:, : args[1].shape[1]],
        args[2].detach().transpose(2, 3).contiguous().transpose(2, 3),
        args[3].detach().repeat_interleave(2)[::2],
        *args[4:7],
        args[7].detach().permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    ]
    for tensor in tensors(strided):
        tensor.requires_grad_()
    got = native_deform_conv2d(*strided)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(torch.autograd.grad(got.sum(), tensors(strided)), want_grads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_native_gives_the_same_bits_again():
    """Backward twice, and with other numbers of threads in the sampling: resumed training has to stay exact."""
    args = arguments('groups')
    grad = torch.randn(2, 8, 9, 9)
    results = []
    for threads in (1, 1, 2, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, 'get_num_threads', lambda threads=threads: threads)
            out = native_deform_conv2d(*args)
            results.append([out, *torch.autograd.grad(out, tensors(args), grad)])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_native_is_an_operator_that_torch_knows():
    """Schema, fake tensors, autograd and tracing agree with the kernel, so that compile and export work."""
    torch.library.opcheck(native_deform_conv2d, arguments('unmoved'))
    layer, x = DCN(4, 4).eval(), torch.randn(1, 4, 6, 6)
    exported = torch.export.export(layer, (x,))
    assert any('deform_conv2d' in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(x), layer(x))
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), layer(x))


def test_native_refuses_shapes_that_do_not_fit():
    """The kernel reads by these shapes: a wrong one is an error, not a read of foreign memory."""
    for place, shape in ((0, (2, 31, 13, 17)), (1, (2, 16, 13, 17)), (2, (16, 32, 3, 2)), (7, (1, 9, 13, 17))):
        args = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments('plain')]
        args[place] = torch.zeros(shape)
        with pytest.raises(ValueError, match=r'expected x \[B, in, H, W\].*found x'):
            native_deform_conv2d(*args)


def test_nothing_and_nan():
    """An empty batch gives an empty output; a NaN offset looks outside the map, at zeros."""
    args = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments('plain')]
    none = [a[:0] if i in (0, 1, 7) else a for i, a in enumerate(args)]
    assert native_deform_conv2d(*none).shape == (0, 16, 13, 17)
    args[1] = torch.full_like(args[1], float('nan'))
    torch.testing.assert_close(native_deform_conv2d(*args), args[3].view(1, -1, 1, 1).expand(2, 16, 13, 17))


def test_shapes_alone():
    """On the device `meta`, which has no autocast, a layer gives the shape of its output."""
    layer = DCN(6, 4, kernel_size=3, stride=2, padding=1).to('meta')
    assert layer(torch.empty(2, 6, 9, 8, device='meta')).shape == (2, 4, 5, 4)


def test_backends():
    """All give the same; 'native' says where it does not run; an unknown one is refused with the valid ones."""
    layer, x = DCN(2, 2), torch.randn(1, 2, 4, 4)
    torch.nn.init.normal_(layer.conv_offset_mask.weight)
    wanted = layer(x)
    for name in ('native', 'torchvision'):
        layer.backend = name
        assert layer.backend == name
        torch.testing.assert_close(layer(x), wanted)
    with pytest.raises(UserError, match="auto.*native.*torchvision.*found 'cuda'"):
        layer.backend = 'cuda'
    with pytest.raises(UserError, match="found 'fast'"):
        DCN(2, 2, backend='fast')
    layer = layer.double()
    layer.backend = 'auto'
    torch.testing.assert_close(layer(x.double()).float(), wanted)
    layer.backend = 'native'
    with pytest.raises(UserError, match="'native' is for float32, bfloat16 and float16.*float64.*use 'auto'"):
        layer(x.double())


@pytest.mark.parametrize('backend', ['native', 'torchvision'])
def test_bfloat16(backend):
    """bfloat16 comes out as it went in, near what float32 gives, and trains."""
    layer = DCN(32, 16, backend=backend).to(torch.bfloat16)
    half = arguments('plain', torch.bfloat16)
    assert layer(half[0]).dtype == torch.bfloat16
    got = native_deform_conv2d(*half)
    assert got.dtype == torch.bfloat16
    want = deform_conv2d(*[a.detach().float() if isinstance(a, torch.Tensor) else a for a in half])
    torch.testing.assert_close(got.float(), want, rtol=2e-2, atol=2e-2)
    grads = torch.autograd.grad(layer(half[0]).float().sum(), [half[0], layer.weight])
    assert all(g.dtype == torch.bfloat16 and g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('backend', list(BACKENDS))
def test_autocast(backend, dtype):
    """Computes in autocast's type as a convolution does, whatever comes in, near float32's values and gradients."""
    layer, x = DCN(32, 16, backend=backend), torch.randn(2, 32, 9, 9)
    torch.nn.init.normal_(layer.conv_offset_mask.weight, std=0.02)
    results = []
    for incoming in (None, torch.float32, dtype):
        with torch.autocast('cpu', dtype, enabled=incoming is not None):
            out = layer(x.to(incoming))
        assert out.dtype == (torch.float32 if incoming is None else dtype)
        results.append([out.float(), *torch.autograd.grad(out.float().square().sum(), list(layer.parameters()))])
    assert all(gradient.dtype == torch.float32 for result in results for gradient in result)
    for result in results[1:]:
        for ours, wide in zip(result, results[0], strict=True):
            assert (ours - wide).norm() < 0.1 * wide.norm()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_compiled_network_under_autocast(dtype):
    """A small network with deformable convolutions, compiled as a whole, gives what it gives uncompiled, and learns."""
    layer = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), DCN(8, 8), DCN(8, 4)
    )
    for dcn in layer[3:]:
        torch.nn.init.normal_(dcn.conv_offset_mask.weight, std=0.1)
    x, target = torch.randn(2, 3, 12, 12), torch.randn(2, 4, 12, 12)
    results = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend='aot_eager')):
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = run(x)
        assert out.dtype == dtype
        results.append([out.float(), *torch.autograd.grad((out.float() * target).sum(), list(layer.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        assert (eager - compiled).norm() <= (1e-5 if dtype == torch.float32 else 0.1) * eager.norm()


@pytest.mark.parametrize('case', CASES)
def test_samples_in_bfloat16(case):
    """The kernel takes bfloat16 as its bits: the samples are those of the same values in float, rounded."""
    x, offset, weight, _, *geometry, mask = (a.detach() if isinstance(a, torch.Tensor) else a for a in arguments(case))
    half = native_dcn.channels_last(x, torch.bfloat16)
    columns = {}
    for pixels in (half, half.float()):
        filled = columns[pixels.dtype] = torch.empty(mask[:, 0].numel(), weight[0].numel(), dtype=pixels.dtype)
        arrays = [native_dcn.as_array(t) for t in (pixels, offset, mask, filled)]
        native_dcn.dcn.sample(*arrays, 0, weight.shape[2], *geometry, 1)
    assert columns[torch.float32].any()
    torch.testing.assert_close(columns[torch.bfloat16], columns[torch.float32].bfloat16(), rtol=2**-7, atol=1e-6)
