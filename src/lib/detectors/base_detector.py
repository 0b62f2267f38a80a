"""From an image to its detections, as every task does it: pre-process, network, decode, post-process, merge."""

import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import nn

from ..models.exported import ExportedFile, is_exported, open_exported
from ..models.fast_dtype import FLOAT32, choose_dtype
from ..models.fuse import FastNetwork, network_dtype
from ..models.model import create_model, load_model
from ..models.utils import Output
from ..models.winograd_choice import choose_winograd
from ..tasks import TASKS
from ..utils.debugger import Debugger, network_input_to_image
from ..utils.detections import Detection, detections_from_results
from ..utils.device import module_to_channels_last
from ..utils.drawing import draw_detections
from ..utils.errors import UserError
from ..utils.image import as_bgr_image
from ..utils.post_process import Detections
from ..utils.supervision import to_supervision
from ..utils.thresholds import reaches, threshold_of
from .pre_process import PreProcessor

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

Image = str | os.PathLike | np.ndarray | PIL.Image.Image | Mapping  # what `BaseDetector.run` takes

STAGES = ('load', 'pre', 'net', 'dec', 'post', 'merge')
TIMES = ('tot', *STAGES)  # whose seconds `BaseDetector.run` returns
POINTS = ('keypoints', 'extreme_points')  # columns that are x, y of several points


class Given(NamedTuple):
    """An image to detect in: its pixels, what is known beside them, and its inputs unless they are to be made."""

    image: np.ndarray
    meta: Mapping
    inputs: list[tuple[np.ndarray, dict]] | None


