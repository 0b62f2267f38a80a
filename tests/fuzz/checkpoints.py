"""Checkpoints: damaged files, altered archives, and facts or optimizer states of other types."""

import copy
import io
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from centernet.models.model import checkpoint_facts, load_model
from centernet.models.recognition import infer_facts

from .case import Case
from .mutations import break_bytes, break_files, pick

FACTS = {
    'epoch': 3,
    'task': 'multi_pose',
    'arch': 'res_18',
    'heads': {'hm': 1, 'wh': 2, 'hps': 6},
    'head_conv': 64,
    'down_ratio': 4,
    'not_reg_offset': True,
    'class_names': ['person'],
    'mean': [0.4, 0.4, 0.4],
    'std': [0.2, 0.2, 0.2],
    'num_joints': 3,
    'flip_idx': [[1, 2]],
    'skeleton': [[0, 1]],
    'input_h': 512,
    'input_w': 512,
    'iteration': 10,
    'batch_size': 4,
    'best': 0.5,
    'metric': 'AP',
    'options': {'lr': 1e-4, 'lr_step': [90, 120], 'exp_id': 'x'},
}


class Network(nn.Module):
    """Small, with what networks have: convolutions, batch norms, heads."""

    def __init__(self):
        super().__init__()
        self.heads = {'hm': 1}
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.hm = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1))


def make_network() -> tuple[Network, torch.optim.Optimizer]:
    """Return a network and its optimizer after a step, the same at each call."""
    torch.manual_seed(1)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return network, optimizer


def content() -> dict[str, Any]:
    """What a checkpoint of a run holds."""
    network, optimizer = make_network()
    return {**copy.deepcopy(FACTS), 'state_dict': network.state_dict(), 'optimizer': optimizer.state_dict()}


