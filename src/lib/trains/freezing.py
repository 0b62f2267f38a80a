"""Training a part of a network while the rest stays as it is (`--freeze`)."""

from collections.abc import Callable
from typing import cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..models.checkpoints import unwrap_model
from ..models.networks.common import CenterNet
from ..models.recognition import head_of

# Of each choice, whether a parameter of that name stays as it is.
FREEZES: dict[str, Callable[[CenterNet, str], bool]] = {
    'none': lambda network, name: False,
    'backbone': lambda network, name: name.startswith(network.backbone_prefixes),
    'all-but-heads': lambda network, name: head_of(name) not in network.heads,
}


def freeze(model: nn.Module, choice: str) -> list[nn.Module]:
    """Switch off the gradients of a part of a network.

    Args:
        model: a CenterNet, wrapped or not.
        choice: a key of `FREEZES`.

    Returns:
        The batch norms of that part, which must be in evaluation mode for their statistics to stay as well.
    """
    network, frozen = cast(CenterNet, unwrap_model(model)), FREEZES[choice]
    for name, parameter in network.named_parameters():
        if frozen(network, name):
            parameter.requires_grad_(False)
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and frozen(network, f'{name}.')
    ]
