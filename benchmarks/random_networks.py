"""Checkpoints of random networks whose heads answer something: heatmaps with peaks, boxes with sides."""

import importlib
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

LEVELS = {'ctdet': -3, 'ddd': -3, 'multi_pose': -2, 'exdet': 0}  # mean of the heatmaps' logits
SPREAD = 0.25  # of other heads than heatmaps: differences grow with it
ALIKE = 0.8  # share that exdet's four maps have in common: else no top point would lie above a bottom point
BRANCH = 0.2  # scale of what a residual block adds: at 1 a hundred random layers magnify rounding a thousandfold
SIDES = 8.0  # mean of `wh`, in cells


def import_part(package: str, name: str) -> Any:
    """Import a module of a package."""
    return importlib.import_module(f'{package}.{name}')


@torch.no_grad()
def save_random_network(
    path: Path, task: str, arch: str, size: int, *args: str, spread: float = 1.0, package: str = 'centernet'
) -> str:
    """Write a checkpoint of a random network; returns its path.

    Its heads are scaled by what they answer to images such as `export.py` compares files on, where the heatmaps' logits
    have that spread. Other images may give much more: a small spread keeps probabilities off 1, where all are equal.

    Args:
        path: the file.
        task, arch, size: of the network, and of its input in pixels.
        args: further options.
        spread: standard deviation of the heatmaps' logits.
        package: the name under which the project is imported, `lib` in tests, which change some of its modules.
    """
    part: Any = partial(import_part, package)
    opts, model = part('opts').opts, part('models.model')
    TASKS, EXPORT = part('tasks').TASKS, part('utils.option_rows').EXPORT
    check_image, normalize = part('exports.check').check_image, part('utils.image').normalize
    sides = ['--input_h', str(size), '--input_w', str(2 * size)] if task == 'ddd' else ['--input_res', str(size)]
    opt = opts().parse([task, '--arch', arch, '--gpus', '-1', *sides, *args], program=EXPORT)
    data = part('datasets.dataset_factory').get_dataset(TASKS[task].dataset, task)
    facts = {name: getattr(data, name) for name in ('mean', 'std', 'num_joints', 'flip_idx', 'skeleton')}
    names = data.class_names if task in ('ddd', 'multi_pose') else ['disc', 'triangle', 'cross']  # of toy data
    opts.update_dataset_info_and_set_heads(opt, Namespace(class_names=names, default_resolution=[size, size], **facts))
    torch.manual_seed(0)
    network = model.create_model(arch, opt.heads, opt.head_conv)
    height, width = opt.input_h, opt.input_w
    drawn = [check_image(opt, height + more, width)[:height] for more in range(0, 5 * (opt.pad + 1), opt.pad + 1)]
    images = torch.stack([torch.from_numpy(normalize(image, opt.mean, opt.std)) for image in drawn])  # [5, 3, H, W]
    images = torch.cat([images, images.flip(3)])
    for block in network.modules():
        last = getattr(block, 'bn3', getattr(block, 'bn2', None))
        if isinstance(last, nn.BatchNorm2d):
            last.weight.fill_(BRANCH)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics of this batch alone
    network.train()(images)
    heads = {name: network.head(name, opt.num_stacks - 1) for name in opt.heads}
    for name in [f'hm_{side}' for side in 'lbr' if task == 'exdet']:
        heads[name][:-1].load_state_dict(heads['hm_t'][:-1].state_dict())
        heads[name][-1].weight.lerp_(heads['hm_t'][-1].weight, ALIKE)
    maps = network.eval()(images)[-1]
    for name, head in heads.items():
        last = head[-1]
        wanted, level = (spread, LEVELS[task]) if 'hm' in name else (SPREAD, SIDES if name == 'wh' else 0.0)
        scale = wanted / maps[name].std()
        last.weight.mul_(scale)
        last.bias.sub_(maps[name].mean()).mul_(scale).add_(level)
    model.save_model(path, 1, network, **part('opts').model_facts(opt))
    return str(path)
