"""Layers that take the place of a network's own for inference in float32 on the CPU."""

import operator
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import TypeGuard

import torch
from torch import fx, nn

from .networks import dcn
from .networks.common import bias_of
from .networks.native_dcn import as_matrix, convolve
from .panels import to_panels
from .winograd import WinogradConv2d, is_plain, suits

MOST_HIDDEN = 64  # channels of the heads that are joined: wider ones fill the processor each on its own


class FastDCN(nn.Module):
    """A deformable convolution whose sigmoid, bias and ReLU are part of our kernel; without gradients.

    Args:
        layer: float32 on the CPU, for our own backend.

    Attributes:
        look: the convolution that gives offsets and modulations.
        relu: negative values become 0.
    """

    panels: torch.Tensor
    bias: torch.Tensor

    def __init__(self, layer: dcn.DCN):
        super().__init__()
        self.look: nn.Module = layer.conv_offset_mask
        self.split, self.relu = layer.split, False
        self.geometry = (layer.weight.shape[-1], layer.stride, layer.padding, layer.dilation)
        self.register_buffer('panels', to_panels(as_matrix(layer.weight.detach()).t()))  # [panels, k * k * in, 16]
        self.register_buffer('bias', layer.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps float32 [B, in, H, W] -> [B, out, h, w], channels-last in memory."""
        offset, mask = self.look(x).split(self.split, dim=1)  # [B, 2Gkk, h, w], [B, Gkk, h, w] before its sigmoid
        pixels = x.permute(0, 2, 3, 1).contiguous()  # [B, H, W, in]
        out = convolve(pixels, offset, mask, self.panels, self.bias, self.geometry, sigmoid=True, relu=self.relu)
        return out.permute(0, 3, 1, 2)


class JoinedHeads(nn.Module):
    """Heads that read the same maps, with one 3 x 3 convolution for all of them; each has its own 1 x 1 convolution.

    Args:
        hidden: the 3 x 3 convolutions, each followed by a ReLU.
        last: the 1 x 1 convolution of each head.
    """

    def __init__(self, hidden: Sequence[nn.Conv2d], last: Sequence[nn.Conv2d]):
        super().__init__()
        self.widths = [conv.out_channels for conv in hidden]
        joined = nn.Conv2d(hidden[0].in_channels, sum(self.widths), 3, padding=1)
        with torch.no_grad():
            joined.weight.copy_(torch.cat([conv.weight for conv in hidden]))
            bias_of(joined).copy_(torch.cat([bias_of(conv) for conv in hidden]))
        self.hidden: nn.Module = joined.requires_grad_(False).to(memory_format=torch.channels_last)
        self.relu: nn.Module = nn.ReLU(inplace=True)
        self.last = nn.ModuleList(last)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps [B, in, h, w] -> those of each head, [B, c, h, w], channels-last in memory."""
        hidden = self.relu(self.hidden(x)).permute(0, 2, 3, 1)  # [B, h, w, hidden channels of all heads]
        parts = hidden.flatten(0, 2).split(self.widths, dim=1)  # [B * h * w, hidden channels]
        maps = []
        for conv, part in zip(self.last, parts, strict=True):
            assert isinstance(conv, nn.Conv2d)
            # A product of matrices takes the part of each row as it lies; a convolution would copy it first.
            values = torch.addmm(bias_of(conv), part, conv.weight.flatten(1).t())  # [B * h * w, c]
            maps.append(values.view(*hidden.shape[:3], -1).permute(0, 3, 1, 2))
        return maps


def use_fast_layers(model: nn.Module, winograd: Collection[str] | None = None) -> nn.Module:
    """Replace layers of a model for inference in float32 on the CPU by faster ones, in place; returns the model.

    Args:
        model: with joined heads, where they are to be joined.
        winograd: names of the convolutions to do by Winograd's algorithm; None for those that `suits` names.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if runs_on_kernel(child):
                setattr(module, name, FastDCN(child))
    for prefix, module in list(model.named_modules()):
        for name, child in module.named_children():
            full = f'{prefix}.{name}'.lstrip('.')
            if is_plain(child) and (suits(child) if winograd is None else full in winograd):
                setattr(module, name, WinogradConv2d(child))
        if isinstance(module, JoinedHeads) and isinstance(module.hidden, WinogradConv2d):
            module.hidden.relu, module.relu = True, nn.Identity()
    if isinstance(model, fx.GraphModule):
        take_in_relu(model)
    return model


def runs_on_kernel(layer: nn.Module) -> TypeGuard[dcn.DCN]:
    """Return whether a layer is a deformable convolution that our compiled kernel does in float32."""
    return (
        isinstance(layer, dcn.DCN)
        and layer.backend != 'torchvision'
        and dcn.IS_COMPILED
        and layer.weight.dtype == torch.float32
    )


def called_modules(model: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    """Return the module that each step of a graph calls, for the steps that call one."""
    return {node: model.get_submodule(str(node.target)) for node in model.graph.nodes if node.op == 'call_module'}


def take_in_relu(model: fx.GraphModule) -> None:
    """Let fast layers apply the ReLU that follows them, in place, where nothing else reads what they give."""
    modules = called_modules(model)
    calls = Counter(modules.values())
    for node, relu in modules.items():
        source = node.all_input_nodes[0]
        layer = modules.get(source)
        if not isinstance(layer, (FastDCN, WinogradConv2d)):
            continue
        if type(relu) is nn.ReLU and len(source.users) == calls[layer] == 1:
            layer.relu = True
            node.replace_all_uses_with(source)
            model.graph.erase_node(node)
    model.recompile()


def join_heads(model: fx.GraphModule) -> None:
    """Join the heads of no more than `MOST_HIDDEN` hidden channels that read the same maps, in place."""
    modules = called_modules(model)
    calls = Counter(modules.values())
    heads: dict[fx.Node, list[list[fx.Node]]] = defaultdict(list)  # the maps, then each head's three steps
    for last in modules:
        steps = [last]
        while len(steps) < 3 and len(steps[0].all_input_nodes) == 1:
            steps.insert(0, steps[0].all_input_nodes[0])
        if is_small_head([modules.get(step) for step in steps]) and all(
            len(step.users) == 1 and calls[modules[step]] <= 1 for step in steps[:-1]
        ):
            heads[steps[0].all_input_nodes[0]].append(steps)
    for number, group in enumerate(group for group in heads.values() if len(group) > 1):
        name = f'joined_{number}'
        hidden, _, last_convs = zip(*([modules[step] for step in steps] for steps in group), strict=True)
        model.add_submodule(name, JoinedHeads(hidden, last_convs))
        with model.graph.inserting_before(group[0][0]):
            joined = model.graph.call_module(name, (group[0][0].args[0],))
        for position, steps in enumerate(group):
            with model.graph.inserting_before(steps[-1]):
                maps = model.graph.call_function(operator.getitem, (joined, position))
            steps[-1].replace_all_uses_with(maps)
            for step in reversed(steps):
                model.graph.erase_node(step)
    model.delete_all_unused_submodules()
    model.recompile()


def is_small_head(layers: Sequence[nn.Module | None]) -> bool:
    """Return whether layers are those of a head that may be joined: 3 x 3 convolution, ReLU, 1 x 1 convolution."""
    if len(layers) != 3:
        return False
    hidden, relu, last = layers
    return (
        is_plain(hidden)  # type: ignore[arg-type]
        and hidden.out_channels <= MOST_HIDDEN
        and hidden.bias is not None
        and type(relu) is nn.ReLU
        and type(last) is nn.Conv2d
        and last.kernel_size == last.stride == last.dilation == (1, 1)
        and last.padding == (0, 0)
        and last.groups == 1
        and last.bias is not None
    )
