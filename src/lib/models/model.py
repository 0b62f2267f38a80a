"""Networks by name, and the checkpoints that they are saved to and loaded from."""

import contextlib
import copy
import http.client
import os
import re
import socket
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..utils.errors import UserError, did_you_mean
from ..utils.files import atomic_path
from .networks import dlav0, large_hourglass, msra_resnet, pose_dla_dcn, resnet_dcn
from .networks.common import CenterNet, ImageNetWeights


class Family(NamedTuple):
    """A network family: `builder(num_layers, heads, head_conv)` and the layers it has (none: one size only)."""

    builder: Callable[[int, dict[str, int], int], CenterNet]
    layers: tuple[int, ...] = ()


RESNET_LAYERS = (18, 34, 50, 101, 152)

model_factory: dict[str, Family] = {
    'res': Family(msra_resnet.get_pose_net, RESNET_LAYERS),
    'resdcn': Family(resnet_dcn.get_pose_net, RESNET_LAYERS),
    'dlav0': Family(dlav0.get_pose_net, (34,)),
    'dla': Family(pose_dla_dcn.get_pose_net, (34,)),
    'hourglass': Family(large_hourglass.get_large_hourglass_net),
}

ARCHS: tuple[str, ...] = tuple(
    f'{name}_{layers}' if layers else name for name, family in model_factory.items() for layers in family.layers or (0,)
)

FETCH_TIMEOUT = 15  # seconds without an answer
PUBLISHED_KEYS = ('epoch', 'state_dict', 'optimizer')
# Published dla checkpoints carry the ImageNet classifier, which their network does not have.
SILENTLY_DROPPED = {'base.fc.weight', 'base.fc.bias'}


# -- networks ---------------------------------------------------------------------------------------


def create_model(arch: str, heads: dict[str, int], head_conv: int, pretrained: str = 'none') -> CenterNet:
    """Build a network.

    Args:
        arch: one of `ARCHS`.
        heads: `{name: output channels}`; names that contain `hm` are heatmaps.
        head_conv: channels of each head's hidden convolution, 0 for none (hourglass: always 256).
        pretrained: how the trunk starts: 'none' (random), 'imagenet' (found in the torch.hub cache or fetched),
            or a file with weights for it (a checkpoint of the same family or a bare state dict).

    Raises:
        UserError: no such arch; the pretrained weights can't be fetched, read, or don't fit the trunk.
    """
    if arch not in ARCHS:
        raise UserError(f"--arch is one of {', '.join(ARCHS)}; found '{arch}'{did_you_mean(arch, ARCHS)}")
    name, _, layers = arch.partition('_')
    network = model_factory[name].builder(int(layers or 0), heads, head_conv)
    if pretrained == 'imagenet' and network.imagenet is None:
        print(f'{arch}: there are no ImageNet weights for its trunk, which starts from random ones')
    elif pretrained != 'none':
        path = fetch_weights(network.imagenet) if pretrained == 'imagenet' else pretrained
        load_trunk(network, path)
        print(f"{arch}: the trunk starts from '{path}'")
    return network


def fetch_weights(weights: ImageNetWeights) -> Path:
    """Path of the weights in the torch.hub cache, downloaded when they aren't there yet.

    Raises:
        UserError: they can't be fetched; names the file, where to put it and the way without.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', weights.file_name)
    if not path.exists():
        print(f'fetching {weights.url}')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with socket_timeout(FETCH_TIMEOUT):
                torch.hub.download_url_to_file(weights.url, str(path), weights.sha256_prefix)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise UserError(
                f'the ImageNet weights {weights.file_name} cannot be fetched from {weights.url} ({error}): put '
                f'that file at {path}, or start from random weights with --pretrained none'
            ) from None
    return path


@contextlib.contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """New connections within the block give up after `seconds` without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_trunk(network: CenterNet, path: str | os.PathLike) -> None:
    """Fill the network's trunk from a file, which may name its parameters without the trunk's own `base.`.

    Raises:
        UserError: the file can't be read (`load_checkpoint`), or lacks part of the trunk.
    """
    found = load_checkpoint(path)['state_dict']
    state, missing = {}, []
    for name, own in network.state_dict().items():
        if not name.startswith(network.trunk_prefixes):
            continue
        value = found.get(name, found.get(name.removeprefix('base.')))
        if value is not None and value.shape == own.shape:
            state[name] = value
        elif not (name.startswith(network.unused_prefixes) or is_counter(name)):
            missing.append(name)
    if missing:
        raise UserError(
            f"'{path}' does not fit the trunk of the network: {shorten(missing)} missing or of another shape; "
            f'give weights for the same --arch, or --pretrained none'
        )
    network.load_state_dict(state, strict=False)


