"""The network families: how each is built, and the facts about it that are known without building it.

Importing this module does not import torch.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..utils.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from .networks.common import CenterNet


@dataclass(frozen=True)
class Family:
    """A network family.

    Attributes:
        module: its file in `networks/`.
        builder: the function there that builds it, `builder(num_layers, heads, head_conv)`.
        layers: the depths it comes in; empty when there is one only, which its archs' names then leave out.
        side_multiple: the input's height and width must be multiples of it.
        stacks: outputs that it gives, one after another, each with heads of its own.
        default_head_conv: channels of the heads' hidden convolution where `--head_conv` is not given.
        fixed_head_conv: the same where it cannot be chosen, else None.
        deformable: whether it has deformable convolutions.
    """

    module: str
    builder: str
    layers: tuple[int, ...] = ()
    side_multiple: int = 32
    stacks: int = 1
    default_head_conv: int = 64
    fixed_head_conv: int | None = None
    deformable: bool = False

    def build(self, num_layers: int, heads: dict[str, int], head_conv: int) -> 'CenterNet':
        """Build a network with `heads` `{name: channels}` behind `head_conv` channels."""
        module = importlib.import_module(f'.networks.{self.module}', __package__)
        return getattr(module, self.builder)(num_layers, heads, head_conv)


RESNET_LAYERS = (18, 34, 50, 101, 152)

model_factory: dict[str, Family] = {
    'res': Family('msra_resnet', 'get_pose_net', RESNET_LAYERS),
    'resdcn': Family('resnet_dcn', 'get_pose_net', RESNET_LAYERS, deformable=True),
    'dlav0': Family('dlav0', 'get_pose_net', (34,), default_head_conv=256),
    'dla': Family('pose_dla_dcn', 'get_pose_net', (34,), default_head_conv=256, deformable=True),
    'hourglass': Family(
        'large_hourglass',
        'get_large_hourglass_net',
        side_multiple=128,
        stacks=2,
        default_head_conv=256,
        fixed_head_conv=256,
    ),
}


def archs_of(name: str) -> list[str]:
    """Return the archs of the family called `name`, such as `res_18`, in the order of their layers."""
    return [f'{name}_{layers}' for layers in model_factory[name].layers] or [name]


ARCHS: tuple[str, ...] = tuple(arch for name in model_factory for arch in archs_of(name))


def family_of(arch: str) -> Family:
    """Return the family of an arch.

    Raises:
        UserError: there is no such arch; names those that there are.
    """
    return model_factory[split_arch(arch)[0]]


def split_arch(arch: str) -> tuple[str, int]:
    """Return an arch as the name of its family and its number of layers (0 where the name has none).

    Raises:
        UserError: there is no such arch; names those that there are.
    """
    if arch not in ARCHS:
        raise UserError(f"--arch is one of {', '.join(ARCHS)}; found '{arch}'{did_you_mean(arch, ARCHS)}")
    name, _, layers = arch.partition('_')
    return name, int(layers or 0)
