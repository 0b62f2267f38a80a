"""Merge COCO-format annotation files into one, such as Pascal's trainval 2007 and 2012.

Image ids that collide and all annotation ids are renumbered, categories are merged by name. An image that an earlier
file already has (by file name) is left out with its objects. No file is replaced but an earlier merge of the same
files.
"""

import argparse
import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence

from centernet.datasets.coco_file import name_of, read_coco
from centernet.datasets.conversion import MARK, is_own
from centernet.datasets.findings import Findings
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError
from centernet.utils.files import refuse_overwriting, refuse_replacing, write_json

TOOL = 'merge_pascal_json'


def merge(files: Sequence[tuple[str, dict]]) -> dict:
    """Merge several COCO objects into one.

    Args:
        files: names, for messages, and contents as `read_coco` returns them.

    Returns:
        All their images, which keep their ids where those are free, with their objects and all categories.
    """
    categories: dict[str, dict] = {}
    images: dict[int, dict] = {}
    file_names: set[str] = set()
    annotations: list[dict] = []
    new_ids = free_ids({image['id'] for _, coco in files for image in coco['images']})
    for source, coco in files:
        findings = Findings(source)
        category_of = {category['id']: add_category(categories, category) for category in coco['categories']}
        image_of = {}
        for image in coco['images']:
            if 'file_name' not in image:
                findings.add('images left out, without a file_name (ids)', image['id'])
                continue
            if image['file_name'] in file_names:
                findings.add('images left out, already in an earlier file', image['file_name'])
                continue
            file_names.add(image['file_name'])
            new_id = next(new_ids) if image['id'] in images else image['id']
            image_of[image['id']] = new_id
            images[new_id] = image | {'id': new_id}
        known_ids = {image['id'] for image in coco['images']}
        for place, row in enumerate(coco['annotations']):
            image_id, category_id = row.get('image_id'), row.get('category_id')
            if category_id not in category_of:
                findings.add('objects left out, of an unknown category (ids)', name_of(row, place))
            elif image_id in image_of:
                ids = {'image_id': image_of[image_id], 'category_id': category_of[category_id]}
                annotations.append(row | {'id': len(annotations) + 1} | ids)
            elif image_id not in known_ids:
                findings.add('objects left out, of an unknown image (ids)', name_of(row, place))
        findings.report()
    return {
        'images': list(images.values()),
        'annotations': annotations,
        'categories': list(categories.values()),
    }


def free_ids(used: Collection[int]) -> Iterator[int]:
    """Iterate over the integers from 1 that are not in `used`."""
    return (number for number in itertools.count(1) if number not in used)


def add_category(categories: dict[str, dict], category: Mapping) -> int:
    """Add a category; return its id in the merged file: its namesake's there, its own if free, else a new one."""
    if category['name'] not in categories:
        used = {known['id'] for known in categories.values()}
        new_id = category['id'] if category['id'] not in used else next(free_ids(used))
        categories[category['name']] = {**category, 'id': new_id}
    return categories[category['name']]['id']


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('files', nargs='+', help='two or more annotation files to merge, in COCO format')
    parser.add_argument('output', help='file to write (pascal_trainval0712.json)')
    args = parser.parse_args()
    refuse_overwriting(args.output, args.files, 'OUTPUT')
    if len(args.files) < 2:
        raise UserError(f"expected two or more FILES and OUTPUT, found '{args.files[0]}' and OUTPUT '{args.output}'")
    mark = {'tool': TOOL, 'files': [os.path.realpath(path) for path in args.files]}
    refuse_replacing(args.output, lambda existing: is_own(existing, mark), 'OUTPUT')
    merged = merge([(path, read_coco(path)) for path in args.files])
    if not merged['images']:
        raise UserError(f'nothing to merge: no image with an id and a file_name in {", ".join(args.files)}')
    write_json(args.output, merged | {MARK: mark})
    print(f'{args.output}: {len(merged["images"])} images, {len(merged["annotations"])} objects')


if __name__ == '__main__':
    run_cli(main)
