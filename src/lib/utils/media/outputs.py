"""The outputs of the demo: drawn images or videos, and lists, tables and cut-outs of what was found."""

import contextlib
import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ..detections import Detection
from ..drawing import READABLE_SIDE
from ..errors import UserError
from ..files import ReadPaths, atomic_path, encode_json, refuse_overwriting, refuse_replacing
from ..thresholds import reaches
from .image_files import drawing_name, with_ending, write_image
from .labels import COLUMNS, table_row, yolo_lines
from .sources import Frame, Source
from .video import VideoWriter

if TYPE_CHECKING:
    from ...opts import Options

JSON_START = '[\n'
FIRST_ENTRY = JSON_START + '{"image": '  # with which the list of detections begins


class Outputs:
    """The drawn images or video, the list of detections, and with the options that ask for them:

    `detections.csv`, a table of the same detections; `labels/`, a YOLO file an image, and `classes.txt`; `crops/`, the
    drawn objects cut out, in a folder a class.

    Args:
        opt: options; those of the demo are read.
        source: what is looked at.
        folder: where the results go.

    Attributes:
        least_side: images whose longer side has fewer pixels are drawn enlarged; 0 for videos, which keep their size.
        place: the folder of the drawings, or the video.
        count: images that were added.
        drawn: how many objects of each class were drawn.

    Raises:
        UserError: an output would overwrite what is read, or a file that is not an earlier output of the demo's; or
            --save_video has no video to save.
    """

    def __init__(self, opt: 'Options', source: Source, folder: Path):
        self.opt, self.folder = opt, folder
        self.least_side = READABLE_SIDE if source.video is None else 0
        self.json = JsonList(folder / 'results.json')
        self.table = CsvTable(folder / 'detections.csv') if opt.save_csv else None
        self.fps: float | None = None  # of the video that is written
        self.videos: dict[str, VideoWriter] = {}  # by what its name ends in
        self.place = folder
        self.count = 0
        self.drawn: Counter[str] = Counter()
        self.names: set[str] = set()
        names: list[str] = []
        if source.video is not None:
            self.place = Path(opt.save_video or folder / f'{Path(source.video.name).stem}.mp4')
            self.fps = source.video.fps / opt.every
        elif opt.save_video:
            raise UserError(f"--save_video needs a video or a camera, '{opt.demo}' is neither")
        else:
            names = [renamed(name, drawing_name) for name in source.names]
            refuse_overwriting(folder, {path.parent for path in source.paths})
        self.read = ReadPaths(source.read)
        self.is_own = bool(not opt.output or holds_earlier_output(folder))
        tables = [self.table.path] if self.table else []
        labels = [folder / 'classes.txt'] if opt.save_txt else []
        for path in (self.json.path, self.place, *tables, *labels, *(folder / name for name in names)):
            self._refuse(path)
        if opt.save_txt:
            write_text(folder / 'classes.txt', opt.class_names)

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
        self._save(first, renamed(frame.name, lambda name: drawing_name(name, first.shape[1::-1])), '')
        for title, other in others:
            self._save(other, numbered(frame.name, f'_{title}.png'), f'_{title}')
        drawn = [detection for detection in detections if reaches(self.opt.vis_thresh, detection)]
        listed = [detection for detection in detections if not detection['score'] < self.opt.min_score]  # NaN is shown
        self._list(frame, listed)
        if self.opt.save_txt:
            self._save_labels(frame, drawn)
        if self.opt.save_crops:
            self._save_crops(frame, drawn)
        self.drawn.update(detection['class'] for detection in drawn)
        self.count += 1

    def _list(self, frame: Frame, detections: list[Detection]) -> None:
        """Add an image's detections to the list and to the table."""
        height, width = frame.image.shape[:2]
        number = {} if frame.number is None else {'frame': frame.number}
        self.json.append({'image': frame.name, **number, 'width': width, 'height': height, 'detections': detections})
        if self.table is not None:
            for detection in detections:
                self.table.append(table_row(detection, frame.name, frame.number))

    def _save_labels(self, frame: Frame, drawn: list[Detection]) -> None:
        """Write an image's YOLO file, which is empty where nothing is drawn."""
        path = self.folder / self._free_name(f'labels/{numbered(frame.name, ".txt", frame.number)}')
        self._refuse(path)
        height, width = frame.image.shape[:2]
        write_text(path, yolo_lines(drawn, (width, height)))

    def _save_crops(self, frame: Frame, drawn: list[Detection]) -> None:
        """Cut the drawn objects out of the image; what lies outside is left out."""
        height, width = frame.image.shape[:2]
        for index, detection in enumerate(drawn):
            x1, y1, x2, y2 = np.rint(np.clip(detection['box'], 0, [width, height, width, height])).astype(int).tolist()
            crop = frame.image[y1:y2, x1:x2]
            if crop.size:
                label = re.sub(r'[^\w .-]+', '_', detection['class']).strip('. ') or '_'
                name = f'crops/{label}/{numbered(frame.name, f"_{index}.jpg", frame.number)}'
                path = self.folder / self._free_name(name)
                self._refuse(path)
                write_image(path, crop)

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
        if self.folder in path.parents:
            refuse_replacing(path, lambda path: self.is_own)

    def _free_name(self, name: str) -> str:
        """Return `name`, or `name` with a number where this run has used it, be it in other case."""
        stem, suffix = os.path.splitext(PurePosixPath(name).name)
        number, free = 0, name
        while free.casefold() in self.names:
            number += 1
            free = renamed(name, lambda _: with_ending(stem, f'_{number}{suffix}'))  # noqa: B023  called at once
        self.names.add(free.casefold())
        return free

    def close(self) -> None:
        """Move the list, the table and the videos to their places."""
        with contextlib.ExitStack() as stack:
            for video in self.videos.values():
                stack.callback(video.close)
            if self.table is not None:
                stack.callback(self.table.close)
            self.json.close()


def renamed(path: str, change: Callable[[str], str]) -> str:
    """Return a path with the name of its file changed."""
    return str(PurePosixPath(path).with_name(change(PurePosixPath(path).name)))


def numbered(path: str, ending: str, number: int | None = None) -> str:
    """Return a path whose file ends, in place of its suffix, in the number of a frame and in `ending`."""
    frame = '' if number is None else f'_{number}'
    return renamed(path, lambda name: with_ending(Path(name).stem, frame + ending))


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


class CsvTable:
    """A table of detections that grows on the disk as `JsonList` does; its first row says which columns it has."""

    def __init__(self, path: Path):
        self.path = path
        self.stack = contextlib.ExitStack()
        self.writer: csv.DictWriter | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Write one more row, `{column: value}`; the first one starts the file."""
        writer = self.writer or self._start(list(row))
        writer.writerow(row)

    def _start(self, columns: list[str]) -> csv.DictWriter:
        file = self.stack.enter_context(text_file(self.path))
        self.writer = csv.DictWriter(file, columns, lineterminator='\n')
        self.writer.writeheader()
        return self.writer

    def close(self) -> None:
        """Finish the table; without a row it has its first columns alone."""
        with self.stack:
            if self.writer is None:
                self._start(list(COLUMNS))


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


def write_text(path: Path, lines: list[str]) -> None:
    """Write lines into a text file, whole or not at all."""
    with atomic_path(path, durable=False) as beside:
        beside.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
