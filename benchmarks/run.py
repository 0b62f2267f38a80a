"""make bench: ours against its peers, each pair measured in one process, turn by turn.

The process keeps the memory that it frees, as the programs do: else what one of a pair gives back would be the page
faults of the next.

On a GPU (`--gpu`) the table of models is made for batches of 1 and 32 in float32 and bfloat16, and written to
RESULTS.md beside this file.
"""

from pathlib import Path

import torch

import allocator
import data
import exports
import int8_accuracy
import many_classes
import networks
import operators
from centernet.utils.allocator import keep_freed_memory
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError
from centernet.utils.files import atomic_path
from timing import Row, processor, table

ROW_HEADER = ('what', 'ours, ms', 'peer, ms', 'peer / ours', 'asked', 'peer')
MODEL_HEADER = ('model', 'parameters', 'ms an image', 'images/s', 'training step of 2, ms', 'memory, MiB')
TRAINING_HEADER = ('classes', 'training step, ms', 'before, ms', 'memory, MiB', 'before, MiB', 'of the first line')
RESULTS = Path(__file__).parent / 'RESULTS.md'
GPU_RUNS = [(batch, dtype) for batch in (1, 32) for dtype in ('float32', 'bfloat16')]
ROUNDS = 5  # of the allocator's table
SECTIONS = {
    'operators': operators.rows,
    'many': many_classes.rows,
    'data': data.rows,
    'networks': networks.rows,
    'int8': exports.int8_rows,
}


def main(args: list[str] | None = None) -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=[*SECTIONS, 'memory', 'allocator', 'models'], help='one part of the table')
    parser.add_argument('--seconds', type=float, default=6, help='for each line, more or less (%(default)s)')
    parser.add_argument(
        '--load_models',
        type=Path,
        metavar='DIR',
        help='of toy models, for AP in int8; made where they are missing',
    )
    parser.add_argument('--gpu', action='store_true', help='the models on the first GPU; writes RESULTS.md')
    options = parser.parse_args(args)
    if options.gpu:
        write_gpu_results(options.seconds)
    else:
        keep_freed_memory()
        print(processor())
        print_ratios(options.only, options.seconds)
        if options.only in (None, 'int8'):
            print(f'\n{int8_accuracy.measure(int8_accuracy.BENCHMARK, options.load_models)[0]}')
        if options.only in (None, 'allocator'):
            print()
            allocator.print_table(ROUNDS)
        if options.only in (None, 'models'):
            print(f'\n{models_table(options.seconds)}')


def print_ratios(only: str | None, seconds: float) -> None:
    """Print the table of ours against peers, line by line as it is measured."""
    rows = []
    for name, section in SECTIONS.items():
        if only in (None, name):
            for row in section(seconds):
                print(f'measured: {row.what} ({row.ratio:.2f} x)', flush=True)
                rows.append(row_cells(row))
    if rows:
        print(f'\n{table(ROW_HEADER, rows)}')
    if only in (None, 'many'):
        print(f'\n{training_table(seconds)}')
    if only in (None, 'memory'):
        ours, published = networks.memory()
        print(f'\npeak memory of dla_34 inference: {ours:.0f} MiB; as published {published:.0f} MiB')


def training_table(seconds: float) -> str:
    """Return the table of training steps by the number of classes."""
    steps = many_classes.training(seconds)
    first = steps[0]
    rows = [
        (
            f'{step.classes:,}',
            *(f'{value:.0f}' for value in (step.time, step.time_before, step.memory, step.memory_before)),
            f'{step.time / first.time:.2f} x the time, {step.memory / first.memory:.2f} x the memory',
        )
        for step in steps
    ]
    return table(TRAINING_HEADER, rows)


def row_cells(row: Row) -> tuple[str, ...]:
    return row.what, f'{row.ours:.2f}', f'{row.peer:.2f}', f'{row.ratio:.2f}', row.goal, row.peer_name


def models_table(seconds: float, device: str = 'cpu', dtype: str = 'float32', batch: int = 1) -> str:
    rows = [
        (
            model.name,
            f'{model.parameters:.1f} M',
            f'{model.inference:.1f}',
            f'{1000 / model.inference:.1f}',
            '' if model.training is None else f'{model.training:.0f}',
            f'{model.memory:.0f}',
        )
        for model in networks.models(seconds, device, dtype, batch)
    ]
    return table(MODEL_HEADER, rows)


def write_gpu_results(seconds: float) -> None:
    if not torch.cuda.is_available():
        raise UserError('--gpu: no CUDA GPU is there; without it the benchmark runs on the CPU')
    name = torch.cuda.get_device_name(0)
    parts = [f'# {name}', f'`python benchmarks/run.py --gpu`, torch {torch.__version__}, images of {networks.SIDE} px.']
    for batch, dtype in track(GPU_RUNS, 'GPU'):
        parts += [f'## batch {batch}, {dtype}', models_table(seconds, 'cuda', dtype, batch)]
    with atomic_path(RESULTS) as path:
        path.write_text('\n\n'.join(parts) + '\n')
    print(f'written: {RESULTS}')


if __name__ == '__main__':
    run_cli(main)
