"""Look: detect in an image, a folder of images, a video or a camera's frames, and draw what was found.

    python demo.py ctdet --demo PATH --load_model MODEL.pth

PATH is a file, a folder, `webcam` or `webcam:NUMBER`. The drawn images (or the video) and `results.json`, a
list of every detection, go into `--output`. With a display they are shown too: any key goes on to the next
image, Esc ends.
"""

import contextlib
import os
import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from lib.detectors.base_detector import TIMES, BaseDetector
from lib.detectors.detector_factory import detector_factory
from lib.opts import opts
from lib.utils.cli import one_line, run_cli, track
from lib.utils.detections import Detection
from lib.utils.drawing import READABLE_SIDE
from lib.utils.errors import UserError
from lib.utils.files import (
    ReadPaths,
    atomic_path,
    encode_json,
    refuse_overwriting,
    refuse_replacing,
    writable_folder,
)
from lib.utils.image import read_image
from lib.utils.media import (
    Video,
    VideoWriter,
    camera_number,
    drawing_name,
    has_display,
    has_image_content,
    image_files,
    is_animation,
    is_image,
    open_video,
    show_images,
    with_ending,
    write_image,
)

JSON_START = '[\n'
FIRST_ENTRY = JSON_START + '{"image": '  # with which the list of detections begins


def main(args: list[str] | None = None) -> None:
    opt = opts().init(args)
    source = open_source(opt.demo, opt.max_pixels)
    folder = writable_folder(opt.output or Path(opt.save_dir) / 'demo')
    outputs = Outputs(opt, source, folder)
    detector = detector_factory[opt.task](opt)
    with sigterm_interrupts():
        demo(opt, detector, source, outputs)


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While it is entered, SIGTERM does as Ctrl-C: what was done is kept."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def demo(opt: Namespace, detector: BaseDetector, source: 'Source', outputs: 'Outputs') -> None:
    """Run the detector over the source; what was done before Ctrl-C, SIGTERM or an error is kept."""
    window = has_display() and not opt.no_display
    seconds: Counter[str] = Counter()
    try:
        for frame in track(source, 'demo', source.total) if source.total else source:
            try:
                meta = detector.image_meta(frame.name)
            except UserError as error:
                source.skip(error)
                continue
            found = detector.run(frame.image, meta)
            detections = detector.describe(found)
            drawings = detector.draw(frame.image, detections, meta, outputs.least_side)
            outputs.add(frame, detections, drawings)
            seconds.update({stage: found[stage] for stage in TIMES})
            seconds.update(tot=frame.seconds, load=frame.seconds)
            if window and show_images(drawings, pause=source.video is None):
                break
    finally:
        outputs.close()
        report(source, outputs, seconds)
    if not outputs.count:
        raise UserError(f"nothing could be read from '{opt.demo}'")


def report(source: 'Source', outputs: 'Outputs', seconds: Counter) -> None:
    """Print the last lines: what was left out, where the results are, and the mean time of each stage."""
    if source.skipped:
        print(f'skipped {source.skipped} image(s)')
    if source.exhausted and 0 < outputs.count < source.total:
        print(f'{outputs.count} of the {source.total} frames that the file announces were read')
    if outputs.count:
        print(f"{outputs.count} image(s) drawn in '{outputs.place}', detections in '{outputs.json.path}'")
        means = ' | '.join(f'{stage} {seconds[stage] / outputs.count:.3f}' for stage in TIMES)
        print(f'mean seconds an image: {means}')


# ---------------------------------------------------------------------------------------------- what comes in


class Frame(NamedTuple):
    """An image (BGR uint8 [H, W, 3]), its file's name, its 0-based number in a video, the seconds to read it."""

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
        return self._images() if self.video is None else self._frames()

    def _images(self) -> Iterator[Frame]:
        for path in self.paths:
            start = time.perf_counter()
            try:
                image = read_image(path, max_pixels=self.max_pixels)
            except UserError as error:
                self.skip(error)
                continue
            yield Frame(image, path.name, None, time.perf_counter() - start)

    def _frames(self) -> Iterator[Frame]:
        start = time.perf_counter()
        for number, image in enumerate(self.video):
            yield Frame(image, self.video.name, number, time.perf_counter() - start)
            start = time.perf_counter()
        self.exhausted = True

    def skip(self, error: UserError) -> None:
        """Leave out the image at hand for what is wrong with it, or raise that when no other was asked for."""
        if not self.forgiving:
            raise error
        self.skipped += 1
        print(f'skipped: {one_line(error)}', file=sys.stderr)


