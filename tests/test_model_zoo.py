"""docs/model_zoo.md: every command of its tables is understood, and finds the network of its checkpoint."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from lib.datasets.dataset_factory import get_dataset
from lib.models.model import create_model
from lib.opts import opts

PAGE = (Path(__file__).parents[1] / 'docs' / 'model_zoo.md').read_text()
COMMANDS = re.findall(r'`python test\.py ([^`]*)`', PAGE)
ARCHS = {'hg': 'hourglass', 'dla': 'dla_34', 'resdcn18': 'resdcn_18', 'resdcn101': 'resdcn_101', 'ddd': 'dla_34'}
HEAD_CONV = {'hourglass': 256, 'dla_34': 256, 'resdcn_18': 64, 'resdcn_101': 64}
SIDES = 'tlbr'
HEADS = {  # as the published networks have them
    'ctdet': {'hm': 80, 'wh': 2, 'reg': 2},
    'exdet': {**{f'hm_{side}': 80 for side in (*SIDES, 'c')}, **{f'reg_{side}': 2 for side in SIDES}},
    'multi_pose': {'hm': 1, 'wh': 2, 'hps': 34, 'reg': 2, 'hm_hp': 17, 'hp_offset': 2},
    'ddd': {'hm': 3, 'dep': 1, 'rot': 8, 'dim': 3, 'wh': 2, 'reg': 2},
}


def save_hollow(path, arch, heads):
    """Save parameters with the names and shapes of a network, each one zero that is seen in all its places."""
    with torch.device('meta'):
        network = create_model(arch, heads, HEAD_CONV[arch])
    hollow = {name: torch.zeros(()).expand(value.shape) for name, value in network.state_dict().items()}
    torch.save({'epoch': 1, 'state_dict': hollow}, path)


def test_all_published_checkpoints_are_listed():
    assert len({command.split()[-1] for command in COMMANDS}) == len(COMMANDS) == 19


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: Path(command.split()[-1]).stem)
def test_command_finds_the_network(command, tmp_path):
    """Arch and heads are the checkpoint's, and suit the dataset that the command names."""
    *words, checkpoint = shlex.split(command)
    name = Path(checkpoint).stem
    task = words[0]
    arch = next(arch for part, arch in ARCHS.items() if part in name.split('_'))
    heads = HEADS[task] | ({'hm': 20} if 'pascal' in name else {})
    save_hollow(tmp_path / f'{name}.pth', arch, heads)
    opt = opts().parse([*words, str(tmp_path / f'{name}.pth'), '--gpus', '-1'], program='test.py')
    opt = opts().update_dataset_info_and_set_heads(opt, get_dataset(opt.dataset, opt.task))
    assert (opt.arch, opt.head_conv, opt.heads) == (arch, HEAD_CONV[arch], heads)
