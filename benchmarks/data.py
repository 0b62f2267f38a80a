"""Training samples against the least that any loader does: read the JPEG, warp it to the network's input."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from centernet.datasets.dataset_factory import get_dataset
from centernet.opts import opts
from centernet.utils.image import get_affine_transform
from timing import Row, alternate

TOOLS = Path(__file__).parents[1] / 'src' / 'tools'
IMAGES = 16  # of 640 x 480


def rows(seconds: float) -> Iterator[Row]:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)  # as in a loader's worker
    torch.set_num_threads(1)
    try:
        yield sample(seconds)
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def sample(seconds: float) -> Row:
    """ctdet's `__getitem__` with all its augmentation, images in turn."""
    with tempfile.TemporaryDirectory() as folder:
        options = ['--train', str(IMAGES), '--val', '1', '--size', '640x480']
        command = [sys.executable, 'make_toy_data.py', folder, *options]
        subprocess.run(command, cwd=TOOLS, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        opt = opts().parse(['ctdet', '--dataset', folder, '--gpus', '-1'])
        Dataset = get_dataset(opt.dataset, opt.task)
        opts.update_dataset_info_and_set_heads(opt, Dataset)
        dataset = Dataset(opt, 'train')
        paths = [dataset.image_path(i) for i in range(len(dataset))]
        warp = get_affine_transform(np.array([320, 240]), 640, 0, (opt.input_w, opt.input_h))
        turn = {'ours': 0, 'floor': 0}

        def ours() -> None:
            dataset[turn['ours'] % IMAGES]
            turn['ours'] += 1

        def floor() -> None:
            image = cv2.imread(paths[turn['floor'] % IMAGES])
            cv2.warpAffine(image, warp, (opt.input_w, opt.input_h), flags=cv2.INTER_LINEAR)
            turn['floor'] += 1

        times = alternate({'ours': ours, 'floor': floor}, seconds, most=1000)
    peer = 'imread + warpAffine (floor)'
    return Row('ctdet sample, 640 x 480 to 512', times['ours'], times['floor'], peer, '>= 0.45')
