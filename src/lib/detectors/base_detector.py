"""From an image to its detections, as every task does it: pre-process, network, decode, post-process, merge."""

import os
import time
from argparse import Namespace
from collections.abc import Mapping

import cv2
import numpy as np
import torch

from ..models.model import create_model, load_model
from ..utils.debugger import Debugger, network_input_to_image
from ..utils.device import open_device
from ..utils.drawing import detections_from_results
from ..utils.errors import UserError
from ..utils.image import get_affine_transform, normalize, read_image

Output = dict[str, torch.Tensor]
Detections = dict[int, np.ndarray]


class PreProcessor:
    """Makes the network's inputs from an image; holds no network, so that loader processes can carry it."""

    def __init__(self, opt: Namespace):
        self.opt = opt
        self.warned = False

    def __call__(self, image: np.ndarray, scale: float = 1.0) -> tuple[np.ndarray, dict]:
        """The input of one test scale.

        Args:
            image: uint8 BGR [H, W, 3].
            scale: the image is resized by it first.

        Returns:
            float32 [1, 3, h, w], and its meta: `c`, `s` of the window, `out_height`, `out_width` of the output
            map, `height`, `width` of the image.
        """
        opt = self.opt
        height, width = image.shape[:2]
        new_width, new_height = max(int(width * scale), 1), max(int(height * scale), 1)
        c, s, (input_w, input_h) = self.window(height, width, new_height, new_width)
        resized = image if scale == 1 else cv2.resize(image, (new_width, new_height))
        to_input = get_affine_transform(c, s, 0, (input_w, input_h))
        warped = cv2.warpAffine(resized, to_input, (input_w, input_h), flags=cv2.INTER_LINEAR)
        meta = {
            'c': c,
            's': s,
            'out_height': input_h // opt.down_ratio,
            'out_width': input_w // opt.down_ratio,
            'height': height,
            'width': width,
        }
        return normalize(warped, opt.mean, opt.std)[None], meta

    def prefetch(self, image: np.ndarray, meta: Mapping | None = None) -> dict:
        """What `BaseDetector.run` takes in place of an image: the image with its inputs at all test scales."""
        inputs = [self(image, scale) for scale in self.opt.test_scales]
        return {'image': image, 'inputs': inputs, 'meta': meta or {}}

    def window(self, height: int, width: int, new_height: int, new_width: int):
        """Centre, scale and input size (width, height) of the window on the resized image."""
        opt = self.opt
        if opt.keep_res:
            input_w, input_h = (new_width | opt.pad) + 1, (new_height | opt.pad) + 1
            center = np.array([new_width // 2, new_height // 2], np.float32)
            return center, np.array([input_w, input_h], np.float32), (input_w, input_h)
        if new_width > width and not self.warned:
            self.warned = True
            print(
                'note: test scales over 1 at a fixed input size see only the middle of the image; --keep_res sees all'
            )
        # The scale is the unscaled image's, as published: this is what makes a test scale zoom.
        center = np.array([new_width / 2, new_height / 2], np.float32)
        return center, float(max(height, width)), (opt.input_w, opt.input_h)


class BaseDetector:
    """Detects in single images. A task's subclass gives `process`, `post_process`, `merge_outputs` and `views`.

    Args:
        opt: options from `opts().init()`, or from `parse` with the facts of a dataset. Without `load_model` the
            network is random, and says so.

    Raises:
        UserError: the device is not there, or the checkpoint does not fill the network.
    """

    preprocessor = PreProcessor

    def __init__(self, opt: Namespace):
        self.opt = opt
        opt.device = open_device(opt)
        self.model = create_model(opt.arch, opt.heads, opt.head_conv)
        if opt.load_model:
            self.model = load_model(self.model, opt.load_model, strict=True)
        else:
            print('no --load_model: the network is random')
        self.model = self.model.to(opt.device).eval()
        self.pre_process = self.preprocessor(opt)
        self.image_meta: Mapping = {}
        self.pictures = 0

    def run(self, image: str | os.PathLike | np.ndarray | Mapping, meta: Mapping | None = None) -> dict:
        """Detect in one image.

        Args:
            image: a path, a uint8 BGR array [H, W, 3], or what `PreProcessor.prefetch` made of an image: a dict of
                `image`, `meta` and, unless they are still to be made, `inputs`.
            meta: what is known of the image beside its pixels (ddd: `calib` [3, 4]); a dict brings its own.

        Returns:
            `results`, {1-based class: float32 [n, 5 or more], x1 y1 x2 y2 score first (ddd: see there)}, and
            the seconds of `tot`, `load`, `pre`, `net`, `dec`, `post`, `merge`.

        Raises:
            UserError: the path is no image that can be read, or the array is no BGR image.
        """
        clock = StageClock(self.opt.device)
        given = image if isinstance(image, Mapping) else {'image': image, 'meta': meta or {}}
        image, inputs, self.image_meta = given['image'], given.get('inputs'), given['meta']
        if not isinstance(image, np.ndarray):
            image = read_image(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise UserError(f'expected a uint8 BGR image [H, W, 3]; found {image.dtype} {list(image.shape)}')
        clock.stage('load')

        detections = []
        for i, scale in enumerate(self.opt.test_scales):
            images, meta = inputs[i] if inputs else self.pre_process(image, scale)
            images = self.to_network(images)
            clock.stage('pre')
            output = self.forward(images)
            clock.stage('net')
            dets = self.process(output)
            clock.stage('dec')
            if self.opt.debug >= 2:
                self.look_inside(images, output, dets, scale)
            detections.append(self.post_process(dets, meta, scale))
            clock.stage('post')
        results = self.merge_outputs(detections)
        clock.stage('merge')
        if self.opt.debug >= 1:
            self.show_results(image, results)
        return {'results': results, **self.extra_results(), **clock.times()}

    def to_network(self, images: np.ndarray) -> torch.Tensor:
        """Inputs [1, 3, H, W] on the device, with the mirrored image as the second row when `--flip_test`."""
        images = torch.from_numpy(images)
        if self.opt.flip_test:
            images = torch.cat([images, images.flip(3)])
        return images.to(self.opt.device, non_blocking=True)

    @torch.inference_mode()
    def forward(self, images: torch.Tensor) -> Output:
        """Raw output of the network's last stack."""
        return self.model(images)[-1]

    def process(self, output: Output) -> np.ndarray:
        """Decoded detections [1, n, columns] of a raw output, in output-map coordinates."""
        raise NotImplementedError

    def post_process(self, dets: np.ndarray, meta: dict, scale: float) -> Detections:
        """The detections in the coordinates of the image, by class."""
        raise NotImplementedError

    def merge_outputs(self, detections: list[Detections]) -> Detections:
        """One set of detections from those of all test scales."""
        raise NotImplementedError

    def extra_results(self) -> dict:
        """What a task returns from `run` beside the results, for the image that was just done."""
        return {}

    def look_inside(self, images: torch.Tensor, output: Output, dets: np.ndarray, scale: float) -> None:
        """Show the network's maps over its input, and what was decoded from them (`--debug` 2 and more)."""
        debugger = self.debugger()
        picture = network_input_to_image(images[0].cpu(), self.opt.mean, self.opt.std)
        self.views(debugger, picture, output, dets)
        debugger.finish(self.opt.debug, self.opt.debug_dir, f'{self.pictures}_{scale:g}_')

    def views(self, debugger: Debugger, picture: np.ndarray, output: Output, dets: np.ndarray) -> None:
        """Add the task's views of a raw output to the debugger; `picture` is the network's input."""
        raise NotImplementedError

    def show_results(self, image: np.ndarray, results: Detections) -> None:
        """Show the final detections on the image (`--debug` 1 and more)."""
        debugger = self.debugger()
        debugger.add_img(image, self.opt.task)
        self.draw(debugger, results, self.opt.task)
        debugger.finish(self.opt.debug, self.opt.debug_dir, f'{self.pictures}_')
        self.pictures += 1

    def draw(self, debugger: Debugger, results: Detections, name: str) -> None:
        """Draw final detections onto the picture `name`."""
        opt, joint_scores = self.opt, self.extra_results().get('keypoint_scores')
        found = detections_from_results(results, opt.task, opt.class_names, joint_scores)
        debugger.add_detections(found, name, opt.vis_thresh)

    def debugger(self) -> Debugger:
        return Debugger(self.opt.debugger_theme, self.opt.class_names, self.opt.skeleton or ())


class StageClock:
    """Seconds that each stage of a run takes."""

    STAGES = ('load', 'pre', 'net', 'dec', 'post', 'merge')

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds = dict.fromkeys(self.STAGES, 0.0)
        self.start = self.last = time.perf_counter()

    def stage(self, name: str) -> None:
        """What passed since the last call was stage `name`; waits for the device, so that it counts there."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

    def times(self) -> dict[str, float]:
        return {'tot': self.last - self.start, **self.seconds}
