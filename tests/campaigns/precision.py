"""Train on toy data in float32 and with --amp, evaluate each as it was trained, and compare the AP.

    python tests/campaigns/precision.py --amp bfloat16 --epochs 4

The settings are those of `make demo`; `--size 64` serves where the processor only emulates the type, which takes some
ten times as long. On the CPU the type is taken whether or not it is the faster one. Exits 1 where the AP differs by
more than 0.02.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / 'src'
MOST = 0.02  # by which the AP may differ
NETWORK = ['--arch', 'dlav0_34', '--head_conv', '64', '--num_workers', '0']
TRAINING = ['--pretrained', 'none', '--batch_size', '4', '--lr', '1e-3', '--wh_weight', '0.3', '--val_intervals', '0']
TRAINING += ['--no_color_aug', '--not_rand_crop', '--shift', '0', '--scale', '0']


def average_precision(folder: Path, amp: str, args: argparse.Namespace) -> float:
    """Train and evaluate on the data of `folder`; returns the AP on its held-out images."""
    import main as program

    run = ['ctdet', '--dataset', str(folder / 'toy'), '--exp_dir', str(folder), '--gpus', args.gpus, '--amp', amp]
    run += [*NETWORK, '--input_res', str(args.size)]
    length = ['--num_iters', str(args.iters), '--num_epochs', str(args.epochs)]
    length += ['--lr_step', str(max(1, args.epochs - 1))]
    program.main([*run, '--exp_id', amp, *TRAINING, *length])
    trained = folder / 'ctdet' / amp
    program.main([*run, '--test', '--load_model', str(trained / 'model_last.pth')])
    return json.loads((trained / 'metrics.json').read_text())['AP']


def main() -> None:
    sys.path.insert(0, str(SRC))
    from lib.datasets.toy import make_toy_data
    from lib.trains import precision
    from lib.utils.log import configure_logging

    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--amp', default='bfloat16', choices=('bfloat16', 'float16'))
    parser.add_argument('--gpus', default='-1')
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--iters', type=int, default=220, help='iterations an epoch')
    parser.add_argument('--size', type=int, default=128, help='of the pictures, in pixels')
    args = parser.parse_args()
    configure_logging()
    precision.measure = lambda *_: 0.0
    with tempfile.TemporaryDirectory() as folder:
        make_toy_data(Path(folder) / 'toy', train=2000, val=100, size=args.size, colors='class')
        wide, short = (average_precision(Path(folder), amp, args) for amp in ('none', args.amp))
    print(f'AP {wide:.4f} in float32, {short:.4f} in {args.amp}: they differ by {abs(wide - short):.4f}')
    sys.exit(abs(wide - short) > MOST)


if __name__ == '__main__':
    main()
