"""Export: write a trained network with its decoder into one file that runs without PyTorch.

    python export.py TASK --load_model MODEL.pth [--output MODEL.onnx] [--int8 DATASET]

The file is compared with the checkpoint before it is put in its place. demo.py and test.py run it as they run the
checkpoint; docs/deploy.md says what goes in and what comes out, and how other programs run it.

Functions import what they need, once the command line is found right: torch takes seconds to load.
"""

from typing import TYPE_CHECKING

from ..models.families import family_of
from ..utils.errors import UserError
from ..utils.signals import stop_signals_exit, stop_signals_interrupt

if TYPE_CHECKING:
    from ..exports.int8 import Int8Report
    from ..opts import Options


def main(args: list[str] | None = None) -> None:
    with stop_signals_exit():
        from ..opts import opts
        from ..utils.launch import refuse_ranks
        from ..utils.option_rows import EXPORT

        refuse_ranks('export.py')
        opt = opts().init(args, program=EXPORT)
        opt.gpus, opt.gpus_str = [-1], '-1'  # a network is traced on the CPU, whatever runs it
        check_options(opt)

        from ..exports.export import export, files_of, output_path

        path = output_path(opt)
    with stop_signals_interrupt():
        done = export(opt, path)
    megabytes = sum(part.stat().st_size for part in files_of(path)) / 1e6
    print(f"'{path}': {opt.task}, {opt.arch}, {megabytes:.1f} MB")
    print('largest differences from the checkpoint: ' + ', '.join(f'{k} {v:.2g}' for k, v in done.differences.items()))
    if done.int8 is not None:
        print_int8(done.int8)


def print_int8(report: 'Int8Report') -> None:
    """Print what int8 costs and gains."""
    print(
        f'int8, calibrated with {report.images} images: {report.metric} {report.before:.4f} before, '
        f'{report.after:.4f} after, loss {report.loss:.4f}'
    )
    print(
        f'an image takes {report.ours:.1f} ms in our float32, {report.theirs:.1f} ms in the file: '
        f'{report.ours / report.theirs:.2f} times as fast'
    )
    if report.float_layers:
        print(f'in float for the sake of AP: {", ".join(report.float_layers)}')
    if report.is_dear:
        print(f'warning: the loss is more than {report.allowed:g}, whatever stayed in float; the file is kept')


def check_options(opt: 'Options') -> None:
    """Refuse options that cannot be exported."""
    if not opt.load_model:
        raise UserError(
            "export.py writes a trained network: name its checkpoint, such as --load_model 'model_best.pth'"
        )
    if opt.int8 and (opt.half or opt.format == 'pt2'):
        other = '--half' if opt.half else '--format pt2'
        raise UserError(f'--int8 and {other} exclude each other: int8 files are of --format onnx or openvino')
    if opt.own_dcn and opt.int8 and not family_of(opt.arch).deformable:
        raise UserError(f'--own_dcn: {opt.arch} has no deformable convolution; leave it out')
    if opt.int8 and opt.keep_res and not opt.dynamic_size:
        raise UserError('--keep_res gives inputs of other sizes: add --dynamic_size, or leave it out')
    if opt.raw and opt.flip_test:
        raise UserError('--raw leaves mirroring to the program that runs the file: leave --flip_test out')
    if opt.aggr_weight > 0 and not opt.raw:
        raise UserError(
            '--aggr_weight cannot be exported, for its runs depend on the image: leave it out, or give --raw'
        )
