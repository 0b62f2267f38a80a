"""The inputs of the demo, as frames one after another: images, folders, patterns, videos, cameras, the web."""

import contextlib
import glob
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..cli import one_line
from ..errors import UserError
from ..image import read_image
from .addresses import download, is_address, is_web_address, without_password
from .image_files import image_files, is_image, natural_order
from .video import Video, camera_number, has_image_content, is_animation, open_video

logger = logging.getLogger(__name__)

PATTERN = set('*?[')  # signs of a pattern


class Frame(NamedTuple):
    """An image of a source.

    Attributes:
        image: BGR uint8 [H, W, 3].
        name: its file's name, from the folder on that was asked for.
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
        folder: in which `paths` lie, from which on they are named; None names them without folders.
        forgiving: leave damaged images out, rather than raise.
        max_pixels: an image of more pixels counts as damaged; 0 for the default of `read_image`.
        every: only each such image or frame.
        read: files beside `paths` that are read.

    Attributes:
        names: of `paths`.
        read: all files that are read.
        total: the number of images, 0 where it is unknown.
        skipped: how many were left out.
        exhausted: the video was read to its end.
    """

    download: tempfile.TemporaryDirectory | None = None  # which is removed together with the source

    def __init__(
        self,
        paths: Sequence[Path] = (),
        video: Video | None = None,
        folder: Path | None = None,
        forgiving: bool = True,
        max_pixels: int = 0,
        every: int = 1,
        read: Sequence[Path] = (),
    ):
        self.paths, self.video, self.forgiving, self.max_pixels = list(paths[::every]), video, forgiving, max_pixels
        self.every = every
        self.names = [path.name if folder is None else path.relative_to(folder).as_posix() for path in self.paths]
        self.read = [*self.paths, *read]
        self.total = len(self.paths) if video is None else -(-video.length // every)
        self.skipped = 0
        self.exhausted = False

    def __iter__(self) -> Iterator[Frame]:
        return self._images() if self.video is None else self._frames(self.video)

    def _images(self) -> Iterator[Frame]:
        for path, name in zip(self.paths, self.names, strict=True):
            start = time.perf_counter()
            try:
                image = read_image(path, max_pixels=self.max_pixels)
            except UserError as error:
                self.skip(error)
                continue
            yield Frame(image, name, None, time.perf_counter() - start)

    def _frames(self, video: Video) -> Iterator[Frame]:
        start = time.perf_counter()
        for number, image in video.every(self.every):
            yield Frame(image, video.name, number, time.perf_counter() - start)
            start = time.perf_counter()
        self.exhausted = True

    def skip(self, error: UserError) -> None:
        """Leave out the image at hand for what is wrong with it, or raise that when no other was asked for."""
        if not self.forgiving:
            raise error
        self.skipped += 1
        logger.warning('skipped: %s', one_line(error))


def open_source(name: str, max_pixels: int = 0, every: int = 1, but: Path | None = None) -> Source:
    """Open the source that `--demo` names.

    Args:
        name: path of an image, a folder or a video, a pattern such as `photos/**/*.jpg`, an address of the web or of a
            stream, or `webcam` or `webcam:NUMBER`.
        max_pixels: images of more pixels count as damaged; 0 for the default of `read_image`.
        every: only each such image or frame.
        but: a folder whose images are left out: that of the results.

    Raises:
        UserError: nothing is there, or nothing that can be looked at.
    """
    path = Path(name)
    if not name:
        raise UserError(
            "--demo names an image, a folder, a pattern, a video, an address or 'webcam:NUMBER'; it is missing"
        )
    if is_address(name):
        return open_address(name, max_pixels, every)
    if path.is_dir():
        return Source(image_files(path, but), folder=path, max_pixels=max_pixels, every=every)
    if camera_number(name) is not None:
        return Source(video=open_video(name), every=every)
    if path.exists():
        return open_file(path, max_pixels, every)
    if PATTERN & set(name):
        return open_pattern(name, max_pixels, every)
    raise UserError(f"--demo: no such file or folder: '{name}' (a camera is 'webcam' or 'webcam:NUMBER')")


def open_file(path: Path, max_pixels: int, every: int) -> Source:
    """Open an image or a video, arguments as `open_source` takes them."""
    if not is_animation(path) and (is_image(path) or has_image_content(path)):
        return Source([path], forgiving=False, max_pixels=max_pixels)
    return Source(video=open_video(path), every=every, read=[path])


def open_pattern(pattern: str, max_pixels: int, every: int) -> Source:
    """Open the images, or else the one video, whose paths fit a pattern; arguments as `open_source` takes them.

    Raises:
        UserError: there is none, or several videos.
    """
    found = [Path(each) for each in glob.glob(pattern, recursive=True) if os.path.isfile(each)]
    images = natural_order(path for path in found if is_image(path))
    if images:
        folder = Path(os.path.commonpath([path.parent for path in images]))
        return Source(images, folder=folder, max_pixels=max_pixels, every=every)
    if not found:
        raise UserError(f"--demo: no file fits the pattern '{pattern}'")
    if len(found) > 1:
        raise UserError(f"--demo: no image is among the {len(found)} files of '{pattern}'; videos are looked at singly")
    return open_file(found[0], max_pixels, every)


def open_address(address: str, max_pixels: int, every: int) -> Source:
    """Open an image or a video of the web, or a stream; arguments as `open_source` takes them.

    Raises:
        UserError: it cannot be had, or is neither.
    """
    if not is_web_address(address):
        return Source(video=open_video(address), every=every)
    with contextlib.ExitStack() as after_error:
        folder = tempfile.TemporaryDirectory(prefix='centernet-')
        after_error.callback(folder.cleanup)
        path = download(address, Path(folder.name))
        if path is None:
            return Source(video=open_video(address), every=every)
        try:
            source = open_file(path, max_pixels, every)
        except UserError:
            raise UserError(f"'{without_password(address)}' is neither an image nor a video") from None
        source.download = folder
        after_error.pop_all()
    return source
