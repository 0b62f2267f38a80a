"""Encoders of videos: H.264 of OpenCV, or of the package `av`; MPEG-4, which browsers do not play, without both.

OpenCV's own wheels encode no H.264 on Linux, where `av` does.
"""

import logging
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from .paths import path_of_cv2

logger = logging.getLogger(__name__)

FORMATS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.avi': 'avi'}  # that hold H.264
QUALITY = {'crf': '20', 'preset': 'veryfast'}  # of x264: good, and quick


class Encoder(Protocol):
    """Writes the frames of a video into its file."""

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, BGR uint8 [H, W, 3] of the size that the video was opened with."""

    def close(self) -> None:
        """Finish the file."""


class Cv2Encoder:
    """Writes by OpenCV, with the codec of a name of four letters.

    Raises:
        ValueError: OpenCV has no such codec, or the codec no such size.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], codec: str):
        with path_of_cv2(path) as writable:
            self.writer = cv2.VideoWriter(writable, cv2.VideoWriter.fourcc(*codec), fps, size)
        if not self.writer.isOpened():
            raise ValueError(f'no {codec}')

    def write(self, frame: np.ndarray) -> None:
        """Add a frame [H, W, 3]."""
        self.writer.write(frame)

    def close(self) -> None:
        """Finish the file."""
        self.writer.release()


class AvEncoder:
    """Writes H.264 by the package `av`, with the index in front, so that a browser starts at once.

    Raises:
        ValueError: the package is not there, has no such codec, or the codec no such size.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        self.width, self.height = (side // 2 * 2 for side in size)  # colours have half the resolution
        kind = FORMATS.get(path.suffix.lower())
        if kind is None or not (self.width and self.height):
            raise ValueError(f'no H.264 of {size} in {path.suffix}')
        try:
            import av
        except ImportError:
            raise ValueError('no package av') from None
        self.make_frame = partial(av.VideoFrame.from_ndarray, format='bgr24')
        self.file = open(path, 'wb')  # noqa: SIM115  closed in close()
        try:
            options = {'movflags': 'faststart'} if kind in ('mp4', 'mov') else {}
            self.container: Any = av.open(self.file, 'w', format=kind, options=options)
            self.stream = self.container.add_stream('h264', rate=Fraction(str(fps)), options=QUALITY)
            self.stream.width, self.stream.height, self.stream.pix_fmt = self.width, self.height, 'yuv420p'
            self.stream.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            self.file.close()
            raise ValueError(str(error)) from None

    def write(self, frame: np.ndarray) -> None:
        """Add a frame [H, W, 3]."""
        pixels = np.ascontiguousarray(frame[: self.height, : self.width])
        self.container.mux(self.stream.encode(self.make_frame(pixels)))

    def close(self) -> None:
        """Finish the file."""
        with self.file:
            self.container.mux(self.stream.encode(None))
            self.container.close()


# In the order in which they are tried.
H264: tuple[Callable[[Path, float, tuple[int, int]], Encoder], ...] = (
    lambda path, fps, size: Cv2Encoder(path, fps, size, 'avc1'),
    AvEncoder,
)


def open_encoder(path: Path, fps: float, size: tuple[int, int]) -> Encoder | None:
    """Open the first encoder that does it.

    Args:
        path: the file, whose suffix says its format.
        fps: frames a second.
        size: (width, height) of the frames.

    Returns:
        None where none does.
    """
    for start in H264:
        try:
            return start(path, fps, size)
        except ValueError:
            continue
    try:
        encoder = Cv2Encoder(path, fps, size, 'mp4v')
    except ValueError:
        return None
    logger.warning('note: the video is MPEG-4, which browsers do not play (pip install av for H.264)')
    return encoder
