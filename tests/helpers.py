"""What test files share beside fixtures."""

from argparse import Namespace
from functools import partial

import torch

import random_networks

save_random_network = partial(random_networks.save_random_network, package='lib')
SMALL = ['--gpus', '-1', '--num_workers', '0', '--arch', 'res_18', '--pretrained', 'none']


def options(task: str, folder, *args: str) -> tuple[Namespace, type]:
    """Parsed options and the dataset class of a task on a folder of own data, for a small network on the CPU."""
    from lib.datasets.dataset_factory import get_dataset
    from lib.opts import opts

    opt = opts().parse([task, '--dataset', str(folder), *SMALL, *args])
    dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, dataset)
    opt.device = torch.device('cpu')
    return opt, dataset


def batch_of(*samples: dict) -> dict:
    """Samples as a loader would batch them."""
    return torch.utils.data.default_collate(list(samples))