def unwrap_model(model: nn.Module) -> nn.Module:
    """The network inside (Distributed)DataParallel and torch.compile, in whichever order they wrap it."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, '_orig_mod'):
            model = model._orig_mod
        else:
            return model


# -- checkpoints ------------------------------------------------------------------------------------


def save_model(
    path: str | os.PathLike, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **facts: Any
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file; missing folders are made.
        epoch: epochs that are done.
        model: the network, wrapped or not; its published parameter names are written.
        optimizer: its state is written, too, where one is given.
        facts: more keys: numbers, strings, tensors, None, and lists, tuples and dicts of these. NumPy arrays and
            numbers become lists and numbers, paths strings: nothing else can be read back without running code.

    Raises:
        TypeError: a fact is of another kind.
        UserError: the disk is full, or the like.
    """
    checkpoint = {name: plain(value, name) for name, value in facts.items()}
    checkpoint |= {'epoch': int(epoch), 'state_dict': unwrap_model(model).state_dict()}
    if optimizer is not None:
        checkpoint['optimizer'] = optimizer.state_dict()
    try:
        with atomic_path(path) as beside, open(beside, 'wb') as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer stumbles over what the file system said
        refusal = error.__context__
        if not isinstance(refusal, OSError):
            raise
        raise UserError(f"the checkpoint '{path}' cannot be written: {refusal.strerror}") from None


def plain(value: Any, name: str) -> Any:
    """`value` in types that weights-only loading accepts; `name` is for the TypeError."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key, name): plain(item, name) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(plain(item, name) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    raise TypeError(f"a checkpoint can't hold '{name}': {type(value).__name__} is not plain data")


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint, or a bare state dict, onto the CPU. Nothing in the file is executed.

    Returns:
        A dict with at least `epoch` (0 in a bare state dict) and `state_dict`, `{name: tensor}` without the
        `module.` that DataParallel puts before names; and whatever else the file holds. Tensors stay on the
        disk until they are read, where the format allows it.

    Raises:
        UserError: it is missing, no checkpoint, cut short, or holds code.
    """
    content = read_weights_only(path)
    if isinstance(content, dict) and 'state_dict' not in content and is_state_dict(content):
        content = {'state_dict': content}
    if not (isinstance(content, dict) and is_state_dict(content.get('state_dict'))):
        raise UserError(
            f"'{path}' is not a checkpoint: expected a dict with 'state_dict', {{name: tensor}}, found "
            + (f'the keys {shorten(content)}' if isinstance(content, dict) else f'a {type(content).__name__}')
        )
    state = {name.removeprefix('module.'): value for name, value in content['state_dict'].items()}
    return {'epoch': 0, **content, 'state_dict': state}