def open_source(name: str, max_pixels: int = 0) -> Source:
    """Open the source that `--demo` names; images of more than `max_pixels` are refused.

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


# --------------------------------------------------------------------------------------------- what goes out


class Outputs:
    """The drawn images or video, and the list of detections.

    `least_side` is what images are to be enlarged to: those of a video keep their size.

    Raises:
        UserError: an output would overwrite what is read, or a file that is not an earlier output of the demo's; or
            --save_video has no video to save.
    """

    def __init__(self, opt: Namespace, source: Source, folder: Path):
        self.folder, self.demo = folder, opt.demo
        self.least_side = READABLE_SIDE if source.video is None else 0
        self.json = JsonList(folder / 'results.json')
        self.fps: float | None = None  # of the video that is read
        self.videos: dict[str, VideoWriter] = {}  # by what its name ends in
        self.place = folder
        self.count = 0
        self.names: set[str] = set()
        if source.video is not None:
            self.place = Path(opt.save_video or folder / f'{Path(source.video.name).stem}.mp4')
            self.fps = source.video.fps
            names, read = [], [opt.demo]
        elif opt.save_video:
            raise UserError(f"--save_video needs a video or a camera, '{opt.demo}' is neither")
        else:
            names, read = [drawing_name(path.name) for path in source.paths], source.paths
            refuse_overwriting(folder, [source.paths[0].parent])
        self.read = ReadPaths(read)
        self.is_own = bool(not opt.output or holds_earlier_output(folder))
        for path in (self.json.path, self.place, *(folder / name for name in names)):
            self._refuse(path)

    def add(self, frame: Frame, detections: list[Detection], drawings: dict[str, np.ndarray]) -> None:
        """Save one image's detections and drawings.

        The first drawing gets the image's (or the video's) name; those of the others end in what they are.
        """
        (_, first), *others = drawings.items()
        self._save(first, drawing_name(frame.name, first.shape[1::-1]), '')
        for title, other in others:
            self._save(other, with_ending(Path(frame.name).stem, f'_{title}.png'), f'_{title}')
        height, width = frame.image.shape[:2]
        number = {} if frame.number is None else {'frame': frame.number}
        entry = {'image': frame.name, **number, 'width': width, 'height': height, 'detections': detections}
        self.json.append(entry)
        self.count += 1

    def _save(self, drawing: np.ndarray, name: str, ending: str) -> None:
        """Save a drawing as the image `name`, or as the next frame of the video whose name has that ending."""
        if self.fps is None:
            path = self.folder / self._free_name(name)
            self._refuse(path)
            write_image(path, drawing)
            return
        if ending not in self.videos:
            path = self.place.with_name(f'{self.place.stem}{ending}{self.place.suffix}')
            self._refuse(path)
            self.videos[ending] = VideoWriter(path, self.fps)
        self.videos[ending].write(drawing)

    def _refuse(self, path: Path) -> None:
        """Raise a UserError if writing to `path` would replace what is read, or what the demo did not make.

        A file that `--save_video` names is the user's to give.
        """
        self.read.refuse(path)
        if path.parent == self.folder:
            refuse_replacing(path, lambda path: self.is_own)

    def _free_name(self, name: str) -> str:
        """Return `name`, or `name` with a number where this run has used it, be it in other case."""
        stem, suffix = os.path.splitext(name)
        number = 0
        while name.casefold() in self.names:
            number += 1
            name = with_ending(stem, f'_{number}{suffix}')
        self.names.add(name.casefold())
        return name

    def close(self) -> None:
        """Move the list and the videos to their places."""
        with contextlib.ExitStack() as stack:
            for video in self.videos.values():
                stack.callback(video.close)
            self.json.close()


class JsonList:
    """A JSON list that grows on the disk, so that a long video takes no memory; `close` moves it to its place."""

    def __init__(self, path: Path):
        self.path = path
        self.stack = contextlib.ExitStack()
        self.file: TextIO | None = None

    def append(self, value: Any) -> None:
        """Write one more entry; the first one starts the file."""
        text = encode_json(value, f"'{self.path}'")
        separator = ',\n' if self.file else JSON_START
        if self.file is None:
            self.file = self.stack.enter_context(text_file(self.path))
        self.file.write(separator + text)

    def close(self) -> None:
        """Finish the list; without an entry no file is left."""
        with self.stack:
            if self.file is not None:
                self.file.write('\n]\n')


def holds_earlier_output(folder: Path) -> bool:
    """Return whether the demo wrote into a folder before: its results are there, or begun when it was killed."""
    for path in folder.glob('*results*.json'):
        with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding='utf-8') as file:
            if file.read(len(FIRST_ENTRY)) in (FIRST_ENTRY, ''):
                return True
    return False


@contextlib.contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """Open a text file that is at `path` only once it is whole."""
    with atomic_path(path) as beside, open(beside, 'w', encoding='utf-8') as file:
        yield file


if __name__ == '__main__':
    run_cli(main)
