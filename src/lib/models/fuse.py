"""A trained network made fast for inference: batch norms folded away, unused outputs dropped, channels last."""

import copy
import logging
from collections import Counter
from collections.abc import Collection
from operator import is_

import torch
from torch import fx, nn

from ..utils.device import cpu_has_bfloat16, module_to_channels_last
from ..utils.precision import check_computes_in
from .fast_layers import join_heads, use_fast_layers
from .networks.common import check_sides
from .networks.dcn import DCN

log = logging.getLogger(__name__)

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
MOST_FOLDED = 1 << 19  # weights of a convolution: larger are not copied, and their norms are quick on their small maps
SAMPLE = 8  # values of each tensor that are compared to see whether it has changed


class FastNetwork:
    """Runs the last stack of a CenterNet through a copy of it that is fast.

    The copy has no batch norms but after large layers, does nothing that the last stack's heads do not need, holds
    its weights channels-last in `dtype`, and has faster layers where there are such (float32 on the CPU: see
    `fast_layers`). It is made at the first call, and again when the network's weights have changed.
    The network itself stays as it is; if it is channels-last, too, the copy shares with it what is the same.

    Args:
        dtype: float32 or bfloat16.
        winograd: names of the convolutions that Winograd's algorithm does (`winograd_choice`); None for those that are
            small enough and wide enough.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, winograd: Collection[str] | None = None):
        self.dtype, self.winograd = dtype, winograd
        self.weights: Weights | None = None
        self.copy: nn.Module = nn.Identity()  # until the first call

    def __call__(self, network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images [B, 3, H, W] -> raw outputs of the last stack, {head: float32 [B, c, h, w]}.

        They stay channels-last in memory as the network leaves them: laying out a heatmap anew takes longer than its
        decoding.
        """
        if self.weights is None or not self.weights.are_those_of(network):
            if images.device.type == 'cpu' and self.dtype == torch.float32:
                copied = use_fast_layers(fast_cpu_copy(network, self.winograd or ()), self.winograd)
            else:
                copied = module_to_channels_last(fast_copy(network), dtype=self.dtype)
                if images.device.type == 'cpu':
                    widen_grouped_up_sampling(copied)
            self.copy, self.weights = copied, Weights(network)
        with torch.inference_mode():
            output = self.copy(images.to(self.dtype, memory_format=torch.channels_last))
            return {head: maps.float() for head, maps in output.items()}


class LastStack(nn.Module):
    """A CenterNet whose output is that of its last stack alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images [B, 3, H, W] -> {head: [B, c, h, w]}."""
        return self.network(images)[-1]


class Weights:
    """A record of a network's weights (and backends of deformable convolutions), to see later whether they changed.

    Tensors that were exchanged or written to in place are seen; so are writes past PyTorch's books (through
    `.data`), as long as they reach the beginning of a tensor.
    """

    def __init__(self, network: nn.Module):
        self.backends = backends_of(network)
        self.tensors = weights_of(network)
        self.marks = [mark(tensor) for tensor in self.tensors]
        self.beginnings = [beginning(tensor) for tensor in self.tensors]
        self.values = torch.cat(self.beginnings)

    def are_those_of(self, network: nn.Module) -> bool:
        """Return whether nothing has changed, in this network or by being another one."""
        tensors = weights_of(network)
        return (
            self.backends == backends_of(network)
            and len(tensors) == len(self.tensors)
            and all(map(is_, tensors, self.tensors))
            and [mark(tensor) for tensor in tensors] == self.marks  # so that the beginnings are still theirs
            and torch.equal(torch.cat(self.beginnings), self.values)
        )


def weights_of(network: nn.Module) -> list[torch.Tensor]:
    """Return all parameters and buffers [...], but for the batch norms' counters."""
    return [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]


def backends_of(network: nn.Module) -> list[str]:
    """Return the backend of each deformable convolution."""
    return [module.backend for module in network.modules() if isinstance(module, DCN)]


def mark(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the address of a tensor [...], and how often it was written to."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def beginning(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view [n] of the first few values of a tensor [...], as they lie in memory."""
    return tensor.detach().as_strided((min(SAMPLE, tensor.numel()),), (1,))


def fast_cpu_copy(network: nn.Module, folded: Collection[str] = ()) -> nn.Module:
    """Copy a CenterNet for inference in float32 on the CPU, with joined heads; its layers are still torch's.

    Args:
        network, folded: as `fast_copy` takes them.

    Returns:
        as `fast_copy`.
    """
    copied = module_to_channels_last(fast_copy(network, folded=folded), dtype=torch.float32)
    if isinstance(copied, fx.GraphModule):
        join_heads(copied)
    return copied


def fast_copy(network: nn.Module, folds_all: bool = False, folded: Collection[str] = ()) -> nn.Module:
    """Copy a CenterNet for inference.

    A network whose `forward` cannot be traced keeps its batch norms and its spare outputs; a note says so.

    Args:
        network: the CenterNet.
        folds_all, folded: as `fold_graph` takes them.

    Returns:
        a module, images [B, 3, H, W] -> {head: [B, c, h, w]} of the last stack.
    """
    model = shared_copy(LastStack(network)).eval()
    try:
        graph = Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:  # its `forward` asks for values that are not there
        reason = str(error).partition('\n')[0]
        log.info(f'note: {type(network).__name__} runs as it is, batch norms and all: it cannot be traced ({reason})')
        return model
    return fold_graph(model, graph, folds_all, folded)


def shared_copy(model: nn.Module) -> nn.Module:
    """Copy a model so that its tensors are its own, but lie in the same memory; without gradients."""
    tensors: dict[int, torch.Tensor] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()
    }
    tensors |= {id(b): b.detach() for b in model.buffers()}
    return copy.deepcopy(model, tensors)


