"""The ways to run a network against one another: ours, onnxruntime, OpenVINO, eager PyTorch, torch.compile.

    python benchmarks/exports.py [--archs res_18 dlav0_34 dla_34] [--threads 2] [--seconds 30]

From a decoded image of 512 x 512 to its boxes, a batch of one, all ways by turns in one process and on as many threads.
The networks are random, with heads scaled so that there are peaks; int8 is calibrated on toy pictures. The differences
are those of our detections in float32 with a score over 0.3 from the most similar ones of the same class, the median
and the largest. In int8 a random network differs more than a trained one: int8_accuracy.py has the AP of those.
"""

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from centernet.datasets.toy import make_toy_data
from centernet.detectors.base_detector import BaseDetector
from centernet.detectors.detector_factory import detector_factory
from centernet.exports.check import check_image
from centernet.exports.graph import ExportedNetwork, trace
from centernet.exports.int8 import Calibration, file_detector, int8_metadata
from centernet.exports.quantizers import QUANTIZERS
from centernet.exports.writers import SUFFIXES, WRITERS, check_packages, export_metadata
from centernet.models.families import family_of
from centernet.opts import opts
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.option_rows import EXPORT
from networks import SIDE, as_published
from random_networks import save_random_network
from timing import Row, alternate, processor, table

HEADER = ('network', 'way', 'ms', 'ours takes', 'boxes, px: median', 'largest', 'scores: median', 'largest')
OURS = 'ours, float32'
ENGINES = {'onnx': 'onnxruntime', 'openvino': 'OpenVINO'}
CALIBRATION = 32  # toy pictures
INT8_GOALS = {'res_18': 3.3, 'dlav0_34': 3.3, 'dla_34': 2.8}  # times our float32, on processors with VNNI
LEAST_SCORE = 0.3  # of detections that are compared
PAUSE = 0.05  # seconds between two measurements

Results = Mapping[int, np.ndarray]  # {class: rows [n, 5] of x1, y1, x2, y2, score}


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument('--archs', nargs='+', default=['res_18', 'dlav0_34', 'dla_34'])
    parser.add_argument('--threads', type=int, default=2, help='that each way computes with (%(default)s)')
    parser.add_argument('--seconds', type=float, default=30, help='for each network, more or less (%(default)s)')
    parser.add_argument('--without', nargs='+', default=[], metavar='WAY', help='ways to leave out: compile, int8, ...')
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    for form in ENGINES:
        check_packages(form, int8=True)
    print(processor(), flush=True)
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / 'data'
        make_toy_data(data, train=CALIBRATION, val=1, size=SIDE)
        for arch in options.archs:
            rows += measure(arch, data, Path(folder), options.seconds, options.without)
    print(f'\n{table(HEADER, rows)}')


def measure(arch: str, data: Path, folder: Path, seconds: float, without: list[str]) -> list[tuple[str, ...]]:
    """Measure all ways to run a network; returns the table's rows."""
    checkpoint = save_random_network(folder / f'{arch}.pth', 'ctdet', arch, SIDE)
    ways = {
        name: made for name, made in all_ways(checkpoint, data, folder).items() if not any(w in name for w in without)
    }
    image = check_image(ways[OURS].opt, SIDE, SIDE)
    times = alternate({name: partial(way.run, image) for name, way in ways.items()}, seconds, pause=PAUSE)
    wanted = ways[OURS].run(image)['results']
    rows = []
    for name, way in ways.items():
        found = [f'{value:.2g}' for value in differences(wanted, way.run(image)['results'])]
        rows.append((arch, name, f'{times[name]:.1f}', f'{times[OURS] / times[name]:.2f} x', *found))
        print(f'measured: {arch}, {name}: {times[name]:.1f} ms', flush=True)
    return rows