def make_base(folder: Path) -> None:
    """The file in the formats that are read; builds what facts are inferred from, which takes seconds."""
    torch.save(content(), folder / 'zip.pth')
    torch.save(content(), folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    torch.save(content()['state_dict'], folder / 'bare.pth')
    safetensors.torch.save_file(content()['state_dict'], folder / 'weights.safetensors')
    infer_facts(content()['state_dict'])


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """Return a file with broken bytes or archive records."""
    source = base / pick(rng, ['zip.pth', 'zip.pth', 'zip.pth', 'legacy.pth', 'bare.pth', 'weights.safetensors'])
    place = folder / 'data'
    place.mkdir()
    path = place / source.name
    path.write_bytes(source.read_bytes())
    kind = pick(rng, ['bytes', 'bytes', 'records', 'place'])
    exact = source.name in ('zip.pth', 'bare.pth')  # files with checksums
    if kind == 'place':
        note = break_files(rng, place)
    elif kind == 'records' and zipfile.is_zipfile(path):
        data, note = break_records(rng, path.read_bytes())
        path.write_bytes(data)
        exact = False
    else:
        data, note = break_bytes(rng, path.read_bytes())
        path.write_bytes(data)
    return load(rng, path, f'{source.name}: {note}', exact)


def load(rng: np.random.Generator, path: Path, note: str, exact: bool) -> Case:
    """Facts, then weights and optimizer. With `exact`, weights that are loaded are the right ones."""
    right, _ = make_network()

    def program() -> Any:
        facts = checkpoint_facts(path)
        network, optimizer = make_network()
        before = copy.deepcopy(network.state_dict())
        for value in network.state_dict().values():
            value.zero_()
        _, optimizer, epoch = load_model(network, path, optimizer, resume=True, lr=1e-3, lr_step=[5])
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        loaded = copy.deepcopy(network.state_dict())
        optimizer.step()
        return facts, loaded, before, network, epoch

    def check(result: Any, shown: str) -> None:
        _, loaded, _, network, epoch = result
        assert type(epoch) is int and epoch >= 0, f'the epoch is {epoch!r}'
        for name, value in loaded.items():
            assert value.isfinite().all(), f'{name} is not finite'
            if exact and name not in shown:
                assert torch.equal(value, right.state_dict()[name]), f'{name} differs without a word'
        for name, value in network.named_parameters():
            assert value.isfinite().all(), f'{name} is not finite after a step'

    return Case(f'checkpoint {note}', program, check, [path.parent])


def break_records(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Return an archive with one of its members left out, doubled, renamed, compressed or changed."""
    kind = pick(rng, ['left out', 'doubled', 'renamed', 'compressed', 'changed', 'sizes', 'bomb', 'pickle'])
    if kind == 'sizes':  # in the directory at the end
        places = [i for i in range(len(data)) if data.startswith(b'PK\x01\x02', i)]
        at = pick(rng, places) + pick(rng, [8, 10, 16, 20, 24, 28, 42])
        number = pick(rng, [0, 1, 2**16, 2**31 - 1, 2**32 - 1])
        return data[:at] + struct.pack('<I', number) + data[at + 4 :], f'{number} at {at} of its directory'
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(written, 'w') as target:
        names = source.namelist()
        chosen = pick(rng, names)
        if kind == 'pickle':
            chosen = next(name for name in names if name.endswith('data.pkl'))
        for name in names:
            bytes_of = source.read(name)
            if name != chosen:
                target.writestr(name, bytes_of)
            elif kind == 'doubled':
                target.writestr(name, bytes_of)
                target.writestr(name, bytes_of[::-1])
            elif kind == 'renamed':
                target.writestr(pick(rng, ['x', '../x', name.upper(), 'archive/data/999']), bytes_of)
            elif kind == 'compressed':
                target.writestr(name, bytes_of, zipfile.ZIP_DEFLATED)
            elif kind == 'bomb':
                target.writestr(name, bytes(50_000_000), zipfile.ZIP_DEFLATED)
            elif kind in ('changed', 'pickle'):
                target.writestr(name, break_bytes(rng, bytes_of)[0])
    return written.getvalue(), f'{chosen} {kind}'


# ----------------------------------------------------------------------------------------------------------- facts

OTHERS: list[Any] = [
    *(None, True, -1, 0, 1, 320_000, 2**40, 10**400, 0.5, float('nan'), float('inf'), '', 'x', 'x' * 100_000, '\ud800'),
    *(b'x', [], {}, [[]], [1], [None], ['x'] * 200_000, [[0, 9]], [[0, -1]], [0.1] * 4, {'hm': -1}, {'hm': 10**9}),
    *({'hm': True}, {1: 2}, {'a': {'b': [1]}}, (1, 2), {1, 2}, torch.zeros(3), torch.zeros(2, 2), 1j, torch.float32),
    *(torch.tensor(3), OrderedDict(a=1), [0.0, 0.0, 0.0], 'res_9999', 'ctdet', ['a\nb'], ['\ud800'], torch.Size([1])),
]
TENSORS = {
    'another type': lambda t: t.double(),
    'integers': lambda t: t.long(),
    'complex': lambda t: t.to(torch.complex64),
    'half': lambda t: t.half(),
    'sparse': lambda t: t.to_sparse(),
    'meta': lambda t: t.to('meta'),
    'empty': lambda t: t[:0] if t.ndim else t,
    'an axis more': lambda t: t[None],
    'a scalar': lambda t: torch.tensor(1.0),
    'NaN': lambda t: torch.full_like(t, float('nan')) if t.is_floating_point() else t,
    'negative': lambda t: -t.abs() - 1,
    'infinite': lambda t: torch.full_like(t, float('inf')) if t.is_floating_point() else t,
    'huge': lambda t: t + 1e38 if t.is_floating_point() else t,
    'expanded': lambda t: torch.zeros(()).expand(t.shape),
    'enormous': lambda t: torch.zeros(()).expand(2**20, 2**20),
    'quantized': lambda t: torch.quantize_per_tensor(torch.zeros(t.shape), 0.1, 0, torch.quint8),
    'a parameter': lambda t: nn.Parameter(t.float()),
}


def make_facts_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """Return a sound file of a content that has another type somewhere."""
    place = folder / 'data'
    place.mkdir()
    warnings.simplefilter('ignore')  # of torch, about kinds of tensors that are deprecated
    saved = content()
    notes = [break_content(rng, saved) for _ in range(pick(rng, [1, 1, 2]))]
    try:
        if pick(rng, [True, True, False]):
            torch.save(saved, place / 'a.pth')
        else:
            torch.save(saved, place / 'a.pth', _use_new_zipfile_serialization=False)
    except (RuntimeError, NotImplementedError, UnicodeEncodeError, pickle.PicklingError, AttributeError) as error:
        (place / 'a.pth').write_bytes(b'')  # what torch itself cannot write
        notes.append(type(error).__name__)
    return load(rng, place / 'a.pth', ', '.join(notes), exact=False)


def break_content(rng: np.random.Generator, saved: dict[str, Any]) -> str:
    """Break one thing in the content of a checkpoint."""
    inner: Any = saved
    path: list[Any] = []
    while isinstance(inner, (dict, list)) and len(inner) and (not path or rng.random() < 0.8):
        key = pick(rng, list(inner)) if isinstance(inner, dict) else int(rng.integers(len(inner)))
        path.append(key)
        inner = inner[key]
    parent: Any = saved
    for key in path[:-1]:
        parent = parent[key]
    place = '.'.join(map(str, path))
    kind = pick(rng, ['replaced'] * 5 + ['removed', 'cycle', 'renamed'])
    if isinstance(inner, torch.Tensor) and rng.random() < 0.7:
        kind = pick(rng, list(TENSORS))
        parent[path[-1]] = TENSORS[kind](inner.float())
    elif kind == 'replaced':
        parent[path[-1]] = copy.deepcopy(pick(rng, OTHERS))
        kind = f'replaced by {parent[path[-1]]!r:.40}'
    elif kind == 'removed':
        del parent[path[-1]]
    elif kind == 'cycle':
        parent[path[-1]] = parent
    elif isinstance(parent, dict):
        parent[pick(rng, ['model', 'ema', 'module.x', '', 'x' * 600, 3, None, '\x1b'])] = parent.pop(path[-1])
    return f'{place} {kind}'