class BaseDetector:
    """Detects in images.

    A task's subclass gives `decode`, `columns`, `post_process`, `merge_outputs` and `add_views`, and where they differ
    `to_results`, `image_meta` and `draw`.

    Args:
        opt: options from `opts().init()`, or from `parse` with the facts of a dataset. Without `load_model` the
            network is random, and says so. It may be a file of `export.py`, too, which runs in its place. With
            `--dtype auto` the network computes in float32, and nothing is measured, until `compute_in` says otherwise:
            `detector.compute_in(*detector.fastest_way())`.

    Attributes:
        model: the network. A fast copy of it runs, which follows when its weights change. There is none with an
            exported file.
        dtype: float32 or bfloat16, which the network computes in.
        file: the exported file, or None.

    Raises:
        UserError: the device is not there or does not do `--dtype`, the checkpoint does not fill the network, or the
            exported file cannot be run so.
    """

    preprocessor = PreProcessor
    file: ExportedFile | None = None
    dtype: str = FLOAT32

    def __init__(self, opt: 'Options'):
        self.opt = opt
        if is_exported(opt.load_model):
            self.open_file()
        else:
            self.make_network()
        self.pre_process = self.preprocessor(
            (opt.input_w, opt.input_h), opt.mean, opt.std, opt.down_ratio, opt.pad, opt.keep_res, opt.test_scales
        )
        self.pre_process.normalizes = self.file is None
        self.images_shown = 0

    def make_network(self) -> None:
        """Build the network and fill it from the checkpoint."""
        opt = self.opt
        self.compute_in(FLOAT32 if opt.dtype == 'auto' else opt.dtype)
        self.model: nn.Module = create_model(opt.arch, opt.heads, opt.head_conv)
        if opt.load_model:
            load_model(self.model, opt.load_model, strict=True)
        else:
            logger.warning('no --load_model: the network is random')
        module_to_channels_last(self.model, device=opt.device).eval()

    def open_file(self) -> None:
        """Open the exported file that runs in the network's place.

        Raises:
            UserError: it cannot be opened, or the options ask for what it cannot do.
        """
        opt = self.opt
        if opt.debug >= 2:
            raise UserError(
                '--debug 2 and more show maps of the network, which an exported file does not: give the checkpoint'
            )
        self.file = open_exported(opt.load_model, opt.device.type == 'cuda', torch.get_num_threads())
        if not opt.keep_res:
            self.file.check_size(opt.input_h, opt.input_w)

    def fastest_way(self) -> tuple[str, tuple[str, ...] | None]:
        """Find how the network computes fastest, for `compute_in`; with `--dtype auto` measured once a processor.

        Returns:
            float32 or bfloat16 (an exported file's is its own: float32 stands for it), and the names of the
            convolutions that Winograd's algorithm does in float32, None for those of a fixed rule.
        """
        opt = self.opt
        if opt.dtype != 'auto' or self.file is not None:
            return self.dtype, None
        winograd = self.fastest_convolutions()
        return choose_dtype(self.model, self.speed_facts(), self.input_shape(), winograd), winograd

    def fastest_convolutions(self) -> tuple[str, ...] | None:
        """Return the second part of `fastest_way`, whatever `--dtype` says."""
        memory = None if self.opt.winograd_memory < 0 else self.opt.winograd_memory
        return choose_winograd(self.model, self.speed_facts(), self.input_shape(), memory)

    def speed_facts(self) -> dict[str, Any]:
        """Return what the network's speed depends on beside its input, as JSON holds it."""
        return {'arch': self.opt.arch, 'head_conv': self.opt.head_conv, 'heads': self.opt.heads}

    def input_shape(self) -> tuple[int, int, int, int]:
        """Return B, 3, H, W of the network's input."""
        images = self.opt.test_batch_size * (2 if self.opt.flip_test else 1)
        return images, 3, self.opt.input_h, self.opt.input_w

    def compute_in(self, dtype: str, winograd: tuple[str, ...] | None = None) -> None:
        """Let the network compute in float32 or bfloat16; a CPU without bfloat16 stays with float32, with a note.

        Args:
            dtype: float32 or bfloat16.
            winograd: names of the convolutions that Winograd's algorithm does, as `fastest_way` gives them.

        Raises:
            UserError: the GPU does not compute in it.
        """
        if self.file is not None:
            return
        self.fast = FastNetwork(network_dtype(dtype, self.opt.device), winograd)
        self.dtype = str(self.fast.dtype).removeprefix('torch.')

    def run(self, image: Image, meta: Mapping | None = None) -> dict:
        """Detect in one image.

        Args:
            image: a path, a uint8 BGR array [H, W, 3], an image of Pillow, or what `PreProcessor.prefetch` made of an
                image: a dict of `image`, `meta` and, unless they are still to be made, `inputs`.
            meta: what is known of the image beside its pixels (ddd: `calib` [3, 4]); a dict brings its own.

        Returns:
            `results`, {1-based class: float32 [n, 5 or more], x1 y1 x2 y2 score first (ddd: see there)}, and
            the seconds of each of `TIMES`.

        Raises:
            UserError: the path is no image that can be read, or the array is no BGR image.
        """
        return self.run_batch([image], [meta])[0]

    def run_batch(self, images: Sequence[Image], metas: Sequence[Mapping | None] | None = None) -> list[dict]:
        """Detect in several images: those whose inputs are of one size go through the network together.

        Args:
            images: as `run` takes them.
            metas: of each image, as `run` takes it.

        Returns:
            For each image a dict as `run` returns it. The seconds are each image's share: the batch's by their number.

        Raises:
            UserError: as `run`, of the first image that is none.
        """
        clock = StageClock(self.opt.device)
        metas = [None] * len(images) if metas is None else metas
        batch = [read_given(*each, self.opt.max_pixels) for each in zip(images, metas, strict=True)]
        clock.stage('load')
        detections: list[list[Detections]] = [[] for _ in batch]
        for i, scale in enumerate(self.opt.test_scales):
            inputs = [one.inputs[i] if one.inputs else self.pre_process(one.image, scale) for one in batch]
            clock.stage('pre')
            for group in group_by_size(inputs):
                pixels = self.to_network([inputs[k][0] for k in group])
                clock.stage('pre')
                output = self.forward(pixels)
                clock.stage('net')
                rows = self.process(output)
                clock.stage('dec')
                if self.opt.debug >= 2 and isinstance(pixels, torch.Tensor):
                    for j, k in enumerate(group):
                        of_image = {head: maps[j : j + 1] for head, maps in output.items()}
                        self.look_inside(pixels[j], of_image, rows[j], f'{self.images_shown + k}_{scale:g}_')
                for j, k in enumerate(group):
                    detections[k].append(self.post_process(rows[j], {**batch[k].meta, **inputs[k][1]}, scale))
                clock.stage('post')
        done = [self.to_results(self.merge_outputs(of_scales)) for of_scales in detections]
        clock.stage('merge')
        if self.opt.debug >= 1:
            for one, found in zip(batch, done, strict=True):
                self.show_results(one.image, found, one.meta)
        return [{**found, **clock.times(share=len(batch))} for found in done]

    def to_network(self, inputs: list[np.ndarray]) -> torch.Tensor | np.ndarray:
        """Join B inputs [1, 3, H, W] to [B, 3, H, W] on the device; with `--flip_test` B mirrored ones follow.

        For an exported file, B inputs uint8 [1, H, W, 3] become an array [B, H, W, 3], mirrored ones only where the
        file has no decoder, which would see to them.
        """
        if self.file is not None:
            pixels = np.concatenate(inputs)
            return np.concatenate([pixels, pixels[:, :, ::-1]]) if self.file.raw and self.opt.flip_test else pixels
        images = torch.from_numpy(np.concatenate(inputs) if len(inputs) > 1 else inputs[0])
        images = images.to(self.opt.device, non_blocking=True)
        return torch.cat([images, images.flip(3)]) if self.opt.flip_test else images

    def forward(self, images: torch.Tensor | np.ndarray) -> Output:
        """Run the network on images [B, 3, H, W], or the exported file on images [B, H, W, 3].

        Returns:
            The raw output of its last stack, `{head: float32 [B, c, h, w]}`; of an exported file with a decoder its
            outputs [B, n, ...] by name.
        """
        if isinstance(images, np.ndarray):
            assert self.file is not None  # which such images are for
            return {name: torch.from_numpy(values) for name, values in self.file.run(images).items()}
        return self.fast(self.model, images)

    @torch.inference_mode()
    def process(self, output: Output) -> Sequence[np.ndarray] | np.ndarray:
        """Turn what `forward` returns, `{name: [B, ...]}`, into rows [n, columns] of each image, on the output map."""
        decoded = self.file is not None and not self.file.raw
        return (self.join_rows(output) if decoded else self.decode(output)).cpu().numpy()

    def decode(self, output: Output) -> torch.Tensor:
        """Decode a raw output, `{head: [B, c, h, w]}`, to rows [B, n, columns] on the output map.

        With `--flip_test` the output is [2B, c, h, w], of the images and then of their mirror images. It can be traced
        by `torch.export`.
        """
        raise NotImplementedError

    def columns(self) -> dict[str, int]:
        """Return the columns of decoded rows in their order: `{name: how many}`, names as exported files have them."""
        raise NotImplementedError

    def name_rows(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Split decoded rows [B, n, columns] into the outputs of an exported file.

        Returns:
            float32 by name: one column as [B, n], points as [B, n, points, 2], others as [B, n, c]; `classes` as int64.
        """
        widths = self.columns()
        parts = dict(zip(widths, rows.split(list(widths.values()), 2), strict=True))
        for name, part in parts.items():
            if name in POINTS:
                parts[name] = part.unflatten(2, (-1, 2))
            elif widths[name] == 1:
                parts[name] = part.squeeze(2)
        return {**parts, 'classes': parts['classes'].long()}

    def join_rows(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Join the named outputs [B, n, ...] of an exported file to decoded rows float32 [B, n, columns]."""
        B, n = outputs['scores'].shape
        return torch.cat([outputs[name].float().reshape(B, n, -1) for name in self.columns()], 2)

    def post_process(self, rows: np.ndarray, meta: Mapping, scale: float) -> Detections:
        """Map one image's decoded rows to the coordinates of the image.

        Args:
            rows: [n, columns].
            meta: of the input, as `PreProcessor` gives it, and of the image, as `run` takes it.
            scale: the test scale.

        Returns:
            `{1-based class: rows [n, columns]}`.
        """
        raise NotImplementedError

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        """Merge the detections `{1-based class: rows [n, columns]}` of all test scales to those of the image."""
        raise NotImplementedError

    def to_results(self, merged: Detections) -> dict:
        """Return an image's merged detections `{1-based class: rows [n, columns]}` as `run` returns them."""
        return {'results': merged}

    def look_inside(self, pixels: torch.Tensor, output: Output, rows: np.ndarray, name: str) -> None:
        """Show one image's maps [1, c, h, w] over its input [3, H, W], and the rows [n, columns] decoded from them
        (`--debug` 2 and more)."""
        debugger = Debugger.of(self.opt)
        image = network_input_to_image(pixels.cpu().numpy(), self.opt.mean, self.opt.std)
        self.add_views(debugger, image, output, rows)
        debugger.finish(self.opt.debug, self.opt.debug_dir, name)

    def add_views(self, debugger: Debugger, image: np.ndarray, output: Output, rows: np.ndarray) -> None:
        """Add the task's views to the debugger.

        Args:
            debugger: keeps the views.
            image: the network's input, BGR uint8 [H, W, 3].
            output: its raw output, `{head: [1, c, h, w]}`.
            rows: decoded from it, [n, columns].
        """
        raise NotImplementedError

    def show_results(self, image: np.ndarray, found: dict, meta: Mapping) -> None:
        """Show the final detections on the image, BGR uint8 [H, W, 3] (`--debug` 1 and more)."""
        debugger = Debugger.of(self.opt)
        for name, drawing in self.draw(image, self.describe(found), meta).items():
            debugger.add_img(drawing, name)
        debugger.finish(self.opt.debug, self.opt.debug_dir, f'{self.images_shown}_')
        self.images_shown += 1

    @property
    def thresholds(self) -> dict[int, float]:
        """Return the lowest score that is drawn of each 1-based class, by `--vis_thresh`."""
        return {cls + 1: threshold_of(self.opt.vis_thresh, cls) for cls in range(self.opt.num_classes)}

    def image_meta(self, name: str) -> dict:
        """Return what the options say of the image of that file name beside its pixels, as `run` takes it."""
        return {}

    def describe(self, found: Mapping) -> list[Detection]:
        """Turn what `run` returned of an image into detections (see utils/detections.py), the best first."""
        opt = self.opt
        describe, scores = TASKS[opt.task].describe_row, found.get('keypoint_scores')
        return detections_from_results(found['results'], describe, opt.class_names, scores)

    def to_supervision(self, found: Mapping) -> Any:
        """Turn what `run` returned of an image into a `supervision.Detections`, see utils/supervision.py.

        Detections under `--vis_thresh` are left out.

        Raises:
            UserError: the package `supervision` is not installed.
        """
        return to_supervision([each for each in self.describe(found) if reaches(self.opt.vis_thresh, each)])

    def draw(
        self, image: np.ndarray, detections: list[Detection], meta: Mapping, least_side: int = 0
    ) -> dict[str, np.ndarray]:
        """Draw an image's detections of score `--vis_thresh` or more (see `thresholds`).

        Args:
            image: uint8 BGR [H, W, 3].
            detections: as `describe` gives them.
            meta: as `run` takes it.
            least_side: as `draw_detections` takes it.

        Returns:
            Drawings [h, w, 3] by name: first the image with the detections on it, under the task's name, then what else
            the task has to show.
        """
        opt = self.opt
        return {opt.task: draw_detections(image, detections, opt.vis_thresh, opt.skeleton or (), least_side=least_side)}


def read_given(image: Image, meta: Mapping | None, max_pixels: int = 0) -> Given:
    """Read and check an image that `run` is given; its pixels become uint8 BGR [H, W, 3].

    Raises:
        UserError: as `run`.
    """
    parts: Mapping = image if isinstance(image, Mapping) else {'image': image, 'meta': meta or {}}
    return Given(as_bgr_image(parts['image'], max_pixels), parts['meta'], parts.get('inputs'))


def group_by_size(inputs: list[tuple[np.ndarray, dict]]) -> list[list[int]]:
    """Group the positions of inputs (pixels [1, 3, H, W], meta) whose pixels have one shape."""
    groups = defaultdict(list)
    for k, (pixels, _) in enumerate(inputs):
        groups[pixels.shape].append(k)
    return list(groups.values())


class StageClock:
    """Measures the seconds that each of `STAGES` takes of a run."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.start = self.last = time.perf_counter()

    def stage(self, name: str) -> None:
        """Count the time since the last call as stage `name`; waits for the device, so that its work counts there."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

    def times(self, share: int = 1) -> dict[str, float]:
        """Return the seconds of `TIMES`, divided by `share`."""
        return {stage: time / share for stage, time in {'tot': self.last - self.start, **self.seconds}.items()}