def is_state_dict(value: Any) -> bool:
    """Whether it is a dict of named tensors, and not empty."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(item, torch.Tensor) for name, item in value.items())
    )


def read_weights_only(path: str | os.PathLike) -> Any:
    """What a torch file holds; every way in which it can be unreadable becomes a `UserError`."""
    try:
        # Files of PyTorch before 1.6, as the published checkpoints are, are no zip archives and can't be mapped.
        mmap = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # about the pickle protocol of files that are refused anyhow
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"no such checkpoint: '{path}'") from None
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"'{path}' cannot be read as a checkpoint: {error.strerror}") from None
    except Exception as error:  # the bytes are a stranger's: the unpickler may fail in any way
        code = re.search(r'GLOBAL ([\w.]+)', str(error))
        if code:
            reason = f'it holds code ({code[1]}), which is not run; save weights and plain data only'
        else:
            reason = 'it is not a checkpoint, or was cut short; fetch or copy it again'
        raise UserError(f"'{path}' cannot be loaded: {reason}") from None


def checkpoint_facts(path: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint says about itself (task, arch, heads, class names, ...), without reading its weights.

    Everything but the published keys and what holds tensors (random states); {} for published checkpoints.

    Raises:
        UserError: as `load_checkpoint`.
    """
    checkpoint = load_checkpoint(path)
    return {name: value for name, value in checkpoint.items() if name not in PUBLISHED_KEYS and not holds_tensor(value)}


def holds_tensor(value: Any) -> bool:
    """Whether a tensor is in `value`, at any depth of its lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(holds_tensor(item) for item in value)
    return isinstance(value, torch.Tensor)


def load_model(
    model: nn.Module,
    path: str | os.PathLike,
    optimizer: torch.optim.Optimizer | None = None,
    resume: bool = False,
    lr: float | None = None,
    lr_step: Sequence[int] | None = None,
    strict: bool = False,
) -> nn.Module | tuple[nn.Module, torch.optim.Optimizer, int]:
    """Fill a network from a checkpoint, as far as it fits, and say what doesn't.

    Parameters of another shape and missing ones keep their values, unknown ones are dropped; each is named in
    one printed summary with the likely cause.

    Args:
        model: the network, wrapped or not; filled in place.
        path: the checkpoint, or a bare state dict.
        optimizer: of this model's parameters; with `resume` it gets the checkpoint's state where that fits.
        resume: go on after the checkpoint's epoch.
        lr: learning rate of the start; with `resume` the optimizer gets the rate that is due after the checkpoint's
            epoch (`set_learning_rate`). None keeps the optimizer's.
        lr_step: epochs after which the rate drops.
        strict: refuse a checkpoint that leaves parameters unfilled.

    Returns:
        The model, or (model, optimizer, epochs done: 0 without `resume`) when an optimizer is given.

    Raises:
        UserError: as `load_checkpoint`; nothing fits; or, with `strict`, something is left unfilled.
    """
    checkpoint = load_checkpoint(path)
    network = unwrap_model(model)
    fit = Fit(network, checkpoint)
    if all(is_counter(name) for name in fit.usable):
        raise UserError(f"nothing in '{path}' fits the network; likely cause: {fit.likely_cause()}")
    if strict and fit.unfilled:
        raise UserError(
            f"'{path}' leaves parameters of the network unfilled ({shorten(fit.unfilled)}); "
            f'likely cause: {fit.likely_cause()}'
        )
    network.load_state_dict(fit.usable, strict=False)
    print(f"loaded '{path}', epoch {checkpoint['epoch']}")
    if fit.unfilled or fit.unknown:
        print(fit.summary())
    if optimizer is None:
        return model
    if not resume:
        return model, optimizer, 0
    restore_optimizer(optimizer, checkpoint.get('optimizer'))
    if lr is not None:
        rate = set_learning_rate(optimizer, lr, lr_step or (), checkpoint['epoch'])
        print(f'going on after epoch {checkpoint["epoch"]} with a learning rate of {rate:g}')
    return model, optimizer, checkpoint['epoch']


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float, lr_step: Sequence[int], epoch: int) -> float:
    """Give the optimizer the rate for what follows after `epoch` epochs, and return it.

    It is `lr`, a tenth of it after the first of the epochs `lr_step`, a hundredth after the second, and so on.
    """
    rate = lr * 0.1 ** sum(step <= epoch for step in lr_step)
    for group in optimizer.param_groups:
        group['lr'] = rate
    return rate


class Fit:
    """How a checkpoint's tensors fit a network, by parameter name.

    Attributes:
        usable: `{name: tensor}` that fit.
        reshaped: `{name: (the checkpoint's shape, the network's)}`.
        missing: names that the checkpoint lacks.
        unknown: names that the network lacks.
    """

    def __init__(self, network: nn.Module, checkpoint: dict[str, Any]):
        own, found = network.state_dict(), checkpoint['state_dict']
        shared = [name for name in own if name in found]
        shapes = {name: (found[name].shape, own[name].shape) for name in shared}
        self.usable = {name: found[name] for name, (theirs, ours) in shapes.items() if theirs == ours}
        self.reshaped = {name: pair for name, pair in shapes.items() if name not in self.usable}
        self.missing = [name for name in own if name not in found and not is_counter(name)]
        self.unknown = [name for name in found if name not in own and name not in SILENTLY_DROPPED]
        self.unfilled = [*self.reshaped, *self.missing]
        self.heads = set(getattr(network, 'heads', ()))
        self.arch = checkpoint.get('arch')

    def summary(self) -> str:
        """Names every parameter that doesn't fit, one line a kind, and the likely cause."""
        reshaped = [f'{name} {list(theirs)} -> {list(ours)}' for name, (theirs, ours) in self.reshaped.items()]
        kinds = {
            'of another shape, kept at their initial values': reshaped,
            'missing in the file, kept at their initial values': self.missing,
            'unknown to the network, dropped': self.unknown,
        }
        lines = [f'  {len(names)} {kind}: {", ".join(names)}' for kind, names in kinds.items() if names]
        return '\n'.join(['the checkpoint fits in part:', *lines, f'  likely cause: {self.likely_cause()}'])

    def likely_cause(self) -> str:
        """The options that would explain why parameters don't fit."""
        if any(head_of(name) not in self.heads for name in self.unfilled):
            return 'another --arch' + (f' (the file is of {self.arch})' if self.arch else '')
        causes = {}  # a dict for its order
        for theirs, ours in self.reshaped.values():
            if len(ours) == 4 and ours[2:] == (1, 1):  # a head's last convolution, [channels, head_conv, 1, 1]
                if theirs[0] != ours[0]:
                    causes['another --dataset (number of classes or joints)'] = True
                if theirs[1:] != ours[1:]:
                    causes['another --head_conv'] = True
        missing, unknown = ({head_of(name) for name in names} for names in (self.missing, self.unknown))
        if missing & unknown:
            causes['another --head_conv'] = True
        if missing ^ unknown:
            causes['another task, or other options about its heads'] = True
        return ', '.join(causes) or 'another --arch'


