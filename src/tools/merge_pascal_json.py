"""Merge COCO-format annotation files into one, such as Pascal's trainval 2007 and 2012.

Image and annotation ids that collide are renumbered, categories are merged by name. An image that an earlier file
already has (by file name) is left out with its objects.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence

from centernet.datasets.index import Findings, read_coco
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.files import write_json

NEEDED = {
    'images': ('id', 'file_name'),
    'annotations': ('image_id', 'category_id'),
    'categories': ('id', 'name'),
}


def merge(files: Sequence[tuple[str, dict]]) -> dict:
    """One COCO object of several `(name, COCO object)`; images keep their id where it is free."""
    categories: dict[str, dict] = {}
    images: dict[int, dict] = {}
    file_names: set[str] = set()
    annotations = []
    new_ids = free_ids(image['id'] for _, coco in files for image in coco['images'])
    for source, coco in files:
        findings = Findings(source)
        category_of = {c['id']: add_category(categories, c) for c in coco.get('categories', [])}
        image_of = {}
        for image in coco['images']:
            if image['file_name'] in file_names:
                findings.add('images left out, already in an earlier file', image['file_name'])
                continue
            file_names.add(image['file_name'])
            new_id = next(new_ids) if image['id'] in images else image['id']
            image_of[image['id']] = new_id
            images[new_id] = image | {'id': new_id}
        for row in coco.get('annotations', []):
            if row['category_id'] not in category_of:
                findings.add('objects left out, of an unknown category', row['category_id'])
            elif row['image_id'] in image_of:
                annotations.append(
                    row
                    | {
                        'id': len(annotations) + 1,
                        'image_id': image_of[row['image_id']],
                        'category_id': category_of[row['category_id']],
                    }
                )
        findings.report()
    return {
        'images': list(images.values()),
        'annotations': annotations,
        'categories': list(categories.values()),
    }


def free_ids(used: Iterator[int]) -> Iterator[int]:
    return itertools.count(max(used, default=0) + 1)


def add_category(categories: dict[str, dict], category: dict) -> int:
    """The id of a category in the merged file: of its namesake there, its own if free, else a new one."""
    if category['name'] not in categories:
        used = {known['id'] for known in categories.values()}
        new_id = category['id'] if category['id'] not in used else next(free_ids(iter(used)))
        categories[category['name']] = category | {'id': new_id}
    return categories[category['name']]['id']


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('files', nargs='+', help='annotation files to merge, in COCO format')
    parser.add_argument('output', help='file to write (pascal_trainval0712.json)')
    args = parser.parse_args()
    merged = merge([(path, read_coco(path, **NEEDED)) for path in args.files])
    write_json(args.output, merged)
    print(f'{args.output}: {len(merged["images"])} images, {len(merged["annotations"])} objects')


if __name__ == '__main__':
    run_cli(main)
