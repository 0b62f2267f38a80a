"""Export every arch for every task, and compare each file with its checkpoint.

    python tests/campaigns/exports.py [--archs dla_34 hourglass] [--tasks ctdet] [--format onnx] [--size 128]

Networks are random, with heads scaled so that there are peaks. Prints a line each; exits 1 if one fails.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / 'src'), str(TESTS)]

from export import main as export_main  # noqa: E402
from lib.models.families import ARCHS  # noqa: E402
from lib.tasks import TASKS  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402
from random_networks import save_random_network  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--archs', nargs='+', default=list(ARCHS))
    parser.add_argument('--tasks', nargs='+', default=list(TASKS))
    parser.add_argument('--size', default=128, type=int)
    args, others = parser.parse_known_args()
    failed = 0
    for arch in args.archs:
        for task in args.tasks:
            start = time.time()
            with tempfile.TemporaryDirectory() as folder:
                checkpoint = save_random_network(Path(folder) / 'model.pth', task, arch, args.size)
                try:
                    export_main([task, '--load_model', checkpoint, *others])
                    verdict = 'ok'
                except UserError as error:
                    failed += 1
                    verdict = f'FAILED: {error}'
            print(f'{arch} {task}: {verdict} ({time.time() - start:.0f} s)', flush=True)
    print(f'{failed} failed')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
