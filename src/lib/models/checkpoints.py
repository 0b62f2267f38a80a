"""Checkpoints: saving a network with its facts, and filling one from a file, as far as it fits."""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ..utils.errors import UserError
from ..utils.files import atomic_path
from ..utils.schedule import set_learning_rate
from .checkpoint_files import is_dense, is_state_dict, load_checkpoint, published_state, read_checkpoint
from .exported import exported_facts, is_exported
from .facts import check_facts, shorten
from .families import family_of
from .recognition import head_of, infer_facts, is_counter

logger = logging.getLogger(__name__)

NETWORK_FACTS = ('arch', 'heads', 'head_conv', 'task')
# Published dla checkpoints carry the ImageNet classifier, which their network does not have.
SILENTLY_DROPPED = {'base.fc.weight', 'base.fc.bias'}
RAW_WEIGHTS = 'raw_state_dict'  # key of the weights as they are trained, where `state_dict` is their average
ADAM_STATE = ('step', 'exp_avg', 'exp_avg_sq')


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the network inside (Distributed)DataParallel and torch.compile, in whichever order they wrap it."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif hasattr(model, '_orig_mod'):
            model = cast(nn.Module, model._orig_mod)
        else:
            return model


# -- saving -----------------------------------------------------------------------------------------


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
    write_checkpoint(path, checkpoint)


