"""The outputs of the demo: drawn images or videos, and the list of all detections."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ..detections import Detection
from ..drawing import READABLE_SIDE
from ..errors import UserError
from ..files import ReadPaths, atomic_path, encode_json, refuse_overwriting, refuse_replacing
from .image_files import drawing_name, with_ending, write_image
from .sources import Frame, Source
from .video import VideoWriter

if TYPE_CHECKING:
    from ...opts import Options

JSON_START = '[\n'
FIRST_ENTRY = JSON_START + '{"image": '  # with which the list of detections begins


class Outputs:
    """The drawn images or video, and the list of detections.

    Args:
        opt: options; `demo`, `output` and `save_video` are read.
        source: what is looked at.
        folder: where the results go.

    Attributes:
        least_side: images whose longer side has fewer pixels are drawn enlarged; 0 for videos, which keep their size.
        place: the folder of the drawings, or the video.
        count: images that were added.

    Raises:
        UserError: an output would overwrite what is read, or a file that is not an earlier output of the demo's; or
            --save_video has no video to save.
    """

    def __init__(self, opt: 'Options', source: Source, folder: Path):
        self.folder, self.demo = folder, opt.demo
        self.least_side = READABLE_SIDE if source.video is None else 0
        self.json = JsonList(folder / 'results.json')
        self.fps: float | None = None  # of the video that is read
        self.videos: dict[str, VideoWriter] = {}  # by what its name ends in
        self.place = folder
        self.count = 0
        self.names: set[str] = set()
        names: list[str] = []
        read: list[str | Path]
        if source.video is not None:
            self.place = Path(opt.save_video or folder / f'{Path(source.video.name).stem}.mp4')
            self.fps = source.video.fps
            read = [opt.demo]
        elif opt.save_video:
            raise UserError(f"--save_video needs a video or a camera, '{opt.demo}' is neither")
        else:
            names, read = [drawing_name(path.name) for path in source.paths], [*source.paths]
            refuse_overwriting(folder, [source.paths[0].parent])
        self.read = ReadPaths(read)
        self.is_own = bool(not opt.output or holds_earlier_output(folder))
        for path in (self.json.path, self.place, *(folder / name for name in names)):
            self._refuse(path)

    def add(self, frame: Frame, detections: list[Detection], drawings: dict[str, np.ndarray]) -> None:
        """Save one image's detections and drawings.

        The first drawing gets the image's (or the video's) name; those of the others end in what they are.

        Args:
            frame: the image.
            detections: all that were found in it.
            drawings: {title: BGR uint8 [H, W, 3]}.

        Raises:
            UserError: a number is not finite, or a file cannot be written or would replace another's.
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
