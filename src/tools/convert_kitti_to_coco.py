"""Make data/kitti's annotations and images from KITTI's object detection folders.

KITTI holds training/{image_2,label_2,calib}, perhaps testing/{image_2,calib}, and perhaps lists of frames:
ImageSets_3dop and ImageSets_subcnn, or one ImageSets (taken as that of --split), with train.txt, val.txt, trainval.txt,
test.txt. Without lists all frames are used and train and val are drawn at random.
Written: OUTPUT/annotations/kitti_{SPLIT_train,SPLIT_val,trainval,test}.json, OUTPUT/images/{trainval,test}/*.png.
"""

import argparse
from pathlib import Path

from centernet.datasets.conversion import coco_box, place_file, read_names, split_randomly, usable_picture
from centernet.datasets.evaluation.kitti_eval import (
    ALPHA,
    BOX,
    DIMS,
    LOCATION,
    OCCLUDED,
    ROTATION,
    TRUNCATED,
    read_lines,
)
from centernet.datasets.index import Findings
from centernet.datasets.kitti_files import CATEGORIES
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.ddd_utils import read_calib
from centernet.utils.errors import UserError
from centernet.utils.files import write_json

CATEGORY_IDS = {name.lower(): i for i, name in enumerate(CATEGORIES, start=1)}
SPLITS = ('3dop', 'subcnn')


def frames_of(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / 'image_2').glob('*.png'))


def find_image_sets(kitti: Path, split: str, val_fraction: float, seed: int) -> dict[str, list[str]]:
    """`{name of the annotation file: frames}`: `{'3dop_train': ['000000', ...], ..., 'trainval': [...]}`."""
    folders = {name: kitti / f'ImageSets_{name}' for name in SPLITS}
    if not any(folder.is_dir() for folder in folders.values()):
        folders = {split: kitti / 'ImageSets'}
    image_sets: dict[str, list[str]] = {}
    for name, folder in folders.items():
        for subset, key in (
            ('train', f'{name}_train'),
            ('val', f'{name}_val'),
            ('trainval', 'trainval'),
            ('test', 'test'),
        ):
            if (folder / f'{subset}.txt').is_file():
                image_sets.setdefault(key, read_names(folder / f'{subset}.txt'))
    if not image_sets:
        print(f'no ImageSets in {kitti}: all frames are used, train and val are drawn at random')
        frames = frames_of(kitti / 'training')
        divided = split_randomly(frames, val_fraction, seed)
        image_sets = {f'{split}_{subset}': members for subset, members in divided.items()} | {'trainval': frames}
        if frames_of(kitti / 'testing'):
            image_sets['test'] = frames_of(kitti / 'testing')
    return image_sets


def read_frame(folder: Path, frame: str, labelled: bool, findings: Findings) -> tuple[dict, list[dict]] | None:
    """A frame's COCO image and annotations (without ids of their own); None, and a finding, if a file is not usable."""
    image_path, label_path = folder / 'image_2' / f'{frame}.png', folder / 'label_2' / f'{frame}.txt'
    if not image_path.is_file() or (labelled and not label_path.is_file()):
        findings.add('frames left out, without an image or a label file', frame)
        return None
    if not frame.isdigit():
        findings.add('frames left out, not named by a number', frame)
        return None
    picture = usable_picture(image_path, findings)
    if picture is None:
        return None
    try:
        calib = read_calib(folder / 'calib' / f'{frame}.txt')
    except UserError as error:
        findings.add('frames left out, without a calibration', f'{frame} ({error})')
        return None
    image = {
        'id': int(frame),
        'file_name': f'{frame}.png',
        'width': picture.width,
        'height': picture.height,
        'calib': calib.astype(float).tolist(),
    }
    return image, read_annotations(label_path, int(frame), findings) if labelled else []


def read_annotations(label_path: Path, image_id: int, findings: Findings) -> list[dict]:
    lines = read_lines(label_path, 15, findings)
    annotations = []
    for name, row in zip(lines.types, lines.rows, strict=True):
        if name not in CATEGORY_IDS:
            findings.add(f"objects left out, of the unknown class '{name}'", label_path.name)
            continue
        annotations.append(
            coco_box(row[BOX].tolist())
            | {
                'image_id': image_id,
                'category_id': CATEGORY_IDS[name],
                'dim': row[DIMS].tolist(),
                'depth': float(row[LOCATION][2]),
                'alpha': float(row[ALPHA]),
                'truncated': float(row[TRUNCATED]),
                'occluded': int(row[OCCLUDED]),
                'location': row[LOCATION].tolist(),
                'rotation_y': float(row[ROTATION]),
            }
        )
    return annotations


def convert(kitti: Path, output: Path, image_sets: dict[str, list[str]], link: bool) -> None:
    """Place the images and write an annotation file for each image set."""
    categories = [{'id': i, 'name': name} for i, name in enumerate(CATEGORIES, start=1)]
    findings = Findings(str(kitti))
    for folder, target, keys in (
        (kitti / 'training', 'trainval', [key for key in image_sets if key != 'test']),
        (kitti / 'testing', 'test', [key for key in image_sets if key == 'test']),
    ):
        frames = {}
        for frame in track(sorted({frame for key in keys for frame in image_sets[key]}), target):
            frames[frame] = read_frame(folder, frame, target == 'trainval', findings)
            if frames[frame] is not None:
                name = f'{frame}.png'
                place_file(folder / 'image_2' / name, output / 'images' / target / name, link)
        if frames and not any(frames.values()):
            findings.report()
            raise UserError(f"no usable frame in '{folder}': expected image_2, label_2 and calib in it")
        for key in keys:
            kept = [frames[frame] for frame in image_sets[key] if frames[frame] is not None]
            rows = [row for _, annotations in kept for row in annotations]
            annotations = [{'id': i} | row for i, row in enumerate(rows, start=1)]
            path = output / 'annotations' / f'kitti_{key}.json'
            images = [image for image, _ in kept]
            write_json(path, {'images': images, 'annotations': annotations, 'categories': categories})
            print(f'{path}: {len(images)} frames, {len(annotations)} objects')
    findings.report()


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('kitti', help='folder that holds training/')
    parser.add_argument('output', nargs='?', help='folder to write to (data/kitti); default: KITTI itself')
    parser.add_argument('--split', choices=SPLITS, default='3dop', help='name of the split without lists of its own')
    parser.add_argument('--val_fraction', type=float, default=0.5, help='part of all frames for val (default 0.5)')
    parser.add_argument('--seed', type=int, default=0, help='of the random split (default 0)')
    parser.add_argument('--link', action='store_true', help='link to the images instead of copying them')
    args = parser.parse_args()
    kitti = Path(args.kitti)
    if not (kitti / 'training' / 'image_2').is_dir():
        raise UserError(f"expected KITTI's training/image_2 in '{kitti}'; there is no such folder")
    image_sets = find_image_sets(kitti, args.split, args.val_fraction, args.seed)
    convert(kitti, Path(args.output or kitti), image_sets, args.link)


if __name__ == '__main__':
    run_cli(main)
