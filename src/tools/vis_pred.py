"""Draw a saved results file on its images.

    python src/tools/vis_pred.py ANNOTATIONS RESULTS IMAGES_DIR --output DIR [--truth]

RESULTS is the list that test.py writes: {image_id, category_id, bbox [x, y, w, h], score, and keypoints
[x, y, v, ...] or extreme_points [x, y, ...]}. Names, skeleton and image files come from ANNOTATIONS, a
COCO-format JSON.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from centernet.datasets.coco_file import name_of, read_coco, read_numbers, read_results
from centernet.datasets.findings import Findings, printable
from centernet.datasets.image_headers import locate_images
from centernet.utils.cli import OneLineParser, one_line, run_cli, track
from centernet.utils.detections import Detection
from centernet.utils.drawing import READABLE_SIDE, caption, draw_detections
from centernet.utils.errors import UserError
from centernet.utils.files import ReadPaths, refuse_overwriting, writable_folder
from centernet.utils.image import read_image
from centernet.utils.media import drawing_name, write_image

FARTHEST = 1e6  # pixels: coordinates beyond are not drawn


class Dataset:
    """Images, category names and limbs of a COCO-format JSON.

    Attributes:
        images: its images that have a file_name, as `read_coco` returns them.
        annotations: its annotations, likewise.
        classes: category id -> (number from 1, name).
        skeleton: limbs as pairs of 0-based joints.

    Raises:
        UserError: the file is missing or not of that format, or no image has a file_name.
    """

    def __init__(self, path: str):
        content = read_coco(path)
        self.images = [image for image in content['images'] if 'file_name' in image]
        if content['images'] and not self.images:
            raise UserError(f"'{path}': its images have no 'file_name'")
        self.annotations = content['annotations']
        self.classes = {
            category['id']: (number, category['name']) for number, category in enumerate(content['categories'], start=1)
        }
        findings = Findings(path)
        self.skeleton = [limb for category in content['categories'] for limb in limbs(category, findings)]
        findings.report()

    def by_image(self, entries: Iterable[Mapping], path: str, with_score: bool = False) -> dict[int, list[Detection]]:
        """Group annotations or results by image; those that cannot be drawn are named and left out.

        Args:
            entries: as `read_coco` and `read_results` return them.
            path: their file, for messages.
            with_score: each must have a score.

        Returns:
            Image id -> detections (see utils/drawing.py).

        Raises:
            UserError: there are entries, and none can be drawn.
        """
        found: dict[int, list[Detection]] = defaultdict(list)
        findings, count = Findings(path), 0
        for count, entry in enumerate(entries, start=1):
            detection = self._detection(entry)
            if detection is None or 'image_id' not in entry:
                findings.add('entries left out, without image_id, category_id or bbox', name_of(entry, count - 1))
            elif with_score and 'score' not in entry:
                findings.add('entries left out, without a usable score', name_of(entry, count - 1))
            else:
                found[entry['image_id']].append(detection)
        if count and not found:
            raise UserError(f"'{path}' is not a list of {{image_id, category_id, bbox, ...}}: no entry can be drawn")
        findings.report()
        return found

    def _detection(self, entry: Mapping) -> Detection | None:
        if 'category_id' not in entry or not drawable(entry.get('bbox')):
            return None
        number, name = self.classes.get(entry['category_id'], (1, str(entry['category_id'])))
        left, top, width, height = entry['bbox']
        detection = {'class': name, 'class_id': number, 'box': [left, top, left + width, top + height]}
        detection |= {key: entry[key] for key in ('score', 'dim', 'location', 'rotation_y') if key in entry}
        if entry.get('keypoints') and drawable(entry['keypoints']):
            joints = np.reshape(entry['keypoints'], (-1, 3))  # [J, 3]
            detection['keypoints'] = joints[:, :2]
            if 'score' not in entry:  # the third number of a prediction isn't COCO's visibility
                detection['visibility'] = joints[:, 2]
        points = read_numbers(entry.get('extreme_points'), 8)
        if points is not None and drawable(points):
            detection['extreme_points'] = np.reshape(points, (4, 2))
        return detection


def drawable(numbers: Iterable[float] | None) -> bool:
    """Return whether there are numbers, and all are coordinates near enough to be drawn."""
    return numbers is not None and all(abs(number) < FARTHEST for number in numbers)


def limbs(category: Mapping, findings: Findings) -> list[tuple[int, int]]:
    """Read a category's skeleton as pairs of 0-based joints; none, and a finding, where it cannot be used."""
    skeleton = category.get('skeleton') or []
    if not isinstance(skeleton, list):
        skeleton = [None]
    pairs = [read_numbers(limb, 2) for limb in skeleton]
    if any(pair is None or min(pair) < 1 for pair in pairs):
        findings.add(
            "categories whose 'skeleton' is no list of pairs of joints from 1 (it is not drawn)", category['id']
        )
        return []
    return [(int(first) - 1, int(second) - 1) for first, second in pairs]


