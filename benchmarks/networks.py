"""Whole detectors and training steps: ours, the same networks as published, and what a user would pick instead."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torchvision.models import detection

from centernet.detectors.base_detector import BaseDetector
from centernet.detectors.detector_factory import detector_factory
from centernet.models.fuse import fast_copy
from centernet.models.model import create_model
from centernet.models.networks.dcn import DCN
from centernet.opts import opts
from centernet.trains.precision import Precision
from centernet.trains.train_factory import train_factory
from centernet.utils.device import cpu_has_bfloat16, module_to_channels_last
from timing import Row, alternate, peak_memory

OURS = ('res_18', 'dla_34')
BATCHES = {'res_18': (1, 8), 'dlav0_34': (1, 8), 'dla_34': (1, 8), 'hourglass': (1,)}  # that are measured
PEERS: dict[str, Callable[..., nn.Module]] = {
    'fcos_resnet50_fpn': detection.fcos_resnet50_fpn,
    'retinanet_resnet50_fpn': detection.retinanet_resnet50_fpn,
    'ssdlite320_mobilenet_v3_large': detection.ssdlite320_mobilenet_v3_large,
}
SIDE = 512  # of the images of all inference, in pixels


@dataclass
class Model:
    """One line of the table of models.

    Attributes:
        parameters: in millions.
        inference: milliseconds an image, from a decoded image to its boxes.
        training: milliseconds of a training step on two images; None where it is not measured.
        memory: MiB that a process takes for inference (on a GPU: of the GPU's memory).
    """

    name: str
    parameters: float
    inference: float
    training: float | None
    memory: float


def rows(seconds: float) -> Iterator[Row]:
    """Our detectors and training steps against the same networks run as published: eager, torchvision's operator."""
    for arch, goals in (('dla_34', {'float32': 4.5, 'bfloat16': 6.5}), ('res_18', {'float32': 1.25, 'bfloat16': 2})):
        runs = {dtype: detector(arch, dtype).run for dtype in goals if dtype == 'float32' or cpu_has_bfloat16()}
        runs['eager'] = as_published(detector(arch)).run
        times = alternate({name: partial(run, random_picture()) for name, run in runs.items()}, seconds)
        for dtype in [name for name in runs if name in goals]:
            what = f'{arch} detector.run, {SIDE} x {SIDE}, {dtype}'
            yield Row(what, times[dtype], times['eager'], 'eager float32', f'>= {goals[dtype]}')
    for arch, batches in BATCHES.items():
        for batch in batches:
            yield own_convolutions(arch, batch, seconds)
    steps = {dtype: our_step('dla_34', 2, 256, dtype=dtype) for dtype in ('float32', 'bfloat16')}
    times = alternate(steps, seconds)
    yield Row('dla_34 training step, 2 of 256 x 256, bfloat16', times['bfloat16'], times['float32'], 'float32')
    times = alternate({'ours': our_step('dla_34', 4, 256), 'eager': published_step('dla_34', 4, 256)}, seconds)
    yield Row('dla_34 training step, 4 of 256 x 256', times['ours'], times['eager'], 'eager', '>= 5')


def own_convolutions(arch: str, batch: int, seconds: float) -> Row:
    """A detector's batch in float32 against the same with torch's convolutions, batch norms folded, channels-last."""
    ours, peer, pictures = detector(arch), with_torch_layers(detector(arch)), [random_picture()] * batch
    times = alternate({'ours': lambda: ours.run_batch(pictures), 'peer': lambda: peer.run_batch(pictures)}, seconds)
    what = f'{arch} detector.run_batch, {batch} of {SIDE} x {SIDE}, float32'
    return Row(what, times['ours'], times['peer'], "torch's convolutions, folded")


def memory() -> tuple[float, float]:
    """Measure the MiB that inference with dla_34 takes: ours, as published."""
    return peak_memory(inference, 'dla_34', 'cpu'), peak_memory(published_inference, 'dla_34')


def models(seconds: float, device: str = 'cpu', dtype: str = 'float32', batch: int = 1) -> Iterator[Model]:
    """Ours and torchvision's detectors, all with random weights and 80 classes, at the same size."""
    names = (*OURS, *PEERS)
    times = alternate({name: inference(name, device, dtype, batch) for name in names}, seconds, device=device)
    training: dict[str, float] = {}
    if dtype == 'float32' and batch == 1:
        steps = {name: our_step(name, 2, SIDE, device) for name in OURS}
        steps |= {name: peer_step(name, 2, SIDE, device) for name in PEERS}
        training = alternate(steps, seconds, device=device)
        del steps
    for name in names:
        model = create_model(name, {'hm': 80, 'wh': 2, 'reg': 2}, -1) if name in OURS else peer(name)
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        if device == 'cpu':
            used = peak_memory(inference, name, device, dtype, batch)
        else:
            used = gpu_memory(partial(inference, name, device, dtype, batch))
        yield Model(name, parameters, times[name] / batch, training.get(name), used)


def gpu_memory(make: Callable[[], Callable[[], object]]) -> float:
    """Measure the MiB of GPU memory that is held at most while something is made and called."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    make()()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def random_picture(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


# -- ours ---------------------------------------------------------------------------------------------


def inference(name: str, device: str = 'cpu', dtype: str = 'float32', batch: int = 1) -> Callable[[], object]:
    """From decoded images to boxes, one of our detectors or one of torchvision's."""
    if name not in OURS:
        return peer_inference(name, device, dtype, batch)
    ours, picture = detector(name, dtype, device), random_picture()
    return lambda: ours.run_batch([picture] * batch)


def published_inference(arch: str) -> Callable[[], object]:
    return partial(as_published(detector(arch)).run, random_picture())


def detector(arch: str, dtype: str = 'float32', device: str = 'cpu') -> BaseDetector:
    """Return a detector of 80 classes with random weights whose deformable convolutions look up to a few cells away.

    In float32 on the CPU it does the convolutions by Winograd's algorithm that are measured to be faster so.
    """
    gpus = '-1' if device == 'cpu' else '0'
    torch.manual_seed(0)
    args = ['ctdet', '--arch', arch, '--input_res', str(SIDE), '--gpus', gpus, '--dtype', dtype]
    made = detector_factory['ctdet'](opts().init(args))
    for layer in made.model.modules():
        if isinstance(layer, DCN):
            nn.init.normal_(layer.conv_offset_mask.bias)
    if dtype == 'float32' and device == 'cpu':
        made.compute_in(dtype, made.fastest_convolutions())
    return made


def with_torch_layers(ours: BaseDetector) -> BaseDetector:
    """Return the detector with its network folded and channels-last, and none of our layers but the DCN operator."""
    folded = module_to_channels_last(fast_copy(ours.model))

    def run(_: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return folded(images.to(memory_format=torch.channels_last))

    ours.fast = run
    return ours


def as_published(ours: BaseDetector) -> BaseDetector:
    """Return the detector with its network as it is: batch norms, NCHW, torchvision's deformable convolution."""
    use_torchvision(ours.model.to(memory_format=torch.contiguous_format))

    def eager(network: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return network(images)[-1]

    ours.fast = eager
    return ours


def use_torchvision(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, DCN):
            layer.backend = 'torchvision'
    return model


def our_step(arch: str, images: int, side: int, device: str = 'cpu', dtype: str = 'float32') -> Callable[[], object]:
    """Return a training step as main.py does it; in another type than float32 as with `--amp`, faster or not."""
    opt = opts().init(['ctdet', '--arch', arch, '--gpus', '-1' if device == 'cpu' else '0'])
    opt.device = torch.device(device)
    model = create_model(arch, opt.heads, opt.head_conv)
    trainer = train_factory['ctdet'](opt, model, torch.optim.Adam(model.parameters(), 1e-4, fused=True))
    trainer.set_device(opt.device)
    trainer.precision = Precision(dtype, opt.device.type, learns=True)
    model.train()
    return partial(trainer.train_iteration, training_batch(images, side))


def published_step(arch: str, images: int, side: int) -> Callable[[], object]:
    """Return the same step in NCHW, with torchvision's deformable convolution and the plain optimizer."""
    opt = opts().init(['ctdet', '--arch', arch, '--gpus', '-1'])
    model = use_torchvision(create_model(arch, opt.heads, opt.head_conv)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    task_loss, batch = train_factory['ctdet'](opt, model).loss, training_batch(images, side)

    def step() -> None:
        loss, _ = task_loss(model(batch['input']), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def training_batch(images: int, side: int, classes: int = 80, slots: int = 128) -> dict[str, torch.Tensor]:
    """Make random images with four objects each, as ctdet's samples are collated."""
    cells = side // 4
    heat = 0.5 * torch.rand(images, classes, cells, cells) ** 8
    ind = torch.randint(cells * cells, (images, slots))
    mask = torch.zeros(images, slots, dtype=torch.uint8)
    mask[:, :4] = 1
    for image in range(images):
        heat[image, 0].view(-1)[ind[image, :4]] = 1
    wh, reg = 20 * torch.rand(images, slots, 2), torch.rand(images, slots, 2)
    pixels = torch.randn(images, 3, side, side)
    return {'input': pixels, 'hm': heat, 'reg_mask': mask, 'ind': ind, 'wh': wh, 'reg': reg}


# -- torchvision's -------------------------------------------------------------------------------------


def peer(name: str) -> nn.Module:
    """Make one of torchvision's detectors for 80 classes and background, forced to our image size."""
    torch.manual_seed(0)
    model = PEERS[name](weights=None, weights_backbone=None, num_classes=81)
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    model.transform.fixed_size = (SIDE, SIDE)
    return model


def peer_inference(name: str, device: str, dtype: str, batch: int) -> Callable[[], object]:
    model, picture = peer(name).to(device).eval(), random_picture()

    def run() -> object:
        pixels = torch.from_numpy(picture).to(device).permute(2, 0, 1) / 255  # [3, H, W]
        half = torch.autocast(device.partition(':')[0], torch.bfloat16, enabled=dtype == 'bfloat16')
        with torch.inference_mode(), half:
            return model([pixels] * batch)

    return run


def peer_step(name: str, images: int, side: int, device: str) -> Callable[[], object]:
    model = peer(name).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    pixels = torch.rand(images, 3, side, side, device=device)
    corners = side / 2 * torch.rand(images, 4, 2, device=device)
    boxes = torch.cat([corners, corners + side / 8], 2)  # [B, 4, 4]
    targets = [{'boxes': b, 'labels': torch.ones(4, dtype=torch.int64, device=device)} for b in boxes]

    def step() -> None:
        loss = sum(model(list(pixels), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
