"""Mixed precision (`--amp`): the network computes in a shorter type under autocast; weights and losses are float32."""

import contextlib
import copy
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from ..models.utils import Output
from ..utils.device import module_to_channels_last
from ..utils.errors import UserError
from ..utils.precision import check_computes_in, faster_dtype

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

FLOAT32 = 'float32'
SHORT = {'bfloat16': torch.bfloat16, 'float16': torch.float16}
LEAST_SCALE = 1e-3  # of the loss: gradients that overflow at it overflow at any
MEASURED_IMAGES = 2  # the fewest that a batch norm of one cell can be trained on


class Precision:
    """The number type that a trainer's network computes in.

    Args:
        name: float32, bfloat16 or float16.
        device_type: cpu or cuda, where the network runs.
        learns: gradients are computed, too.

    Attributes:
        scaler: scales the loss of float16, whose small gradients would be zero; for other types it does nothing. A step
            whose gradients overflow is skipped, and the scale halved.
    """

    def __init__(self, name: str = FLOAT32, device_type: str = 'cpu', learns: bool = False):
        self.name, self.device_type = name, device_type
        self.scaler = GradScaler(device_type, enabled=learns and name == 'float16')

    def run(self, network: nn.Module, images: torch.Tensor) -> list[Output]:
        """Run a network on images [B, 3, H, W]; returns its raw outputs `{head: float32 [B, c, h, w]}`, one a stack."""
        if self.name == FLOAT32:
            return network(images)
        with torch.autocast(self.device_type, SHORT[self.name]):
            outputs = network(images)
        return [{head: maps.float() for head, maps in output.items()} for output in outputs]

    def scaler_state(self) -> dict[str, Any] | None:
        """Return the scaler's state for a checkpoint; None where there is no scaler.

        Raises:
            UserError: steps were skipped for so long that nothing is learnt.
        """
        if not self.scaler.is_enabled():
            return None
        scale = self.scaler.get_scale()
        if scale < LEAST_SCALE:
            raise UserError(
                f'gradients in float16 overflow even where the loss is scaled by {scale:.0e}, and every such step is '
                'skipped: resume the last checkpoint with --amp bfloat16 or none'
            )
        return self.scaler.state_dict()


def choose_precision(opt: 'Options', network: nn.Module, learns: bool) -> str:
    """Choose the number type that a network computes in by `--amp`.

    On the CPU the network is measured, and the type of `--amp` chosen only where it is faster than float32; the line
    that is logged says so. A run that is resumed with the `--amp` that it had keeps its choice, on any machine.

    Args:
        opt: options, with `device`.
        network: stays as it is.
        learns: it is trained, not only evaluated.

    Returns:
        float32, bfloat16 or float16.

    Raises:
        UserError: the device does not compute in the type.
    """
    if opt.amp == 'none':
        return FLOAT32
    check_computes_in(opt.amp, opt.device, '--amp')
    if learns and opt.resume and opt.facts.get('options', {}).get('amp') == opt.amp and 'precision' in opt.facts:
        return opt.facts['precision']
    if opt.device.type != 'cpu':
        return opt.amp
    ratio = measure(network, opt.amp, (opt.input_h, opt.input_w), learns)
    chosen = opt.amp if ratio < 1 else FLOAT32
    what = 'a training step' if learns else 'an image'
    logger.info(
        f'note: --amp {opt.amp}: {what} takes {ratio:.2f} x as long as in float32 on this processor, so the network '
        f'computes in {chosen}'
    )
    return chosen


def measure(network: nn.Module, name: str, size: tuple[int, int], learns: bool) -> float:
    """Measure how long a network takes on the CPU in another type than float32.

    It is a copy that runs, on random images; the network, its statistics and the random numbers to come stay as they
    are. The loss and the optimizer's step are left out: they are in float32 anyway.

    Args:
        network: in float32.
        name: bfloat16 or float16.
        size: height and width of its input.
        learns: with its backward pass, in training mode.

    Returns:
        The time in the type, as a multiple of the time in float32.
    """
    copied = module_to_channels_last(copy.deepcopy(network)).train(learns)
    count = MEASURED_IMAGES if learns else 1
    images = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)

    def run(dtype: torch.dtype) -> None:
        with contextlib.nullcontext() if learns else torch.inference_mode():
            outputs = Precision(str(dtype).removeprefix('torch.')).run(copied, images)
        if learns:
            torch.stack([maps.square().mean() for output in outputs for maps in output.values()]).sum().backward()

    with torch.random.fork_rng(devices=[]):
        _, seconds = faster_dtype(run, (torch.float32, SHORT[name]))
    return seconds[SHORT[name]] / seconds[torch.float32]
