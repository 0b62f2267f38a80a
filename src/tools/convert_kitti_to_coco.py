"""Make data/kitti's annotations and images from KITTI's object detection folders.

KITTI holds training/{image_2,label_2,calib}, perhaps testing/{image_2,calib}, and perhaps lists of frames:
ImageSets_3dop and ImageSets_subcnn, or one ImageSets (taken as that of --split), with train.txt, val.txt, trainval.txt,
test.txt. Without lists all frames are used and train and val are drawn at random. Images may be PNG, JPEG or the like.
Written: OUTPUT/annotations/kitti_{SPLIT_train,SPLIT_val,trainval,test}.json, OUTPUT/images/{trainval,test}/NNNNNN.*.
Broken files and lines are named, counted and left out; if they are more than a tenth, the status is 1.
"""

import argparse
from pathlib import Path

from centernet.datasets.conversion import (
    MARK,
    Tally,
    coco_box,
    entry_paths,
    measure_image,
    place_file,
    read_names,
    refuse_foreign,
    split_randomly,
)
from centernet.datasets.findings import Findings
from centernet.datasets.kitti_files import (
    ALPHA,
    BOX,
    CATEGORIES,
    DIMS,
    LABEL_FIELDS,
    LOCATION,
    OCCLUDED,
    ROTATION,
    TRUNCATED,
    read_lines,
)
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.ddd_utils import read_calib
from centernet.utils.errors import UserError
from centernet.utils.files import read_text, write_json
from centernet.utils.media import is_image

TOOL = 'convert_kitti_to_coco'
CATEGORY_IDS = {name.lower(): i for i, name in enumerate(CATEGORIES, start=1)}
SPLITS = ('3dop', 'subcnn')
EXPECTED_LINE = f'KITTI labels of 15 fields, of the classes {", ".join(CATEGORIES)}'
EXPECTED_FRAME = 'NNNNNN.png (or .jpg) in image_2 and NNNNNN.txt in label_2 and calib'


def frame_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder's image_2 by frame (their names without suffix); of several the PNG."""
    paths = sorted((path for path in (folder / 'image_2').glob('*') if is_image(path)), key=lambda path: path.name)
    return {path.stem: path for path in sorted(paths, key=lambda path: path.suffix.lower() == '.png')}


def find_image_sets(
    kitti: Path, split: str, val_fraction: float, seed: int, images: dict[str, dict[str, Path]]
) -> dict[str, list[str]]:
    """Find which frames go into which annotation file.

    Args:
        kitti: the folder that holds training/.
        split: name of the split that has no lists of its own.
        val_fraction, seed: of the random split, where there are no lists.
        images: image files by frame, of 'training' and of 'testing'.

    Returns:
        `{name of the annotation file: frames}`, such as `{'3dop_train': ['000000', ...], ..., 'trainval': [...]}`.
    """
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
            path = folder / f'{subset}.txt'
            if path.is_file() and key not in image_sets:
                known = images['testing' if key == 'test' else 'training']
                image_sets[key] = list(dict.fromkeys(frame_of(entry, known) for entry in read_names(path)))
    if not image_sets:
        print(f'no ImageSets in {kitti}: all frames are used, train and val are drawn at random')
        frames = sorted(images['training'])
        divided = split_randomly(frames, val_fraction, seed)
        image_sets = {f'{split}_{subset}': members for subset, members in divided.items()} | {'trainval': frames}
        if images['testing']:
            image_sets['test'] = sorted(images['testing'])
    return image_sets


def frame_of(entry: str, known: dict[str, Path]) -> str:
    """Return the frame that a line of a list names, with or without folders and suffix."""
    paths = entry_paths(entry)
    frames = [name for path in paths for name in (path.name, path.stem) if name in known]
    return frames[0] if frames else paths[-1].stem


