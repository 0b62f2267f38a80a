"""Code for GPUs, checked without one: fake CUDA tensors have shapes, types and a device, but no values.

A computation that mixes them with tensors of the CPU fails, as it does on a GPU. Backward passes are left out: autograd
looks for a real device.
"""

from argparse import Namespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import batch_of, options
from lib.datasets.toy import make_toy_data
from lib.detectors.detector_factory import detector_factory
from lib.models import losses
from lib.models.heatmaps import SparseHeatmap
from lib.models.model import create_model
from lib.models.utils import transpose_and_gather_feat
from lib.tasks import TASKS
from lib.trains.train_factory import train_factory
from lib.utils.device import to_device

CUDA = torch.device('cuda', 0)
FAMILIES = ['res_18', 'resdcn_18', 'dlav0_34', 'dla_34', 'hourglass']
FOUND = 3  # values that a search finds, where the number depends on them
ORACLES = {
    'ctdet': ['hm', 'wh', 'offset'],
    'multi_pose': ['hm', 'wh', 'offset', 'kps', 'hmhp', 'hp_offset'],
    'exdet': ['hm', 'offset'],
    'ddd': ['hm', 'wh', 'offset', 'dep', 'dim', 'rot'],
}


class SearchesFind(TorchDispatchMode):
    """Searches in fake tensors find `FOUND` values each: without values the number is unknown."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.nonzero.default:
            return args[0].new_empty((FOUND, args[0].dim()), dtype=torch.int64)
        if func is torch.ops.aten.nonzero_numpy.default:
            return self.places(args[0])
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in self.places(index)])
        return func(*args, **(kwargs or {}))

    @staticmethod
    def places(index):
        """An index, of numbers or None, or a number for each axis in place of a mask."""
        is_mask = index is not None and index.dtype == torch.bool
        return [index.new_empty(FOUND, dtype=torch.int64) for _ in index.shape] if is_mask else [index]


@pytest.fixture
def fake_cuda(monkeypatch):
    """Tensors are fake within the test; those of the CPU become arrays of ones, those of the GPU none."""

    def numpy(tensor):
        assert tensor.device.type == 'cpu', 'a CUDA tensor does not become an array'
        return np.ones(tensor.shape, str(tensor.dtype).removeprefix('torch.'))

    monkeypatch.setattr(FakeTensor, 'numpy', numpy)
    with FakeTensorMode() as mode, SearchesFind():
        yield mode


def faked(batch, mode):
    """A batch with fake tensors of the CPU in place of real ones."""
    return {name: faked(item, mode) if name == 'meta' else mode.from_tensor(item) for name, item in batch.items()}


class Case(NamedTuple):
    """What a task needs to be tried with any family."""

    opt: Namespace
    batch: dict  # of one validation image
    detectors: list  # also one with --flip_test where that acts; their own networks are not used


@pytest.fixture(scope='module')
def cases(tmp_path_factory):
    """`{task: Case}` on toy data."""
    made = {}
    for task in TASKS:
        data = make_toy_data(tmp_path_factory.mktemp(task), task, train=1, val=1, size=(128, 64))
        where = ['kitti', '--data_dir', str(data)] if task == 'ddd' else [str(data)]
        oracles = [f'--eval_oracle_{head}' for head in ORACLES[task]]
        opt, dataset = options(task, *where, '--test', '--input_res', '128', *oracles)
        images = dataset(opt, 'val')
        flips = (False, True) if TASKS[task].merges_views else (False,)
        detectors = [detector_factory[task](Namespace(**{**vars(opt), 'flip_test': flip})) for flip in flips]
        made[task] = Case(opt, batch_of(images[0]), detectors)
    return made


@pytest.mark.parametrize('arch', FAMILIES)
@pytest.mark.parametrize('task', list(TASKS))
def test_forward_loss_and_decoders_stay_on_the_gpu(task, arch, cases, fake_cuda, monkeypatch):
    """`to_device`, the network, loss, true heads and detections of the trainer, and the detector's decoder."""
    opt, batch, detectors = cases[task]
    monkeypatch.setattr(opt, 'device', CUDA)
    with CUDA:
        network = create_model(arch, opt.heads, 64).eval()
    trainer = train_factory[task](opt, network)
    batch = to_device(faked(batch, fake_cuda), CUDA)
    assert all(tensor.device == CUDA for name, tensor in batch.items() if name != 'meta')
    assert batch['input'].is_contiguous(memory_format=torch.channels_last)

    outputs = network(batch['input'])
    loss, stats = trainer.loss(outputs, batch)
    assert loss.device == CUDA and all(value.device == CUDA for value in stats.values())
    assert trainer.detect(outputs[-1], batch)
    mirrored = {head: torch.cat([maps, maps]) for head, maps in outputs[-1].items()}
    for detector in detectors:
        assert len(detector.process(mirrored if detector.opt.flip_test else outputs[-1])) == 1


@pytest.mark.parametrize('args', [{}, {'mse_loss': True}])
def test_sparse_heatmaps_stay_on_the_gpu(args, cases, fake_cuda, monkeypatch):
    """The loss of heatmaps of which some classes' maps are stored, as of more than 300 classes, and its gradient."""
    opt, batch, _ = cases['ctdet']
    opt = Namespace(**{**vars(opt), **args, 'device': CUDA})
    height, width = batch['hm'].shape[2:]
    places = torch.zeros(2, dtype=torch.int64), torch.tensor([0, 2])
    sparse = SparseHeatmap(torch.rand(2, height, width), *places, (1, opt.num_classes))
    batch = to_device({**faked({name: batch[name] for name in batch if name != 'hm'}, fake_cuda), 'hm': sparse}, CUDA)
    assert batch['hm'].maps.device == batch['hm'].dense().device == CUDA
    with CUDA:
        output = {head: torch.rand(1, channels, height, width) for head, channels in opt.heads.items()}
    loss, _ = train_factory['ctdet'](opt, create_model('res_18', opt.heads, 64)).loss([output], batch)
    assert loss.device == CUDA
    for target in (None, batch['hm'].dense()):
        grad = losses._focal_gradient(output['hm'], target, loss)
        assert grad.device == CUDA and grad.shape == output['hm'].shape


def test_mixed_devices_are_found(fake_cuda):
    """The check of the check: cells of the CPU in a map of the GPU fail."""
    with CUDA:
        heat = torch.rand(1, 2, 4, 4)
    with pytest.raises(RuntimeError, match='device'):
        transpose_and_gather_feat(heat, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(AssertionError, match='CUDA'):
        heat.numpy()