def fold_batch_norm(model: nn.Module) -> fx.GraphModule:
    """Copy `model` for evaluation without the batch norms that follow transposed or deformable convolutions, or others
    of no more than `MOST_FOLDED` weights.

    At evaluation batch norm is one affine map a channel, y = (x - mean) / sqrt(var + eps) * weight + bias: scale
    and shift go into the weight and bias of the convolution (plain, transposed or deformable) before it, where
    nothing else reads that convolution's output. Steps that no output depends on are left out, too.

    Args:
        model: any module that torch.fx can trace; it is left untouched.

    Returns:
        a module with the same outputs, to rounding, and without gradients; the tensors that are not folded share
        their memory with the model's.
    """
    model = shared_copy(model).eval()
    return fold_graph(model, Tracer().trace(model))


@torch.no_grad()
def fold_graph(
    model: nn.Module, graph: fx.Graph, folds_all: bool = False, folded: Collection[str] = ()
) -> fx.GraphModule:
    """Fold the batch norms of a model at evaluation and its graph, both in place; see `fold_batch_norm`.

    Args:
        model, graph: the model, and its graph by `Tracer`.
        folds_all: fold the norms after convolutions of more than `MOST_FOLDED` weights, too.
        folded: names of such convolutions whose norms are folded in any case: their weights will be made anew.
    """
    graph.eliminate_dead_code(is_impure_node=acts)
    modules = {node: model.get_submodule(node.target) for node in graph.nodes if node.op == 'call_module'}
    calls = Counter(modules.values())
    for node, norm in modules.items():
        conv = modules.get(node.args[0])
        if (
            isinstance(norm, nn.BatchNorm2d)
            and norm.running_mean is not None  # without it, statistics are the batch's also at evaluation
            and isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d, DCN))
            and (
                folds_all
                or conv.weight.numel() <= MOST_FOLDED
                or isinstance(conv, (nn.ConvTranspose2d, DCN))
                or node.args[0].target in folded
            )
            and len(node.args[0].users) == calls[conv] == 1
        ):
            fold(conv, norm)
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return fx.GraphModule(model, graph)


def acts(node: fx.Node) -> bool:
    """Return whether a step of a graph is needed also when no other step reads it."""
    return node.op in ('placeholder', 'output') or node.target is check_sides


class Tracer(fx.Tracer):
    """Takes a deformable convolution as one step, and the check of the input's size as it is."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(check_sides,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, DCN) or super().is_leaf_module(m, module_qualified_name)


def fold(conv: nn.Conv2d | nn.ConvTranspose2d | DCN, norm: nn.BatchNorm2d) -> None:
    """Give `conv` the weight and bias with which it does what `norm` does after it, in place."""
    mean, var = norm.running_mean, norm.running_var  # [out]
    assert mean is not None and var is not None  # `folds` asks for statistics
    scale = (var.double() + norm.eps).rsqrt()  # [out]
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean if conv.bias is None else conv.bias - mean  # [out]
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias
    dtype = conv.weight.dtype
    scale, bias = scale.to(dtype), bias.to(dtype)
    if isinstance(conv, nn.ConvTranspose2d):  # weight [in, out / groups, k, k], groups one after another
        by_group = conv.weight.unflatten(0, (conv.groups, -1)) * scale.view(conv.groups, 1, -1, 1, 1)
        weight = by_group.flatten(0, 1)
    else:  # weight [out, in / groups, k, k]
        weight = conv.weight * scale.view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)


class InFloat32(nn.Module):
    """A layer that computes in float32 whatever the type of its input, and answers in that type."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer.float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, in, H, W] -> [B, out, h, w], in the type of `x`."""
        return self.layer(x.float()).to(x.dtype)


def widen_grouped_up_sampling(model: nn.Module) -> None:
    """Let grouped transposed convolutions compute in float32, in place: bfloat16 is ten times slower there."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ConvTranspose2d) and child.groups > 1 and not isinstance(module, InFloat32):
                setattr(module, name, InFloat32(child))


def network_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type of `--dtype` for a network on `device`; a CPU without bfloat16 gets float32, with a note.

    Raises:
        UserError: the GPU does not compute in it.
    """
    dtype = DTYPES[name]
    if dtype == torch.bfloat16:
        check_computes_in(name, device, '--dtype')
        if device.type == 'cpu' and not cpu_has_bfloat16():
            log.info('note: this processor has no bfloat16 instructions: the network runs in float32, which is faster')
            return torch.float32
    return dtype
