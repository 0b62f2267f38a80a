"""Draw a saved results file on its images.

    python src/tools/vis_pred.py ANNOTATIONS RESULTS IMAGES_DIR --output DIR [--truth]

RESULTS is the list that test.py writes: {image_id, category_id, bbox [x, y, w, h], score, and keypoints
[x, y, v, ...] or extreme_points [x, y, ...]}. Names, skeleton and image files come from ANNOTATIONS, a
COCO-format JSON.
"""

import argparse
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from centernet.datasets.index import read_coco
from centernet.utils.cli import OneLineParser, one_line, run_cli, track
from centernet.utils.drawing import READABLE_SIDE, Detection, draw_detections
from centernet.utils.errors import UserError
from centernet.utils.files import read_json, refuse_overwriting, writable_folder
from centernet.utils.image import read_image
from centernet.utils.media import picture_name, write_image


class Dataset:
    """Images, category names and skeleton of a COCO-format JSON.

    Raises:
        UserError: the file is missing or not of that format.
    """

    def __init__(self, path: str):
        content = read_coco(path, images=('id', 'file_name'), annotations=('image_id',), categories=('id', 'name'))
        self.images = content['images']
        self.annotations = content.get('annotations', [])
        self.classes = {
            category['id']: (number, category['name'])
            for number, category in enumerate(content.get('categories', []), start=1)
        }
        limbs = [limb for category in content.get('categories', []) for limb in category.get('skeleton') or ()]
        self.skeleton = [(first - 1, second - 1) for first, second in limbs]

    def by_image(self, entries: Any, path: str) -> dict[int, list[Detection]]:
        """Annotations or results as detections (see utils/drawing.py) of each image's id.

        Raises:
            UserError: `entries`, of the file `path`, is not a list of boxes.
        """
        found: dict[int, list[Detection]] = defaultdict(list)
        try:
            for entry in entries:
                found[entry['image_id']].append(self._detection(entry))
        except (KeyError, TypeError, ValueError) as error:
            message = f"'{path}' is not a list of {{image_id, category_id, bbox, ...}}: {error!r} in it"
            raise UserError(message) from None
        return found

    def _detection(self, entry: dict) -> Detection:
        number, name = self.classes.get(entry['category_id'], (1, str(entry['category_id'])))
        left, top, width, height = entry['bbox']
        detection = {'class': name, 'class_id': number, 'box': [left, top, left + width, top + height]}
        detection |= {key: entry[key] for key in ('score', 'dim', 'location', 'rotation_y') if key in entry}
        if entry.get('keypoints'):
            joints = np.reshape(entry['keypoints'], (-1, 3))  # [J, 3]
            detection['keypoints'] = joints[:, :2]
            if 'score' not in entry:  # the third number of a prediction isn't COCO's visibility
                detection['visibility'] = joints[:, 2]
        if entry.get('extreme_points'):
            detection['extreme_points'] = np.reshape(entry['extreme_points'], (4, 2))
        return detection


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO-format JSON of the images')
    parser.add_argument('results', help='results.json as test.py writes it')
    parser.add_argument('images_dir', help='folder of the images')
    parser.add_argument('--output', default='vis_pred', help='folder of the pictures (default: %(default)s)')
    parser.add_argument('--thresh', type=float, default=0.3, help='least score drawn (default: %(default)s)')
    parser.add_argument('--limit', type=int, default=0, help='draw the first N images only')
    parser.add_argument('--truth', action='store_true', help='draw the annotations too, on the left')
    opt = parser.parse_args(args)

    dataset = Dataset(opt.annotations)
    truth = dataset.by_image(dataset.annotations, opt.annotations)
    results = dataset.by_image(read_json(opt.results), opt.results)
    images = dataset.images[: opt.limit or None]
    folder = writable_folder(opt.output)
    refuse_overwriting(folder, [opt.images_dir])
    skipped = 0
    for info in track(images, 'vis_pred'):
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        try:
            image = read_image(Path(opt.images_dir) / info['file_name'], size)
        except UserError as error:
            skipped += 1
            print(f'skipped: {one_line(error)}', file=sys.stderr)
            continue
        draw = partial(draw_detections, image, skeleton=dataset.skeleton, least_side=READABLE_SIDE)
        picture = draw(results[info['id']], opt.thresh, calib=info.get('calib'))
        if opt.truth:
            picture = np.hstack([draw(truth[info['id']], calib=info.get('calib')), picture])
        write_image(folder / picture_name(info['file_name'].replace('/', '_')), picture)
    strays = results.keys() - {info['id'] for info in dataset.images}
    if strays:
        print(f'results of {len(strays)} image id(s) that are not in the annotations, {next(iter(strays))} among them')
    print(f"{len(images) - skipped} picture(s) in '{folder}', {skipped} image(s) skipped")
    if images and skipped == len(images):
        raise UserError(f"no image could be read from '{opt.images_dir}'")


if __name__ == '__main__':
    run_cli(main)