def read_frame(
    folder: Path, frame: str, image_path: Path | None, labelled: bool, frames: Tally, lines: Tally
) -> tuple[dict, list[dict]] | None:
    """Read a frame.

    Args:
        folder: training or testing.
        frame: its name, six digits.
        image_path: its image, if there is one.
        labelled: whether it must have labels.
        frames, lines: count frames, and lines of labels.

    Returns:
        Its COCO image and annotations (without ids of their own); None, and a finding, if a file is not usable.
    """
    label_path = folder / 'label_2' / f'{frame}.txt'
    if image_path is None or (labelled and not label_path.is_file()):
        frames.lose('frames left out, without an image or a label file', frame)
        return None
    if not (frame.isascii() and frame.isdecimal() and len(frame) < 10):
        frames.lose('frames left out, not named by a number', frame)
        return None
    measured = measure_image(image_path, frames.findings)
    if measured is None:
        frames.lose('frames left out, whose image cannot be used', frame)
        return None
    try:
        calib = read_calib(folder / 'calib' / f'{frame}.txt')
    except UserError as error:
        frames.lose('frames left out, without a calibration', f'{frame} ({error})')
        return None
    frames.use()
    image = {
        'id': int(frame),
        'file_name': image_path.name,
        'width': measured.width,
        'height': measured.height,
        'calib': calib.astype(float).tolist(),
    }
    return image, read_annotations(label_path, int(frame), lines) if labelled else []


def read_annotations(label_path: Path, image_id: int, lines: Tally) -> list[dict]:
    """Read the objects of a label file as COCO annotations without ids; lines that cannot be used are counted."""
    texts = [line for line in read_text(label_path).splitlines() if line.strip()]
    labels = read_lines(label_path, LABEL_FIELDS, lines.findings)
    for _ in range(len(texts) - len(labels.types)):
        lines.lose('lines left out', label_path.name, texts[0])
    annotations = []
    for name, row in zip(labels.types, labels.rows, strict=True):
        if name not in CATEGORY_IDS:
            text = next((text for text in texts if text.split()[0].lower() == name), '')
            lines.lose(f"objects left out, of the unknown class '{name}'", label_path.name, text)
            continue
        lines.use()
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


def convert(
    kitti: Path, output: Path, image_sets: dict[str, list[str]], images: dict[str, dict[str, Path]], link: bool
) -> None:
    """Place the images and write an annotation file for each image set.

    Args:
        kitti: the folder that holds training/.
        output: the folder to write to.
        image_sets: as `find_image_sets` returns them.
        images: image files by frame, of 'training' and of 'testing'.
        link: make symbolic links to the images.

    Raises:
        UserError: no frame or object can be used, or more than a tenth of them cannot; an output is in the way.
    """
    categories = [{'id': i, 'name': name} for i, name in enumerate(CATEGORIES, start=1)]
    findings = Findings(str(kitti))
    frames, lines = Tally('frames', findings), Tally('lines', findings)
    for key in image_sets:
        refuse_foreign(output / 'annotations' / f'kitti_{key}.json', TOOL)
    read: dict[str, dict[str, tuple[dict, list[dict]]]] = {}
    for part, target, keys in (
        ('training', 'trainval', [key for key in image_sets if key != 'test']),
        ('testing', 'test', [key for key in image_sets if key == 'test']),
    ):
        read[target] = {}
        for frame in track(sorted({frame for key in keys for frame in image_sets[key]}), target):
            found = read_frame(kitti / part, frame, images[part].get(frame), target == 'trainval', frames, lines)
            if found is not None:
                read[target][frame] = found
        if keys and not read[target]:
            findings.report()
            raise UserError(f"no usable frame in '{kitti / part}': expected {EXPECTED_FRAME}")
    findings.report()
    if any(key != 'test' for key in image_sets):
        lines.require_used(EXPECTED_LINE)
    for part, target in (('training', 'trainval'), ('testing', 'test')):
        for frame in read[target]:
            place_file(images[part][frame], output / 'images' / target / images[part][frame].name, link)
    for key, members in image_sets.items():
        kept = [found for frame in members if (found := read['test' if key == 'test' else 'trainval'].get(frame))]
        rows = [row for _, annotations in kept for row in annotations]
        content = {
            'images': [image for image, _ in kept],
            'annotations': [{'id': i} | row for i, row in enumerate(rows, start=1)],
            'categories': categories,
            MARK: {'tool': TOOL},
        }
        path = output / 'annotations' / f'kitti_{key}.json'
        write_json(path, content)
        print(f'{path}: {len(kept)} frames, {len(rows)} objects')
    frames.require_most_used(EXPECTED_FRAME)
    lines.require_most_used(EXPECTED_LINE)


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
    images = {part: frame_images(kitti / part) for part in ('training', 'testing')}
    image_sets = find_image_sets(kitti, args.split, args.val_fraction, args.seed, images)
    convert(kitti, Path(args.output or kitti), image_sets, images, args.link)


if __name__ == '__main__':
    run_cli(main)
