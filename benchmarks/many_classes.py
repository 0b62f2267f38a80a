"""Decoding and training by the number of classes: now, and as this project did it before it was made for thousands.

Before, all cells were activated and searched for peaks map by map, the loss was computed operator by operator, and
samples had a heatmap with all its zeros for any number of classes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from centernet.datasets.sample.base import MOST_DRAWN
from centernet.models.decode import Peaks, centred_boxes, ctdet_decode, keep_peaks
from centernet.models.heatmaps import GAUSSIANS, draw_heatmap
from centernet.models.losses import focal_of_logits
from centernet.models.model import create_model
from centernet.models.utils import transpose_and_gather_feat
from centernet.opts import opts
from centernet.trains.train_factory import train_factory
from timing import Row, alternate, peak_memory

CLASSES = (80, 1000, 5000)  # of decoding
LEARNT = (80, 1000)  # of training
ARCH, IMAGES, SIDE, SLOTS, OBJECTS = 'dla_34', 4, 256, 128, 7  # of a training step: images of SIDE pixels, OBJECTS each


class Training(NamedTuple):
    """A line of the table of training steps: milliseconds and MiB of a process, now and before."""

    classes: int
    time: float
    time_before: float
    memory: float
    memory_before: float


def rows(seconds: float) -> Iterator[Row]:
    """Decoding from logits; `seconds` go to each line."""
    for classes in CLASSES:
        torch.manual_seed(0)
        logits = torch.randn(1, classes, 128, 128) - 4
        wh, reg = 20 * torch.rand(1, 2, 128, 128), torch.rand(1, 2, 128, 128)
        with torch.inference_mode():
            times = alternate(
                {
                    'ours': partial(ctdet_decode, logits, wh, reg, K=100, logits=True),
                    'before': partial(decode_as_before, logits, wh, reg),
                },
                seconds,
            )
        yield Row(f'ctdet decode of logits, {classes} classes', times['ours'], times['before'], 'before', '>= 3')


def decode_as_before(logits: torch.Tensor, wh: torch.Tensor, reg: torch.Tensor, K: int = 100) -> torch.Tensor:
    """Return rows [B, K, 6]: every cell of logits [B, C, h, w] is activated, and searched for peaks."""
    peaks = top_k_as_before(keep_peaks(logits.sigmoid()), K)
    boxes = centred_boxes(peaks.points(reg), transpose_and_gather_feat(wh, peaks.inds))
    return torch.cat([boxes, peaks.scores.unsqueeze(2), peaks.classes.unsqueeze(2)], 2)


def top_k_as_before(heat: torch.Tensor, K: int) -> Peaks:
    """Find the K highest of cells [B, C, h, w]: they lie in the K rows whose maxima are highest."""
    h, w = heat.shape[2:]
    rows = heat.flatten(1, 2)  # [B, C*h, w]
    best_rows = rows.amax(2).topk(min(K, rows.shape[1])).indices  # [B, R]
    candidates = rows.gather(1, best_rows.unsqueeze(2).expand(-1, -1, w)).flatten(1)  # [B, R*w]
    scores, order = candidates.topk(K)  # [B, K]
    row, x = best_rows.gather(1, order // w), order % w
    classes, y = row // h, row % h
    return Peaks(scores, y * w + x, classes, y.float(), x.float())


def training(seconds: float) -> list[Training]:
    """Measure training steps: the time in turns in one process, the memory in a process each."""
    kinds = [(classes, before) for classes in LEARNT for before in (False, True)]
    times = alternate({f'{classes} {before}': training_step(classes, before) for classes, before in kinds}, seconds)
    return [
        Training(
            classes,
            *(times[f'{classes} {before}'] for before in (False, True)),
            *(peak_memory(training_step, classes, before) for before in (False, True)),
        )
        for classes in LEARNT
    ]


def training_step(classes: int, before: bool) -> Callable[[], object]:
    """Return a training step as main.py does it, from a batch as the loader gives it."""
    opt = opts().init(['ctdet', '--arch', ARCH, '--gpus', '-1'])
    opt.device, opt.num_classes, opt.heads = torch.device('cpu'), classes, {**opt.heads, 'hm': classes}
    torch.manual_seed(0)
    model = create_model(ARCH, opt.heads, opt.head_conv)
    trainer = train_factory['ctdet'](opt, model, torch.optim.Adam(model.parameters(), 1e-4, fused=True))
    trainer.set_device(opt.device)
    if before:
        trainer.loss.heatmap_loss = LossAsBefore()
    model.train()
    return partial(trainer.train_iteration, training_batch(classes, drawn=before or classes <= MOST_DRAWN))


class LossAsBefore(nn.Module):
    """The focal loss of logits, operator by operator."""

    def forward(self, out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return focal_of_logits(out, target)


def training_batch(classes: int, drawn: bool) -> dict[str, torch.Tensor]:
    """Make random images with objects of up to 40 cells, as ctdet's samples of so many classes are collated."""
    cells = SIDE // 4
    gaussians = torch.zeros(IMAGES, SLOTS, 5, dtype=torch.float64)
    gaussians[..., 0] = -1
    radii = torch.randint(1, 10, (IMAGES, OBJECTS))
    places = torch.randint(cells, (2, IMAGES, OBJECTS))
    gaussians[:, :OBJECTS, 0] = torch.randint(classes, (IMAGES, OBJECTS)).double()
    gaussians[:, :OBJECTS, 1:] = torch.stack([*places, radii, (2 * radii + 1) / 6], 2).double()
    ind, mask = torch.zeros(IMAGES, SLOTS, dtype=torch.int64), torch.zeros(IMAGES, SLOTS, dtype=torch.uint8)
    ind[:, :OBJECTS], mask[:, :OBJECTS] = places[1] * cells + places[0], 1
    target = draw_heatmap(gaussians, classes, (cells, cells)).dense() if drawn else gaussians
    return {
        'input': torch.randn(IMAGES, 3, SIDE, SIDE),
        'hm' if drawn else f'hm{GAUSSIANS}': target,
        'reg_mask': mask,
        'ind': ind,
        'wh': 20 * torch.rand(IMAGES, SLOTS, 2),
        'reg': torch.rand(IMAGES, SLOTS, 2),
    }
