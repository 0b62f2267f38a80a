"""Winograd's algorithm gives what the convolution gives."""

import pytest
import torch
from torch import nn

from lib.models.fast_layers import use_fast_layers
from lib.models.winograd import WinogradConv2d, suits


@pytest.mark.parametrize(
    ('images', 'channels', 'out_channels', 'height', 'width'),
    [
        (1, 64, 64, 8, 8),
        (2, 64, 70, 13, 17),
        (1, 65, 64, 1, 9),
        (3, 40, 24, 30, 22),
        (2, 3, 5, 4, 6),
        (1, 300, 20, 30, 30),
    ],
)
@pytest.mark.parametrize('relu', [False, True])
@torch.inference_mode()
def test_equals_the_convolution(relu, images, channels, out_channels, height, width):
    """Any sides and channels, one block of tiles, several with a shorter rest; with and without ReLU."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(channels, out_channels, 3, padding=1), torch.randn(images, channels, height, width)
    want = conv.double()(x.double()).float()
    want = want.relu() if relu else want
    torch.testing.assert_close(WinogradConv2d(conv.float(), relu)(x), want, rtol=1e-4, atol=5e-5)


@torch.inference_mode()
def test_layouts_and_bias():
    """Channels-last input is taken as it is, output comes so; a convolution without bias has none."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.randn(2, 64, 9, 9)
    fast = WinogradConv2d(conv)
    out = fast(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, fast(x))
    torch.testing.assert_close(out, conv(x), rtol=1e-4, atol=3e-5)


@torch.inference_mode()
def test_any_number_of_threads():
    """However many share the rows of tiles, the bits are the same."""
    torch.manual_seed(0)
    fast, x = WinogradConv2d(nn.Conv2d(64, 64, 3, padding=1)), torch.randn(2, 64, 13, 17)
    want = fast(x)
    for threads in (2, 3, 9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, 'get_num_threads', lambda threads=threads: threads)
            assert torch.equal(fast(x), want)


def test_which_suit():
    """3 x 3, stride 1, padding 1, one group, enough channels and not too many."""
    good = {'in_channels': 64, 'out_channels': 128, 'kernel_size': 3, 'padding': 1}
    assert suits(nn.Conv2d(**good))
    assert suits(nn.Conv2d(**{**good, 'out_channels': 27}))
    for change in (
        {'kernel_size': 1, 'padding': 0},
        {'stride': 2},
        {'padding': 0},
        {'padding': 2, 'dilation': 2},
        {'groups': 64},
        {'padding_mode': 'reflect'},
        {'in_channels': 16},
        {'out_channels': 8},
        {'in_channels': 512, 'out_channels': 512},
    ):
        assert not suits(nn.Conv2d(**{**good, **change})), change
    assert not suits(nn.ConvTranspose2d(64, 64, 3, padding=1))


@torch.inference_mode()
def test_replaced_inside_a_model():
    """Convolutions that suit are replaced wherever they sit, shared ones too; the rest stays."""
    torch.manual_seed(0)
    shared = nn.Conv2d(64, 64, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), shared, nn.Sequential(nn.ReLU(), shared))
    x = torch.randn(1, 3, 8, 8)
    want = model(x)
    use_fast_layers(model)
    assert [type(m) for m in (model[0], model[1], model[2][1])] == [nn.Conv2d, WinogradConv2d, WinogradConv2d]
    torch.testing.assert_close(model(x), want, rtol=1e-4, atol=3e-5)
