"""Videos and cameras."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from ..errors import UserError
from ..files import atomic_path
from ..image import open_lazily
from .addresses import is_address, name_of_address, without_password
from .encoders import Encoder, open_encoder
from .paths import path_of_cv2

VIDEO_SUFFIXES = {'.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv', '.gif'}
DEFAULT_FPS = 30.0  # for cameras, and for files that do not state theirs
SLOWEST_FPS = 0.01
STREAM_TIMEOUT = 10_000  # milliseconds without a frame, after which a stream counts as ended
LARGEST_TIMEBASE = 65_535  # MPEG-4 counts time in fractions whose denominator has 16 bits


class Video:
    """An opened video or camera: iterate over its frames (BGR uint8 [H, W, 3]) once.

    `fps` is frames a second, `length` the number of frames that the file announces, 0 where it is unknown.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str):
        self.capture, self.name = capture, name
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else DEFAULT_FPS  # false for NaN too
        length = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(length) if 0 < length < 1e9 else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.every(1))

    def every(self, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over each `step`-th frame (BGR uint8 [H, W, 3]) with its number from 0."""
        number = 0
        try:
            while True:
                there, frame = self.capture.read()
                if not there:
                    return
                yield number, frame
                if not all(self.capture.grab() for _ in range(step - 1)):
                    return
                number += step
        finally:
            self.capture.release()


def camera_number(name: str) -> int | None:
    """Return the number of a camera named as `webcam` (0) or `webcam:2`; None for any other name.

    Raises:
        UserError: `webcam:` with something that isn't a number.
    """
    kind, colon, number = name.partition(':')
    if kind != 'webcam':
        return None
    if colon and not re.fullmatch(r'[0-9]{1,4}', number):
        raise UserError(f"a camera is 'webcam' or 'webcam:NUMBER' with 0 to 9999, not '{name}'")
    return int(number or 0)


def open_video(name: str | os.PathLike) -> Video:
    """Open a video file, a camera by `webcam` or `webcam:NUMBER`, or a stream by its address (`rtsp://...`).

    Raises:
        UserError: no such file, camera or stream, or not a video that can be read.
    """
    name = os.fspath(name)
    if is_address(name):
        return open_stream(name)
    number = camera_number(name)
    if number is None and not os.path.exists(name):
        raise UserError(f"no such file: '{name}'")
    with quiet_cv2(), path_of_cv2(name) as readable:
        capture = cv2.VideoCapture(readable if number is None else number)
    if capture.isOpened():
        return Video(capture, Path(name).name if number is None else name.replace(':', '_'))
    if number is None:
        raise UserError(f"'{name}' cannot be opened as a video: damaged, or of an unknown kind")
    raise UserError(f'camera {number} does not open; is it connected, and free?')


def open_stream(address: str) -> Video:
    """Open the stream at an address.

    Raises:
        UserError: nothing is sent there.
    """
    patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT]
    with quiet_cv2():
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, patience)
    if not capture.isOpened():
        raise UserError(
            f"the stream '{without_password(address)}' does not open: is the address right, and is it sent?"
        )
    return Video(capture, name_of_address(address))


def is_animation(path: str | os.PathLike) -> bool:
    """Return whether a GIF holds several frames; false for any other file."""
    if Path(path).suffix.lower() != '.gif':
        return False
    try:
        with open_lazily(path) as image:
            return getattr(image, 'n_frames', 1) > 1
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return False


def has_image_content(path: str | os.PathLike) -> bool:
    """Return whether a file that no suffix calls a video begins as an image does."""
    if Path(path).suffix.lower() in VIDEO_SUFFIXES:
        return False
    with path_of_cv2(path) as readable:
        return cv2.haveImageReader(readable)


@contextlib.contextmanager
def quiet_cv2() -> Iterator[None]:
    """Keep cv2 and its FFmpeg from printing what the caller raises as one line."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


class VideoWriter:
    """A video file that is written beside its place and moved there by `close`; the first frame sets the size.

    Its format is what its suffix says. It is H.264, which browsers play, or MPEG-4 where nothing encodes that (see
    encoders.py). An image with an odd side loses its last column or row.

    Args:
        path: the file.
        fps: frames a second, rounded to what MPEG-4 can state (`encodable_fps`).
    """

    def __init__(self, path: str | os.PathLike, fps: float):
        self.path, self.fps = Path(path), encodable_fps(fps)
        self.stack = contextlib.ExitStack()
        self.encoder: Encoder | None = None
        self.size = (0, 0)

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (BGR uint8 [H, W, 3]), stretched to the first one's size where it differs.

        Raises:
            UserError: the encoder does not start.
        """
        encoder = self.encoder or self._open(frame)
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size)
        encoder.write(frame)

    def _open(self, frame: np.ndarray) -> Encoder:
        self.size = width, height = frame.shape[1::-1]
        with contextlib.ExitStack() as stack:
            beside = stack.enter_context(atomic_path(self.path))
            with quiet_cv2():
                encoder = open_encoder(beside, self.fps, self.size)
            if encoder is None:
                raise UserError(f"no video of {width} x {height} pixels can be written to '{self.path}'")
            self.encoder, self.stack = encoder, stack.pop_all()
        return encoder

    def close(self) -> None:
        """Finish the file and move it to its place; without a frame no file is left."""
        if self.encoder is not None:
            self.encoder.close()
        self.stack.close()


def encodable_fps(fps: float) -> float:
    """Round a frame rate to the most decimals that leave MPEG-4's timebase within 16 bits, 3 at most."""
    fps = max(fps, SLOWEST_FPS)
    decimals = next(n for n in (3, 2, 1, 0) if fps * 10**n <= LARGEST_TIMEBASE or n == 0)
    return round(fps, decimals)