def free_name(name: str, taken: set[str]) -> str:
    """Choose a name for a drawing that no other has, after the image's path below its folder."""
    name = drawing_name(name.replace('/', '_'))
    path, number = Path(name), 2
    while name.lower() in taken:
        name, number = f'{path.stem}_{number}{path.suffix}', number + 1
    taken.add(name.lower())
    return name


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO-format JSON of the images')
    parser.add_argument('results', help='results.json as test.py writes it')
    parser.add_argument('images_dir', help='folder of the images')
    parser.add_argument('--output', default='vis_pred', help='folder of the drawings (default: %(default)s)')
    parser.add_argument('--thresh', type=float, default=0.3, help='least score drawn (default: %(default)s)')
    parser.add_argument('--limit', type=int, default=0, help='draw the first N images only')
    parser.add_argument('--truth', action='store_true', help='draw the annotations too, on the left')
    opt = parser.parse_args(args)

    dataset = Dataset(opt.annotations)
    truth = dataset.by_image(dataset.annotations, opt.annotations) if opt.truth else {}
    results = dataset.by_image(read_results(opt.results), opt.results, with_score=True)
    images = dataset.images[: opt.limit or None]
    folder = writable_folder(opt.output)
    refuse_overwriting(folder, [opt.images_dir])
    names = locate_images(opt.images_dir, [image['file_name'] for image in images])
    paths = [Path(opt.images_dir) / name for name in names]
    read = ReadPaths([opt.annotations, opt.results, *paths])
    skipped = 0
    taken: set[str] = set()
    for info, name, path in track(list(zip(images, names, paths, strict=True)), 'vis_pred'):
        size = (info['width'], info['height']) if 'width' in info else None
        try:
            image = read_image(path, size)
        except UserError as error:
            skipped += 1
            print(f'skipped: {printable(one_line(error))}', file=sys.stderr)
            continue
        calib = read_numbers(info.get('calib'), 12)
        draw = partial(
            draw_detections,
            image,
            skeleton=dataset.skeleton,
            calib=None if calib is None else np.reshape(calib, (3, 4)),
            least_side=READABLE_SIDE,
        )
        drawing = draw(results.get(info['id'], []), opt.thresh)
        if opt.truth:
            panels = {'truth': draw(truth.get(info['id'], [])), 'found': drawing}
            drawing = np.hstack([caption(panel, title) for title, panel in panels.items()])
        place = folder / free_name(name, taken)
        read.refuse(place)
        write_image(place, drawing)
    strays = results.keys() - {info['id'] for info in dataset.images}
    if strays:
        print(f'results of {len(strays)} image id(s) that are not in the annotations, {next(iter(strays))} among them')
    print(f"{len(images) - skipped} drawing(s) in '{folder}', {skipped} image(s) skipped")
    if images and skipped == len(images):
        raise UserError(f"no image could be read from '{opt.images_dir}'")


if __name__ == '__main__':
    run_cli(main)
