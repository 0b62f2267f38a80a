"""The trainer's step: how the network, its gradients and the optimizer's state lie in memory."""

import copy

import torch
from torch import nn

from lib.opts import opts
from lib.trains.train_factory import train_factory


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
    return next(model.parameters())


def test_state_of_contiguous_checkpoints_follows_the_network():
    """The fused optimizer goes by memory: moments saved from a contiguous network must be laid out anew."""
    torch.manual_seed(0)
    x = torch.randn(1, 8, 9, 9)
    plain = nn.Conv2d(8, 8, 3)
    optimizer = torch.optim.Adam(plain.parameters(), 1e-2, fused=True)
    step(plain, optimizer, x)

    moved = copy.deepcopy(plain)
    loaded = torch.optim.Adam(moved.parameters(), 1e-2, fused=True)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    trainer = train_factory['ctdet'](opts().init(['ctdet', '--gpus', '-1']), moved, loaded)
    trainer.set_device(torch.device('cpu'))
    assert moved.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(step(moved, loaded, x), step(plain, optimizer, x))
