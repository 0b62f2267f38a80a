"""Export every arch for every task, and compare each file with its checkpoint.

    PYTHONPATH=src:benchmarks python tests/campaigns/exports.py [--archs dla_34] [--tasks ctdet] [--format onnx]

Networks are random, with heads scaled so that there are peaks: what rounding leaves in the features of a deep one is
scaled with them, so a small spread of the logits is asked for. Prints a line each; exits 1 if one fails.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from lib.exports.export import export, output_path
from lib.models.families import ARCHS
from lib.opts import opts
from lib.tasks import TASKS
from lib.utils.cli import run_cli
from lib.utils.errors import UserError
from lib.utils.option_rows import EXPORT
from random_networks import save_random_network


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--archs', nargs='+', default=list(ARCHS))
    parser.add_argument('--tasks', nargs='+', default=list(TASKS))
    parser.add_argument('--size', default=128, type=int)
    parser.add_argument('--spread', default=0.25, type=float, help="of the heatmaps' logits (%(default)s)")
    args, others = parser.parse_known_args()
    failed = 0
    for arch in args.archs:
        for task in args.tasks:
            start = time.time()
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = save_random_network(Path(folder) / 'model.pth', task, arch, args.size, spread=args.spread)
                try:
                    opt = opts().init([task, '--load_model', checkpoint, '--gpus', '-1', *others], program=EXPORT)
                    found = export(opt, output_path(opt))
                    verdict = 'ok, ' + ', '.join(
                        f'{name} {difference:.1g}' for name, difference in found.differences.items()
                    )
                except UserError as error:
                    failed += 1
                    verdict = f'FAILED: {error}'
            print(f'{arch} {task}: {verdict} ({time.time() - start:.0f} s)', flush=True)
    print(f'{failed} failed')
    sys.exit(failed > 0)


if __name__ == '__main__':
    run_cli(main)