def head_of(name: str) -> str:
    """The head that a parameter of this name would belong to."""
    return name.partition('.')[0]


def is_counter(name: str) -> bool:
    """Whether it is a batch norm's count of batches, which nothing reads and old files lack."""
    return name.endswith('.num_batches_tracked')


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Give the optimizer a checkpoint's state, or say that there is none or that it doesn't fit."""
    if state is None:
        print('the checkpoint has no optimizer state: the optimizer starts anew')
    elif not optimizer_state_fits(optimizer, state):
        print("the checkpoint's optimizer state is of other parameters and left out: the optimizer starts anew")
    else:
        # A copy: the optimizer keeps the tensors that it is given, and these lie in a file that may be overwritten.
        optimizer.load_state_dict(copy.deepcopy(state))


def optimizer_state_fits(optimizer: torch.optim.Optimizer, state: Any) -> bool:
    """Whether a saved optimizer state is of as many parameters, in the same groups, with the same shapes."""
    if not (isinstance(state, dict) and {'state', 'param_groups'} <= state.keys()):
        return False
    own, saved = ([group['params'] for group in groups] for groups in (optimizer.param_groups, state['param_groups']))
    if [len(group) for group in own] != [len(group) for group in saved]:
        return False
    return all(
        value.shape in ((), parameter.shape)  # () is a count of steps
        for parameter, index in zip(chain(*own), chain(*saved), strict=True)
        for value in state['state'].get(index, {}).values()
        if isinstance(value, torch.Tensor)
    )


def shorten(names: Any, limit: int = 3) -> str:
    """The first names, and how many more there are."""
    names = [str(name) for name in names]
    rest = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + rest