def all_ways(checkpoint: str, data: Path, folder: Path) -> dict[str, BaseDetector]:
    """Return a detector for each way to run a checkpoint, by its name."""
    words = ['ctdet', '--load_model', checkpoint, '--gpus', '-1']
    ways = {OURS: make_detector(words)}
    fast = make_detector(words)
    fast.compute_in(*fast.fastest_way())
    if fast.dtype != ways[OURS].dtype:
        ways[f'ours, {fast.dtype}'] = fast
    detector = exporting_detector(words, data)
    images = Calibration(detector)
    for form, engine in ENGINES.items():
        file = (folder / Path(checkpoint).stem).with_suffix(SUFFIXES[form])
        WRITERS[form](trace(ExportedNetwork(detector)), file, export_metadata(detector.opt))
        ways[f'{engine}, float32'] = file_detector(detector.opt, file)
        ways[f'{engine}, int8'] = int8_file(detector, file, images, form)
    if family_of(detector.opt.arch).deformable:
        ways['OpenVINO, int8, our DCN'] = int8_file(detector, file.with_suffix('.xml'), images, own_dcn=True)
    ways['eager, as published'] = as_published(make_detector(words))
    ways['torch.compile'] = compiled(make_detector(words))
    return ways


def int8_rows(seconds: float) -> Iterator[Row]:
    """Measure OpenVINO's int8 file, with our deformable convolution where the network has any, against our detector at
    its fastest in float32; `seconds` go to each line, more or less."""
    check_packages('openvino', int8=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_toy_data(folder / 'data', train=CALIBRATION, val=1, size=SIDE)
        for arch, goal in INT8_GOALS.items():
            checkpoint = save_random_network(folder / f'{arch}.pth', 'ctdet', arch, SIDE)
            words = ['ctdet', '--load_model', checkpoint, '--gpus', '-1']
            float32, detector = make_detector(words), exporting_detector(words, folder / 'data')
            float32.compute_in('float32', float32.fastest_convolutions())
            source = folder / f'{arch}.xml'
            WRITERS['openvino'](trace(ExportedNetwork(detector)), source, export_metadata(detector.opt))
            options = {'own_dcn': True} if family_of(arch).deformable else {}
            small = int8_file(detector, source, Calibration(detector), **options)
            image = check_image(detector.opt, SIDE, SIDE)
            times = alternate(
                {'float32': partial(float32.run, image), 'int8': partial(small.run, image)}, seconds, pause=PAUSE
            )
            what = f'{arch}, --int8 --format openvino' + ' --own_dcn' * bool(options)
            yield Row(what, times['int8'], times['float32'], 'ours in float32', f'>= {goal}')


def exporting_detector(words: list[str], data: Path) -> BaseDetector:
    """Return the detector of which int8 files are made, with toy pictures to calibrate."""
    own = [*words, '--int8', str(data), '--calibration_images', str(CALIBRATION)]
    return detector_factory['ctdet'](opts().init(own, program=EXPORT))


def int8_file(
    detector: BaseDetector, source: Path, images: Calibration, form: str = 'openvino', **options: bool
) -> BaseDetector:
    """Return the detector that runs the int8 file which is made of a float file, beside it."""
    file = source.with_stem(f'{source.stem}-int8{"-".join(options)}')
    metadata = {**export_metadata(detector.opt), **int8_metadata(len(images), [])}
    QUANTIZERS[form](source, file, images, (), metadata, **options)
    return file_detector(detector.opt, file)


def make_detector(words: list[str]) -> BaseDetector:
    """Return our detector, which computes in float32."""
    return detector_factory['ctdet'](opts().init(words))


def compiled(ours: BaseDetector) -> BaseDetector:
    """Return the detector with its network as it was published, compiled by torch."""
    eager = as_published(ours)
    network = torch.compile(ours.model)

    def run(_: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return network(images)[-1]

    eager.fast = run
    return eager


def differences(wanted: Results, found: Results) -> tuple[float, ...]:
    """Return the median and the largest difference of boxes in pixels, then of scores, from the most similar ones.

    Where none of a class is found, each of that class counts as a side of the picture and its score.
    """
    pairs = []
    for cls, rows in wanted.items():
        for row in rows[rows[:, 4] > LEAST_SCORE]:
            if not len(found[cls]):
                pairs.append((SIDE, row[4]))
                continue
            boxes, scores = np.abs(found[cls][:, :4] - row[:4]).max(1), np.abs(found[cls][:, 4] - row[4])
            best = (boxes + SIDE * scores).argmin()
            pairs.append((boxes[best], scores[best]))
    columns = np.array(pairs).T  # [2, n]
    return tuple(float(value) for column in columns for value in (np.median(column), column.max()))


if __name__ == '__main__':
    run_cli(main)