def write_checkpoint(path: str | os.PathLike, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint that is ready, whole or not at all.

    Raises:
        UserError: the disk is full, or the like.
    """
    try:
        with atomic_path(path) as beside, open(beside, 'wb') as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer stumbles over what the file system said
        refusal = error.__context__
        if not isinstance(refusal, OSError):
            raise
        raise UserError(f"the checkpoint '{path}' cannot be written: {refusal.strerror}") from None


def plain(value: Any, name: str) -> Any:
    """Return `value` in types that weights-only loading accepts; `name` is for the TypeError."""
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


# -- facts ------------------------------------------------------------------------------------------


def checkpoint_facts(path: str | os.PathLike) -> dict[str, Any]:
    """Return the facts about a checkpoint: those that it records, and those that its parameters show.

    The values of the weights are not read, but for files of PyTorch before 1.6, which can only be read whole; those
    are kept until they are loaded.

    An exported file's facts are those that it records.

    Returns:
        The recorded ones of `facts.FACTS` but the epoch, each of its type; keys that are no facts are left out. Where
        arch, heads, head_conv or task is not recorded, what `infer_facts` finds is added. A width of the heads that
        the arch fixes replaces a recorded one (old hourglass checkpoints record one that did not act).

    Raises:
        UserError: as `load_checkpoint`; a recorded fact is of another type or size than it can be.
    """
    if is_exported(path):
        return exported_facts(path)
    checkpoint = read_checkpoint(path, verify=False)
    facts = check_facts(path, checkpoint)
    if any(name not in facts for name in NETWORK_FACTS):
        facts = infer_facts(checkpoint['state_dict']) | facts
    if 'arch' in facts:
        fixed = family_of(facts['arch']).fixed_head_conv
        if fixed is not None:
            facts['head_conv'] = fixed
    return facts


# -- loading ----------------------------------------------------------------------------------------


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
    one summary with the likely cause.

    Args:
        model: the network, wrapped or not; filled in place.
        path: the checkpoint, or a bare state dict.
        optimizer: of this model's parameters; with `resume` it gets the checkpoint's state where that fits.
        resume: go on after the checkpoint's epoch, with the weights as they were trained where the checkpoint holds
            their average (`--ema`).
        lr: learning rate of the start; with `resume` the optimizer gets the rate that is due after the checkpoint's
            epoch (`set_learning_rate`). None keeps the optimizer's own.
        lr_step: epochs after which the rate drops.
        strict: refuse a checkpoint that leaves parameters unfilled.

    Returns:
        The model, or (model, optimizer, epochs done: 0 without `resume`) when an optimizer is given.

    Raises:
        UserError: as `load_checkpoint`; nothing fits; a value is not finite or a variance negative; or, with
            `strict`, something is left unfilled.
    """
    checkpoint = load_checkpoint(path)
    if resume and is_state_dict(checkpoint.get(RAW_WEIGHTS)):
        checkpoint['state_dict'] = published_state(path, checkpoint[RAW_WEIGHTS])
    network = unwrap_model(model)
    fit = Fit(network, checkpoint)
    if all(is_counter(name) for name in fit.usable):
        raise UserError(f"nothing in '{path}' fits the network; likely cause: {fit.likely_cause()}")
    if strict and fit.unfilled:
        raise UserError(
            f"'{path}' leaves parameters of the network unfilled ({shorten(fit.unfilled)}); "
            f'likely cause: {fit.likely_cause()}'
        )
    check_values(fit.usable, path)
    network.load_state_dict(fit.usable, strict=False)
    logger.info("loaded '%s', epoch %d", path, checkpoint['epoch'])
    if fit.unfilled or fit.unknown:
        logger.warning(fit.summary())
    if optimizer is None:
        return model
    if not resume:
        return model, optimizer, 0
    restore_optimizer(optimizer, checkpoint.get('optimizer'))
    if lr is not None:
        rate = set_learning_rate(optimizer, lr, lr_step or (), checkpoint['epoch'])
        logger.info('going on after epoch %d with a learning rate of %g', checkpoint['epoch'], rate)
    return model, optimizer, checkpoint['epoch']


def check_values(state: Mapping[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Check that a network can compute with the tensors `{name: tensor [...]}` that it is to get from `path`.

    Raises:
        UserError: a value is NaN or infinite (in float32), or a running variance is negative; names the parameter.
    """
    for name, value in state.items():
        value = value.detach().float()
        if not torch.isfinite(value).all():
            found = 'NaN' if value.isnan().any() else 'infinite values'
        elif name.endswith('running_var') and (value < 0).any():
            found = 'negative variances'
        else:
            continue
        raise UserError(f"'{path}' cannot be used: its parameter '{name}' holds {found}; load an earlier checkpoint")


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
        """Name every parameter that doesn't fit, one line a kind, and the likely cause."""
        reshaped = [f'{name} {list(theirs)} -> {list(ours)}' for name, (theirs, ours) in self.reshaped.items()]
        kinds = {
            'of another shape, kept at their initial values': reshaped,
            'missing in the file, kept at their initial values': self.missing,
            'unknown to the network, dropped': self.unknown,
        }
        lines = [f'  {len(names)} {kind}: {", ".join(names)}' for kind, names in kinds.items() if names]
        return '\n'.join(['the checkpoint fits in part:', *lines, f'  likely cause: {self.likely_cause()}'])

    def likely_cause(self) -> str:
        """Return the options that would explain why parameters don't fit."""
        if any(head_of(name) not in self.heads for name in self.unfilled):
            return 'another --arch' + (f' (the file is of {shorten([self.arch])})' if self.arch else '')
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


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Give the optimizer a checkpoint's state, or say that there is none or why it doesn't fit.

    The options of its groups (learning rate, betas, ...) stay the optimizer's own.
    """
    if saved is None:
        logger.info('the checkpoint has no optimizer state: the optimizer starts anew')
        return
    misfit = optimizer_misfit(optimizer, saved)
    if misfit:
        logger.warning("the checkpoint's optimizer state is left out (%s): the optimizer starts anew", misfit)
        return
    own, indices = optimizer.state_dict()['param_groups'], [group['params'] for group in saved['param_groups']]
    groups = [{**group, 'params': numbers} for group, numbers in zip(own, indices, strict=True)]
    parameters = chain.from_iterable(group['params'] for group in optimizer.param_groups)
    state = {
        index: copy_state(saved['state'][index], parameter)
        for index, parameter in zip(chain(*indices), parameters, strict=True)
        if index in saved['state']
    }
    optimizer.load_state_dict({'state': state, 'param_groups': groups})


def copy_state(saved: Mapping[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
    """Copy the optimizer's state of a parameter [...] into tensors that lie in memory as the parameter does.

    The optimizer keeps what it is given, and the saved tensors lie in a file that may be overwritten. In other files
    they are views of one another or of a single value, which cannot be written to, or have other strides than the
    parameter, which a fused optimizer does not look at.
    """
    copied = copy.deepcopy(dict(saved))
    for name, value in saved.items():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            own = torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False)
            copied[name] = own.copy_(value.detach())
    return copied


def optimizer_misfit(optimizer: torch.optim.Optimizer, saved: Any) -> str:
    """Return the reason why a saved optimizer state is not one of this optimizer's parameters; '' when it is.

    A fused optimizer goes by memory: a state of another shape makes it write where it should not.
    """
    if not (isinstance(saved, dict) and isinstance(saved.get('state'), dict)):
        return "expected a dict with 'state' and 'param_groups'"
    groups = saved.get('param_groups')
    if not (isinstance(groups, list) and all(isinstance(group, dict) for group in groups)):
        return 'its param_groups are not a list of dicts'
    indices = [group.get('params') for group in groups]
    if not all(isinstance(each, list) and all(type(index) is int for index in each) for each in indices):
        return 'its groups do not list parameters by number'
    own = [group['params'] for group in optimizer.param_groups]
    if [len(group) for group in own] != [len(group) for group in indices]:
        return f'it is of {sum(map(len, indices))} parameters, the network has {sum(map(len, own))}'
    if len(set(chain(*indices))) < sum(map(len, own)):
        return 'it lists a parameter twice'
    for parameter, index in zip(chain(*own), chain(*indices), strict=True):
        if index in saved['state']:
            misfit = parameter_misfit(optimizer, parameter, saved['state'][index])
            if misfit:
                return f'parameter {index}: {misfit}'
    return ''


def parameter_misfit(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, saved: Any) -> str:
    """Return the reason why `saved` is not the optimizer's state of a parameter [...]; '' when it is."""
    if not isinstance(saved, dict):
        return 'its state is not a dict'
    if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) and not set(ADAM_STATE) <= saved.keys():
        return f'its state lacks {shorten(name for name in ADAM_STATE if name not in saved)}'
    for name, value in saved.items():
        if value is None:
            continue
        shape = () if name == 'step' else tuple(parameter.shape)
        if name == 'step' and isinstance(value, (int, float)):
            value = torch.tensor(float(value)) if abs(value) < 1e30 else None
        if not (is_dense(value) and value.is_floating_point()):
            return f'{shorten([name])} is not a tensor of numbers'
        if tuple(value.shape) != shape:
            return f'{shorten([name])} has the shape {list(value.shape)}, not {list(shape)}'
        if not torch.isfinite(value).all() or (name in ('step', 'exp_avg_sq') and (value < 0).any()):
            return f'{shorten([name])} holds values that are not finite, or negative'
    return ''
