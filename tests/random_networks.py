"""Checkpoints of random networks whose heads answer something: heatmaps with peaks, boxes with sides."""

from pathlib import Path

import torch
from torch import nn

from lib.models.model import create_model, save_model
from lib.opts import model_facts, opts

LEVELS = {'ctdet': -3, 'ddd': -3, 'multi_pose': -2, 'exdet': -1}  # mean of the heatmaps' logits
SPREAD = 2.0  # of the heatmaps' logits
SIDES = 8.0  # mean of `wh`, in cells


@torch.no_grad()
def save_random_network(path: Path, task: str, arch: str, size: int, *args: str) -> str:
    """Write a checkpoint of a random network, its heads scaled by what they answer to noise; returns its path."""
    sides = ['--input_h', str(size), '--input_w', str(2 * size)] if task == 'ddd' else ['--input_res', str(size)]
    opt = opts().init([task, '--arch', arch, '--gpus', '-1', *sides, *args])
    torch.manual_seed(0)
    network = create_model(arch, opt.heads, opt.head_conv)
    images = torch.randn(2, 3, opt.input_h, opt.input_w)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics of this batch alone
    network.train()(images)
    maps = network.eval()(images)[-1]
    for name in opt.heads:
        head = network.head(name, opt.num_stacks - 1)
        last = head[-1] if isinstance(head, nn.Sequential) else head
        spread, level = (SPREAD, LEVELS[task]) if 'hm' in name else (1.0, SIDES if name == 'wh' else 0.0)
        scale = spread / maps[name].std()
        last.weight.mul_(scale)
        last.bias.sub_(maps[name].mean()).mul_(scale).add_(level)
    save_model(path, 1, network, **model_facts(opt))
    return str(path)
