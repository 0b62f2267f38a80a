"""Pictures, videos and windows: what goes in and out of the programs that look."""

import contextlib
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError
from .files import atomic_path

IMAGE_SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.jp2'}
VIDEO_SUFFIXES = {'.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv', '.gif'}
ESCAPE = 27
DEFAULT_FPS = 30.0  # for cameras and files that don't tell theirs


# ------------------------------------------------------------------------------------------------ windows


@functools.cache
def has_display() -> bool:
    """Whether a window can be opened; tried once, in another process, since cv2 aborts where it cannot."""
    screens = os.environ.get('DISPLAY'), os.environ.get('WAYLAND_DISPLAY')
    if sys.platform.startswith('linux') and not any(screens):
        return False
    probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    try:
        return subprocess.run([sys.executable, '-c', probe], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def show_pictures(pictures: Mapping[str, np.ndarray], pause: bool) -> bool:
    """Show pictures [H, W, 3] in windows of their titles; those larger than a usual screen are shown smaller.

    Args:
        pause: wait for a key, or until the windows are closed; otherwise go on at once.

    Returns:
        Whether Esc was pressed.

    Raises:
        UserError: there is no display.
    """
    if not has_display():
        raise UserError('no display to show pictures on; save them instead')
    titles = [title for title, image in pictures.items() if image.size]
    for title in titles:
        cv2.imshow(title, fit_screen(pictures[title]))
    while True:
        key = cv2.waitKey(50 if pause else 1)
        if key != -1 or not pause:
            return key & 0xFF == ESCAPE
        if all(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1 for title in titles):
            return False


def fit_screen(image: np.ndarray, largest: tuple[int, int] = (1600, 900)) -> np.ndarray:
    """The picture, made smaller where it exceeds `largest` (width, height)."""
    factor = min(largest[0] / image.shape[1], largest[1] / image.shape[0])
    return image if factor >= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


# ------------------------------------------------------------------------------------------------- images


def natural_key(name: str) -> list:
    """Sorting key by which 'b2' comes before 'b10', whatever the case."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name.lower())]


def image_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder (not of its subfolders, not hidden ones) in natural order of their names.

    Raises:
        UserError: the folder is missing or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such folder: '{folder}'")
    found = [path for path in folder.iterdir() if is_image(path) and not path.name.startswith('.')]
    if not found:
        raise UserError(f"no image in '{folder}' (looked for {' '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(found, key=lambda path: natural_key(path.name))


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def write_image(path: str | os.PathLike, image: np.ndarray, encoding: Sequence[int] = ()) -> None:
    """Write a picture (BGR uint8 [H, W, 3]) in the format that the name's suffix says, whole or not at all.

    Args:
        encoding: cv2's flags and their values, such as `[cv2.IMWRITE_JPEG_QUALITY, 92]`.

    Raises:
        UserError: the picture is empty or the suffix unknown.
        OSError: the disk refused.
    """
    suffix = Path(path).suffix
    try:
        written, data = cv2.imencode(suffix, image, encoding)
    except cv2.error:
        written = False
    if not written:
        raise UserError(f"'{path}': cannot write a picture of shape {image.shape} as '{suffix}'")
    with atomic_path(path) as beside:
        beside.write_bytes(data)


def picture_name(name: str) -> str:
    """The name under which the drawing of image `name` is saved: JPEG and PNG keep theirs, others become PNG."""
    return name if Path(name).suffix.lower() in {'.jpg', '.jpeg', '.png'} else f'{name}.png'


# ------------------------------------------------------------------------------------------------- videos


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
        try:
            while True:
                there, frame = self.capture.read()
                if not there:
                    return
                yield frame
        finally:
            self.capture.release()


def camera_number(name: str) -> int | None:
    """The number of a camera named as `webcam` (0) or `webcam:2`; None for any other name.

    Raises:
        UserError: `webcam:` with something that isn't a number.
    """
    kind, colon, number = name.partition(':')
    if kind != 'webcam':
        return None
    if colon and not number.isdigit():
        raise UserError(f"a camera is 'webcam' or 'webcam:NUMBER', not '{name}'")
    return int(number or 0)


def open_video(name: str | os.PathLike) -> Video:
    """Open a video file, or a camera by `webcam` or `webcam:NUMBER`.

    Raises:
        UserError: no such file or camera, or not a video that can be read.
    """
    name = os.fspath(name)
    number = camera_number(name)
    if number is None and not os.path.exists(name):
        raise UserError(f"no such file: '{name}'")
    with quiet_cv2():
        capture = cv2.VideoCapture(name if number is None else number)
    if capture.isOpened():
        return Video(capture, Path(name).name if number is None else name.replace(':', '_'))
    if number is None:
        raise UserError(f"'{name}' cannot be opened as a video: damaged, or of an unknown kind")
    raise UserError(f'camera {number} does not open; is it connected, and free?')


@contextlib.contextmanager
def quiet_cv2() -> Iterator[None]:
    """Keeps cv2 and its FFmpeg from printing what the caller tells in one line."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


class VideoWriter:
    """An MP4 file that is written beside its place and moved there by `close`; the first frame sets the size.

    FFmpeg's encoder drops the last column or row of a picture with an odd side.
    """

    def __init__(self, path: str | os.PathLike, fps: float):
        self.path, self.fps = Path(path), fps
        self.stack = contextlib.ExitStack()
        self.writer: cv2.VideoWriter | None = None
        self.size = (0, 0)

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (BGR uint8 [H, W, 3]), stretched to the first one's size where it differs.

        Raises:
            UserError: the encoder does not start.
        """
        if self.writer is None:
            self._open(frame)
        elif frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size)
        self.writer.write(frame)

    def _open(self, frame: np.ndarray) -> None:
        self.size = width, height = frame.shape[1::-1]
        codec = cv2.VideoWriter_fourcc(*'mp4v')
        with contextlib.ExitStack() as stack:
            beside = stack.enter_context(atomic_path(self.path))
            with quiet_cv2():
                writer = cv2.VideoWriter(os.fspath(beside), codec, self.fps, self.size)
            if not writer.isOpened():
                raise UserError(f"no video of {width} x {height} pixels can be written to '{self.path}'")
            self.writer, self.stack = writer, stack.pop_all()

    def close(self) -> None:
        """Finish the file and move it to its place; without a frame no file is left."""
        if self.writer is not None:
            self.writer.release()
        self.stack.close()
