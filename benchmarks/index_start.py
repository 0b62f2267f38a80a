"""How long a dataset of COCO's size takes from its construction to the first sample, and what memory it holds.

Makes an annotation file of random boxes and as many small images, and starts with nothing remembered (cold), again
(warm), and in several processes at once (warm, as the ranks of one machine start).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from centernet.datasets.dataset.coco import COCO
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError

SMAPS = Path('/proc/self/smaps_rollup')
WARM_SECONDS, COLD_SECONDS, WARM_MEMORY = 2, 40, 300
ORIGINALS = 8  # image files; the others are hard links to them, of which a file system allows some ten thousand each
START = 'start'  # the command of the processes that are measured


def make_data(folder: Path, images: int, objects: int, seed: int = 0) -> None:
    """Write `train.json` and `val.json` of own data, and the same as COCO's, with random boxes.

    Args:
        folder: where to. `own` is a folder of own data, `data` one for `--data_dir`.
        images: number of images of the training split, 640 x 480; that for validation has a hundredth.
        objects: likewise.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    for parent in ('own/images', 'own/annotations', 'data/coco/annotations'):
        (folder / parent).mkdir(parents=True)
    originals = []
    for i in range(ORIGINALS):
        originals.append(folder / f'original_{i}.jpg')
        cv2.imwrite(str(originals[i]), np.full((480, 640, 3), 30 * i, np.uint8))
    for i in range(images):
        os.link(originals[i % ORIGINALS], folder / 'own' / 'images' / f'{i:012}.jpg')
    for split, part in (('train', 1), ('val', 100)):
        path = folder / 'own' / 'annotations' / f'{split}.json'
        path.write_text(json.dumps(made_up_annotations(rng, images // part, objects // part)))
        os.link(path, folder / 'data' / 'coco' / 'annotations' / f'instances_{split}2017.json')
        (folder / 'data' / 'coco' / f'{split}2017').symlink_to(folder / 'own' / 'images')


def made_up_annotations(rng: np.random.Generator, images: int, objects: int) -> dict:
    """Return a COCO dict of random boxes and outlines of COCO's 80 classes, in no order, as in COCO's own files."""
    categories = sorted(COCO.cat_ids)
    corners, sizes = rng.uniform(0, (560, 400), (objects, 2)), rng.uniform(4, 80, (objects, 2))
    boxes = np.hstack([corners, sizes]).round(2)
    outlines = rng.uniform(0, 480, (objects, 24)).round(2)
    image_ids, classes = rng.integers(0, images, objects).tolist(), rng.integers(0, 80, objects).tolist()
    return {
        'images': [
            {'id': i, 'file_name': f'{i:012}.jpg', 'width': 640, 'height': 480, 'license': 1} for i in range(images)
        ],
        'annotations': [
            {
                'id': i + 1,
                'image_id': image_ids[i],
                'category_id': categories[classes[i]],
                'bbox': boxes[i].tolist(),
                'area': float(boxes[i, 2] * boxes[i, 3]),
                'iscrowd': 0,
                'segmentation': [outlines[i].tolist()],
            }
            for i in range(objects)
        ],
        'categories': [
            {'id': category, 'name': name} for category, name in zip(categories, COCO.class_names, strict=True)
        ],
    }


def own_memory() -> float:
    """Return the MiB that this process alone holds."""
    fields = dict(line.split(':') for line in SMAPS.read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ('Private_Clean', 'Private_Dirty')) / 1024


def peak_memory() -> float:
    """Return the most MiB that this process has held so far, shared pages included."""
    fields = dict(line.split(':') for line in Path('/proc/self/status').read_text().splitlines())
    return int(fields['VmHWM'].split()[0]) / 1024


def start(arguments: list[str]) -> None:
    """Start as `main.py ctdet` does, up to the first sample; print seconds and MiB as JSON."""
    from centernet.datasets.dataset_factory import get_dataset
    from centernet.opts import opts

    Path('/proc/self/clear_refs').write_text('5')  # the peak so far is forgotten
    before, peak_before = own_memory(), peak_memory()
    began, processor_began = time.perf_counter(), time.process_time()
    opt = opts().parse(arguments)
    dataset_class = get_dataset(opt.dataset, opt.task)
    dataset = dataset_class(opts().update_dataset_info_and_set_heads(opt, dataset_class), 'train')
    dataset[0]
    measured = {
        'seconds': time.perf_counter() - began,
        'processor': time.process_time() - processor_began,
        'own': own_memory() - before,
        'peak': peak_memory() - peak_before,
        'images': len(dataset),
    }
    print(json.dumps(measured))


def measure(arguments: list[str], cache: Path, processes: int = 1) -> list[dict]:
    """Start so many processes at once, with the given cache folder; return what each has measured."""
    environment = {**os.environ, 'XDG_CACHE_HOME': str(cache)}
    command = [sys.executable, __file__, START, *arguments]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise UserError(f'a process that was to be measured failed: {" ".join(command)}')
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def report(name: str, measured: list[dict], limits: str) -> None:
    """Print the largest time and memory of some processes, and what is asked."""
    worst = {key: max(each[key] for each in measured) for key in measured[0]}
    print(
        f'{name:26} {worst["seconds"]:6.2f} s ({worst["processor"]:.2f} s of a processor), {worst["own"]:4.0f} MiB '
        f'of its own, {worst["peak"]:4.0f} at the peak   ({limits})',
        flush=True,
    )


def main(args: list[str] | None = None) -> None:
    args = sys.argv[1:] if args is None else args
    if args[:1] == [START]:
        return start(args[1:])
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=118_287, help='as many as train2017 has (%(default)s)')
    parser.add_argument('--objects', type=int, default=860_001, help='likewise (%(default)s)')
    parser.add_argument('--ranks', type=int, default=4, help='processes that start at once (%(default)s)')
    parser.add_argument('--folder', type=Path, help='keep the data here, and use what is there')
    options = parser.parse_args(args)
    if not SMAPS.exists():
        raise UserError(f'{SMAPS} is missing: this is measured on Linux alone')
    with tempfile.TemporaryDirectory() as scratch:
        run(options, Path(scratch))


def run(options: argparse.Namespace, scratch: Path) -> None:
    """Make the data where it is not there yet, and measure the starts."""
    folder = (options.folder or scratch / 'data').absolute()
    if not folder.exists():
        make_data(folder, options.images, options.objects)
    common = ['ctdet', '--gpus', '-1', '--num_workers', '0', '--exp_id', 'index_start']
    cold, warm = f'asked: {COLD_SECONDS} s', f'asked: under {WARM_SECONDS} s and {WARM_MEMORY} MiB'
    for name, arguments in (
        ('own data', ['--dataset', str(folder / 'own')]),
        ('coco', ['--dataset', 'coco', '--data_dir', str(folder / 'data')]),
    ):
        cache = scratch / f'cache of {name}'
        report(f'{name}, cold', measure(common + arguments, cache), cold)
        report(f'{name}, warm', measure(common + arguments, cache), warm)
        ranks = measure(common + arguments, cache, options.ranks)
        report(f'{name}, warm, {options.ranks} at once', ranks, warm)


if __name__ == '__main__':
    run_cli(main)
