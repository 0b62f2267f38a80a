"""The inputs of the demo: an image, a folder of images, a video or a camera, as frames one after another."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..cli import one_line
from ..errors import UserError
from ..image import read_image
from .image_files import image_files, is_image
from .video import Video, camera_number, has_image_content, is_animation, open_video

logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """An image of a source.

    Attributes:
        image: BGR uint8 [H, W, 3].
        name: its file's name.
        number: 0-based, in a video; None otherwise.
        seconds: that reading it took.
    """

    image: np.ndarray
    name: str
    number: int | None
    seconds: float


class Source:
    """Images one after another, of `paths` or of `video`.

    A damaged image is named, counted in `skipped` and left out, unless it is the only one that was asked for.

    Args:
        paths: image files.
        video: instead of them.
        forgiving: leave damaged images out, rather than raise.
        max_pixels: an image of more pixels counts as damaged; 0 for the default of `read_image`.

    Attributes:
        total: the number of images, 0 where it is unknown.
        skipped: how many were left out.
        exhausted: the video was read to its end.
    """

    def __init__(
        self,
        paths: list[Path] | None = None,
        video: Video | None = None,
        forgiving: bool = True,
        max_pixels: int = 0,
    ):
        self.paths, self.video, self.forgiving, self.max_pixels = paths or [], video, forgiving, max_pixels
        self.total = len(self.paths) if video is None else video.length
        self.skipped = 0
        self.exhausted = False

    def __iter__(self) -> Iterator[Frame]:
        return self._images() if self.video is None else self._frames(self.video)

    def _images(self) -> Iterator[Frame]:
        for path in self.paths:
            start = time.perf_counter()
            try:
                image = read_image(path, max_pixels=self.max_pixels)
            except UserError as error:
                self.skip(error)
                continue
            yield Frame(image, path.name, None, time.perf_counter() - start)

    def _frames(self, video: Video) -> Iterator[Frame]:
        start = time.perf_counter()
        for number, image in enumerate(video):
            yield Frame(image, video.name, number, time.perf_counter() - start)
            start = time.perf_counter()
        self.exhausted = True

    def skip(self, error: UserError) -> None:
        """Leave out the image at hand for what is wrong with it, or raise that when no other was asked for."""
        if not self.forgiving:
            raise error
        self.skipped += 1
        logger.warning('skipped: %s', one_line(error))


def open_source(name: str, max_pixels: int = 0) -> Source:
    """Open the source that `--demo` names.

    Args:
        name: path of an image, a folder or a video, or `webcam` or `webcam:NUMBER`.
        max_pixels: images of more pixels count as damaged; 0 for the default of `read_image`.

    Raises:
        UserError: nothing is there, or nothing that can be looked at.
    """
    path = Path(name)
    if not name:
        raise UserError("--demo names an image, a folder, a video, 'webcam' or 'webcam:NUMBER'; it is missing")
    if path.is_dir():
        return Source(image_files(path), max_pixels=max_pixels)
    if camera_number(name) is not None:
        return Source(video=open_video(name))
    if not path.exists():
        raise UserError(f"--demo: no such file or folder: '{name}' (a camera is 'webcam' or 'webcam:NUMBER')")
    if not is_animation(path) and (is_image(path) or has_image_content(path)):
        return Source([path], forgiving=False, max_pixels=max_pixels)
    return Source(video=open_video(name))
