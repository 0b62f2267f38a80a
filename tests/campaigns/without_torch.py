"""Detect with docs/deploy/detect_onnx.py in a venv without PyTorch: the checkpoint finds the same by demo.py.

    PYTHONPATH=src:benchmarks python tests/campaigns/without_torch.py [--load_models DIR] [--tasks ctdet]

pip makes the venv, of NumPy, OpenCV (headless) and onnxruntime alone. Without DIR the networks are random, with heads
scaled so that there are peaks; with it trained toy models, made there where they are missing. Prints a line a task;
exits 1 if a detection is missing or another one. Of exdet the best detection of each class is compared: demo.py
thins fours of points by soft-NMS, the script by their overlap.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import cv2
import numpy as np

from lib.exports.check import check_image
from lib.opts import opts
from lib.utils.cli import run_cli
from lib.utils.ddd_utils import common_calib
from lib.utils.errors import UserError
from lib.utils.option_rows import EXPORT
from random_networks import save_random_network
from toy_models import RECIPES, run, toy_model

SCRIPT = Path(__file__).resolve().parents[2] / 'docs/deploy/detect_onnx.py'
PACKAGES = ('numpy', 'opencv-python-headless', 'onnxruntime')
PIXELS, SCORE, METRES = 0.02, 1e-4, 1e-3  # that may differ
THRESHOLD = 0.1
POINTS = ('box', 'keypoints', 'extreme_points')  # in pixels, in both


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--load_models', type=Path, help='folder of the models; made where they are missing')
    parser.add_argument('--tasks', nargs='+', default=list(RECIPES), choices=list(RECIPES))
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = make_venv(folder / 'venv')
        for task in args.tasks:
            if args.load_models:
                checkpoint = str(toy_model(task, args.load_models).checkpoint)
            else:
                checkpoint = save_random_network(folder / f'{task}.pth', task, 'res_18', 96)
            try:
                verdict = compare(task, checkpoint, python, folder)
            except UserError as error:
                failed += 1
                verdict = f'FAILED: {error}'
            print(f'{task}: {verdict}', flush=True)
    print(f'{failed} failed')
    sys.exit(failed > 0)


def make_venv(folder: Path) -> Path:
    """Make a venv of `PACKAGES`; returns its interpreter, which must not find torch."""
    venv.create(folder, with_pip=True)
    python = folder / 'bin/python'
    pip = [str(python), '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *PACKAGES]
    subprocess.run(pip, check=True)
    listed = subprocess.run([*pip[:3], 'list'], check=True, capture_output=True, text=True, env={}).stdout
    found = subprocess.run([str(python), '-c', 'import torch'], capture_output=True, env={})
    if found.returncode == 0 or 'torch' in listed:
        raise UserError('the venv has torch')
    print('a venv of ' + ', '.join('=='.join(line.split()) for line in listed.splitlines()[2:]), flush=True)
    return python


def compare(task: str, checkpoint: str, python: Path, folder: Path) -> str:
    """Run both on a toy image; returns what was found.

    Raises:
        UserError: they differ.
    """
    file, picture, output = folder / f'{task}.onnx', folder / f'{task}.png', folder / task
    opt = opts().init([task, '--load_model', checkpoint, '--gpus', '-1'], program=EXPORT)
    cv2.imwrite(str(picture), check_image(opt, opt.input_h, opt.input_w))
    load = ['--load_model', checkpoint, '--gpus', '-1']
    run('export.py', task, *load, '--output', str(file))
    shown = ['--peak_thresh', str(THRESHOLD)] if task == 'ddd' else []  # below which ddd leaves detections out
    look = ['--demo', str(picture), '--output', str(output), '--dtype', 'float32', '--no_display', *shown]
    run('demo.py', task, *load, *look)
    ((found),) = json.loads((output / 'results.json').read_text())
    ours = [as_script(one) for one in found['detections'] if one['score'] >= THRESHOLD]
    words = [str(python), str(SCRIPT), str(file), str(picture), '--threshold', str(THRESHOLD)]
    done = subprocess.run(words, capture_output=True, text=True, env={})
    if done.returncode:
        raise UserError(f'{SCRIPT.name} failed: {done.stderr[-500:]}')
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    if task == 'exdet':
        ours, theirs = best_of_classes(ours), best_of_classes(theirs)
    if not ours or len(ours) != len(theirs):
        raise UserError(f'{len(ours)} detections by the checkpoint, {len(theirs)} by the script')
    worst = [nearest(one, theirs) for one in ours]
    return f'{len(ours)} detections, at most {max(worst):.0%} of the differences that are allowed'


def as_script(one: dict) -> dict:
    """Return a detection of demo.py with the names of the script."""
    if 'location' in one:  # which is seen from the camera that the calibration shifts
        one = {**one, 'depth': one['location'][2] + common_calib('')[2, 3], 'dimensions': one['dim']}
        del one['box']  # of the solid; the script gives that of the image
    return one


def best_of_classes(found: list[dict]) -> list[dict]:
    """Return the first detection of each class, the best."""
    return list({one['class']: one for one in reversed(found)}.values())


def nearest(one: dict, others: list[dict]) -> float:
    """Return the difference of a detection from the most similar other one, as a multiple of what is allowed.

    Raises:
        UserError: it is more.
    """
    worst, other = min(((difference(one, other), other) for other in others), key=lambda pair: pair[0])
    if worst > 1:
        raise UserError(f'not found: {json.dumps(one)[:300]}, but {json.dumps(other)[:300]}')
    return worst


def difference(one: dict, other: dict) -> float:
    """Return the largest difference of two detections, as a multiple of what is allowed; infinite for other classes."""
    if one['class'] != other['class']:
        return float('inf')
    allowed = {'score': SCORE, **dict.fromkeys(POINTS, PIXELS), 'depth': METRES, 'dimensions': METRES, 'alpha': METRES}
    return max(
        float(np.abs(np.subtract(one[name], other[name])).max()) / most
        for name, most in allowed.items()
        if name in one and name in other
    )


if __name__ == '__main__':
    run_cli(main)
