"""Runs detectors of the checkout that is on PYTHONPATH, by the requests of versions.py: a line of JSON each way."""

import json
import sys
import time

import numpy as np
import torch
from torch import nn

from lib.detectors.detector_factory import detector_factory
from lib.models.networks.dcn import DCN
from lib.opts import opts


def main() -> None:
    """Answer `{arch, side, batch, threads}`, then each `{}`, by a run: seconds, the processor's, the scores' sum."""
    run = None
    for line in sys.stdin:
        request = json.loads(line)
        if request:
            run = make_run(**request)
        assert run is not None
        start, start_of_work = time.perf_counter(), time.process_time()
        found = float(run())
        took = {'seconds': time.perf_counter() - start, 'work': time.process_time() - start_of_work}
        print(json.dumps({**took, 'found': found}), flush=True)


def make_run(arch: str, side: int, batch: int, threads: int):
    """Return a function that detects in a batch of random pictures, and returns the sum of the scores."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    detector = detector_factory['ctdet'](
        opts().init(['ctdet', '--arch', arch, '--input_res', str(side), '--gpus', '-1'])
    )
    for layer in detector.model.modules():
        if isinstance(layer, DCN):
            nn.init.normal_(layer.conv_offset_mask.bias)
    if hasattr(detector, 'fastest_convolutions'):  # younger checkouts measure which convolutions are faster
        detector.compute_in('float32', detector.fastest_convolutions())
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return lambda: sum(rows[:, 4].sum() for rows in detector.run_batch([picture] * batch)[0]['results'].values())


if __name__ == '__main__':
    main()
