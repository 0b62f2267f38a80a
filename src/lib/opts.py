"""Every command-line option, with its checks.

`opts().parse()` reads a command line; `opts().update_dataset_info_and_set_heads()` adds what only the dataset
knows (classes, input size, network heads); `opts().init()` does both at once, for detectors without a dataset.
A task's own options stand in its entry of `tasks.py`. Importing this module does not import torch, so that `--help`
and a typing error are answered at once.
"""

import argparse
import functools
import logging
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .models.exported import is_exported
from .models.facts import DECODER_FACTS, MAX_SIDE
from .models.families import ARCHS, family_of
from .tasks import TASKS, heads_of
from .utils.cli import COMMAND, OneLineParser, called_as_command
from .utils.errors import UserError, did_you_mean
from .utils.launch import ALONE, Launch
from .utils.option_rows import (
    DEMO,
    EXPORT,
    INFERENCE,
    MAIN,
    TEST,
    Check,
    Option,
    add_arguments,
    at_least,
    between,
    numbers,
    option,
    option_rows,
    over,
    positive_or_default,
    side_or_default,
)
from .utils.run_folder import folder_begun_by, free_folder, latest_folder
from .utils.thresholds import BEST, find_thresholds, read_thresholds

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Facts about a dataset that a checkpoint remembers in its place.
DATASET_FACTS = ('class_names', 'mean', 'std', 'num_joints', 'flip_idx', 'skeleton')
RUN_RECORD = 'opt.txt'  # the file that makes a folder a run's
LONGEST_NAME = 200  # bytes of a run's name: file systems take 255, and files beside a folder need an ending

TRAINING = {'programs': (MAIN,)}
EXPORTING: dict[str, Any] = {'programs': (EXPORT,), 'per_call': True}


def threshold_or_file(text: str) -> float | str:
    """Return the number of `--vis_thresh`, or its text where that is `best` or names a file.

    Raises:
        ValueError: it is none of them.
    """
    try:
        return float(text)
    except ValueError:
        if text == BEST or os.path.isfile(text):
            return text
        raise


def needs_random_shift(opt: Namespace) -> str:
    """Return the reason why shift and scale do not act, if they do not."""
    return '' if opt.not_rand_crop or not TASKS[opt.task].augments else 'acts only with --not_rand_crop'


def has_head(name: str) -> Any:
    """Return a test of tasks: whether the network has that head."""
    return lambda task: name in task.heads


def divided_data(opt: Namespace) -> str:
    """Return the reason why `--val_share` does not act, if it does not."""
    if opt.program == EXPORT and not opt.int8:
        return 'acts only with --int8'
    from .datasets.source_factory import is_divided

    return 'does not act on data that are divided already' if is_divided(opt.dataset) else ''


def fixed_heads(opt: Namespace) -> str:
    """Return the reason why `--head_conv` does not act, if it does not."""
    width = family_of(opt.arch).fixed_head_conv
    return f'does not act with {opt.arch}, whose heads have {width} channels' if width is not None else ''


@option_rows()
class Options(Namespace):
    """All options of a run: those of the command line, and what follows from them.

    Tasks' own options (`tasks.py`) are attributes too.
    """

    rows: ClassVar[dict[str, Option]]

    task: str

    # experiment
    dataset: str = option(
        '',
        "coco | coco_hp | kitti | pascal, or a folder of your own (COCO, YOLO, VOC, labelme); '' is the task's own",
        group='experiment',
        idle=lambda opt: 'does not act with --int8, which names the dataset' if opt.int8 else '',
    )
    val_share: float = option(
        0.2,
        'part of the images that validates, where own data are not divided: always the same images',
        group='experiment',
        check=Check(lambda value: 0 < value < 1, 'a number over 0 and under 1'),
        programs=(MAIN, TEST, EXPORT),
        idle=divided_data,
    )
    exp_id: str = option(
        'default',
        'name of the run: outputs go to exp/TASK/EXP_ID; without one to default, default_2, ...',
        group='experiment',
        per_call=True,
    )
    test: bool = option(
        False,
        'evaluate with the training-side decoder on val, then exit',
        group='experiment',
        per_call=True,
        **TRAINING,
    )
    debug: int = option(
        0,
        '1: final detections, 2: and network maps, 3: with matplotlib, 4: save all',
        group='experiment',
        check=Check(lambda value: value in range(5), '0 to 4'),
    )
    load_model: str = option('', 'checkpoint to start from', group='experiment', per_call=True)
    resume: bool = option(
        False,
        "go on from --load_model, or else from model_last.pth, with the run's options where none are given",
        group='experiment',
        per_call=True,
    )
    overwrite: bool = option(
        False, 'start over in the folder of a run of that --exp_id', group='experiment', per_call=True, **TRAINING
    )
    data_dir: str = option('', "folder of the datasets; '' is data/", group='experiment')
    exp_dir: str = option('', "folder of the outputs; '' is exp/", group='experiment', per_call=True)

    # system
    gpus: list[int] = option(
        '',
        "GPU id; -1 is the CPU; '' is GPU 0 where there is one; 0,1,... share the work as a process each (main.py, "
        'test.py); under torchrun each process takes its own',
        group='system',
    )
    num_workers: int = option(
        4,
        'processes that load data; at most the cores, which the processes of several GPUs share',
        group='system',
        check=at_least(0),
    )
    not_cuda_benchmark: bool = option(False, 'no cuDNN auto-tuning', group='system')
    seed: int = option(
        317,
        'seed of weights, batches and augmentation',
        group='system',
        check=Check(lambda value: 0 <= value < 2**63, 'at least 0 and less than 2**63'),
    )

    # log
    print_iter: int = option(
        0, 'a line every N iterations instead of the bar', group='log', check=at_least(0), **TRAINING
    )
    hide_data_time: bool = option(False, 'leave the data time out of the bar', group='log', **TRAINING)
    save_all: bool = option(False, "keep every epoch's checkpoint", group='log', **TRAINING)
    metric: str = option(
        'AP',
        "chooses model_best: AP (the main metric of the task or dataset), loss, or a metric's name",
        group='log',
        **TRAINING,
    )
    vis_thresh: float | list[float] = option(
        '0.3',
        "lowest score that is drawn; best: each class's threshold of the best F1, from the thresholds.json that "
        'test.py has written; or such a FILE',
        group='log',
        parse=threshold_or_file,
        check=Check(lambda value: isinstance(value, str) or 0 <= value <= 1, 'a number from 0 to 1, best or a file'),
        per_call=True,
    )
    debugger_theme: str = option('white', 'ground of the maps', group='log', choices=('white', 'black'))

    # model
    arch: str = option('dla_34', ' | '.join(ARCHS), group='model', in_checkpoint=True)
    head_conv: int = option(
        -1,
        'channels of the head conv; 0: none; -1: 256 for dla, 64 otherwise',
        group='model',
        check=at_least(-1),
        in_checkpoint=True,
        idle=fixed_heads,
    )
    down_ratio: int = option(
        4,
        'input size / output size; only 4',
        group='model',
        check=Check(lambda value: value == 4, '4, which the networks are built for'),
        in_checkpoint=True,
    )
    not_reg_offset: bool = option(False, 'no sub-pixel offset head', group='model', in_checkpoint=True)
    pretrained: str = option(
        'imagenet',
        'backbone weights to train from: imagenet | none | FILE',
        group='model',
        check=Check(lambda value: value in ('imagenet', 'none') or os.path.isfile(value), 'imagenet, none or a file'),
        idle=lambda opt: 'does not act with --load_model' if opt.load_model else '',
        per_call=True,
        **TRAINING,
    )

    # input
    input_res: int = option(
        -1, "input height and width; -1: the dataset's", group='input', check=side_or_default(MAX_SIDE)
    )
    input_h: int = option(-1, 'input height; -1: as input_res', group='input', check=side_or_default(MAX_SIDE))
    input_w: int = option(-1, 'input width; -1: as input_res', group='input', check=side_or_default(MAX_SIDE))
    max_pixels: int = option(
        0,
        'images of more pixels are left out as decompression bombs; '
        '0: 500 million, or as many as half of the memory holds',
        group='input',
        check=at_least(0),
    )

    # train
    lr: float = option(1.25e-4, 'learning rate, for the batch size given', group='train', check=over(0), **TRAINING)
    lr_for: int = option(
        0,
        'batch size that --lr is for: the rate is scaled by --batch_size over it; 0: --lr is taken as it is',
        group='train',
        check=at_least(0),
        **TRAINING,
    )
    lr_step: list[int] = option(
        '90,120',
        'epochs after which the rate drops tenfold',
        group='train',
        parse=numbers(int, 'epochs such as 90,120'),
        idle=lambda opt: '' if opt.lr_schedule == 'step' else 'acts only with --lr_schedule step',
        **TRAINING,
    )
    lr_schedule: str = option(
        'step',
        'step: the rate drops at --lr_step; cosine: it falls to 0 along half a cosine',
        group='train',
        choices=('step', 'cosine'),
        **TRAINING,
    )
    warmup: int = option(
        0, 'first iterations of the run, over which the rate rises from 0', group='train', check=at_least(0), **TRAINING
    )
    num_epochs: int = option(140, 'epochs of training', group='train', check=at_least(1), **TRAINING)
    batch_size: int = option(32, 'images a step, of all GPUs together', group='train', check=at_least(1), **TRAINING)
    master_batch_size: int = option(
        -1,
        "the first chunk's share of the batch, on several GPUs or with --accumulate; -1: as large as the others",
        group='train',
        check=positive_or_default(),
        idle=lambda opt: 'does not act on one device without --accumulate' if len(opt.chunk_sizes) == 1 else '',
        **TRAINING,
    )
    accumulate: int = option(
        1,
        "chunks of the batch (of each GPU's share) that go through the network one after the other, for less memory; "
        'the step is by their mean gradient',
        group='train',
        check=at_least(1),
        **TRAINING,
    )
    sync_bn: bool = option(
        False,
        'batch norms take their statistics over all GPUs',
        group='train',
        idle=lambda opt: '' if opt.processes > 1 else 'acts on several GPUs',
        **TRAINING,
    )
    amp: str = option(
        'none',
        'mixed precision: the network computes in this type, and on the CPU only where that is faster; weights and '
        'losses are float32',
        group='train',
        choices=('none', 'bfloat16', 'float16'),
        **TRAINING,
    )
    freeze: str = option(
        'none',
        'part of the network that stays as it is, batch norm statistics too',
        group='train',
        choices=('none', 'backbone', 'all-but-heads'),
        **TRAINING,
    )
    clip_grad: float = option(
        0.0,
        'most norm of the gradient, which is scaled down to it; 0: any',
        group='train',
        check=at_least(0),
        **TRAINING,
    )
    ema: float = option(
        0.0,
        'decay of the average of the weights, such as 0.9998, which is validated and saved in their place; 0: none',
        group='train',
        check=Check(lambda value: 0 <= value < 1, 'at least 0 and less than 1'),
        **TRAINING,
    )
    num_iters: int = option(-1, 'iterations an epoch; -1: all', group='train', check=positive_or_default(), **TRAINING)
    val_intervals: int = option(5, 'epochs between validations; 0: never', group='train', check=at_least(0), **TRAINING)
    patience: int = option(
        0,
        'epochs without a better --metric after which training ends; 0: none',
        group='train',
        check=at_least(0),
        idle=lambda opt: '' if opt.val_intervals > 0 else 'does not act without validation',
        **TRAINING,
    )
    save_minutes: float = option(
        30.0,
        'minutes after which model_last.pth is written within an epoch, too; 0: at the end of epochs alone',
        group='train',
        check=at_least(0),
        **TRAINING,
    )
    trainval: bool = option(
        False, 'no validation; own data and kitti train on val too', group='train', programs=(MAIN, TEST)
    )

    # test
    eval_metric: str = option(
        '',
        "metric that scores: bbox | keypoints | voc | kitti; '' is the dataset's own",
        group='test',
        programs=(MAIN, TEST, EXPORT),
        idle=lambda opt: 'acts only with --int8' if opt.program == EXPORT and not opt.int8 else '',
    )
    flip_test: bool = option(
        False,
        'average with the mirrored image',
        group='test',
        programs=(*INFERENCE, EXPORT),
        acts=lambda task: task.merges_views,
    )
    test_scales: list[float] = option(
        '1',
        'scales to test at, comma-separated',
        group='test',
        programs=INFERENCE,
        acts=lambda task: task.merges_views,
        parse=numbers(float, 'scales such as 0.5,1,1.5', over=0, empty=False),
    )
    nms: bool = option(
        False,
        'soft-NMS also at a single scale',
        group='test',
        programs=INFERENCE,
        acts=lambda task: task.optional_nms,
    )
    K: int = option(-1, 'detections kept; -1: 100, exdet 40 a side', group='test', check=positive_or_default())
    not_prefetch_test: bool = option(False, 'load test images in this process', group='test', programs=(TEST,))
    test_batch_size: int = option(
        1, 'images that go through the network together', group='test', check=at_least(1), programs=(TEST,)
    )
    no_report: bool = option(
        False, 'write no report.html, only metrics.json and the results', group='test', programs=(TEST,)
    )
    dtype: str = option(
        'auto',
        'the network computes in it; auto: in the faster one, measured once on this processor, where the answer stays',
        group='test',
        choices=('auto', 'float32', 'bfloat16'),
        programs=INFERENCE,
        idle=lambda opt: 'does not act on an exported file' if is_exported(opt.load_model) else '',
    )
    winograd_memory: int = option(
        -1,
        'MiB that convolutions made faster on the CPU may take, with --dtype auto; -1: half of what the weights take',
        group='test',
        check=at_least(-1),
        programs=INFERENCE,
        idle=lambda opt: '' if opt.dtype == 'auto' else f'does not act with --dtype {opt.dtype}',
    )
    fix_res: bool = option(False, 'every image at the input size (the default)', group='test')
    keep_res: bool = option(
        False,
        'keep the resolution of each image',
        group='test',
        idle=lambda opt: (
            f'acts in test.py and demo.py; {opt.task} is trained on square inputs'
            if opt.program == MAIN and TASKS[opt.task].square_input
            else ''
        ),
    )

    # augmentation
    not_rand_crop: bool = option(
        False,
        'shift and scale instead of random crops',
        group='augmentation',
        acts=lambda task: task.augments,
        **TRAINING,
    )
    shift: float = option(
        0.1,
        'spread of the shift, without random crops',
        group='augmentation',
        check=at_least(0),
        idle=needs_random_shift,
        **TRAINING,
    )
    scale: float = option(
        0.4,
        'spread of the scale, without random crops',
        group='augmentation',
        check=Check(lambda value: 0 <= value < 1, 'at least 0 and less than 1'),
        idle=needs_random_shift,
        **TRAINING,
    )
    flip: float = option(
        0.5,
        'probability of a horizontal flip',
        group='augmentation',
        check=between(0, 1),
        acts=lambda task: task.augments,
        **TRAINING,
    )
    no_color_aug: bool = option(
        False, 'leave colours as they are', group='augmentation', acts=lambda task: task.augments, **TRAINING
    )

    # loss
    mse_loss: bool = option(False, 'squared error on heatmaps instead of focal loss', group='loss', in_checkpoint=True)
    hm_gauss: float = option(
        -1.0,
        'sigma of the MSE heatmap; -1: input_res / 128',
        group='loss',
        check=positive_or_default(),
        idle=lambda opt: '' if opt.mse_loss else 'acts only with --mse_loss',
        **TRAINING,
    )
    reg_loss: str = option(
        'l1',
        'regression loss',
        group='loss',
        choices=('l1', 'sl1', 'l2'),
        acts=lambda task: task.chooses_regression_loss,
        **TRAINING,
    )
    hm_weight: float = option(1.0, 'weight of the heatmap loss', group='loss', check=at_least(0), **TRAINING)
    off_weight: float = option(1.0, 'weight of the offset loss', group='loss', check=at_least(0), **TRAINING)
    wh_weight: float = option(
        0.1, 'weight of the box size loss', group='loss', check=at_least(0), acts=has_head('wh'), **TRAINING
    )

    # ground truth in place of a head
    eval_oracle_hm: bool = option(False, 'true heatmap', group='ground truth in place of a head (main.py --test)')
    eval_oracle_wh: bool = option(
        False, 'true box size', group='ground truth in place of a head (main.py --test)', acts=has_head('wh')
    )
    eval_oracle_offset: bool = option(False, 'true offset', group='ground truth in place of a head (main.py --test)')

    # demo
    demo: str = option(
        '',
        "image, folder, pattern ('photos/**/*.jpg'), video, address (https://, rtsp://), 'webcam' or 'webcam:N'; in "
        'export.py the image that the file is compared on',
        group='demo',
        programs=(DEMO, EXPORT),
        per_call=True,
    )
    output: str = option(
        '',
        "folder for images and results.json; '' is SAVE_DIR/demo; in export.py the file; '' is beside the checkpoint",
        group='demo',
        programs=(DEMO, EXPORT),
        per_call=True,
    )
    save_video: str = option(
        '', "video file to write; '' is OUTPUT/NAME.mp4 for videos", group='demo', programs=(DEMO,), per_call=True
    )
    every: int = option(
        1, 'look at each N-th frame or image only', group='demo', check=at_least(1), programs=(DEMO,), per_call=True
    )
    min_score: float = option(
        0.0,
        'lowest score that results.json and detections.csv list',
        group='demo',
        check=between(0, 1),
        programs=(DEMO,),
        per_call=True,
    )
    save_csv: bool = option(
        False, 'also write what results.json lists into detections.csv', group='demo', programs=(DEMO,), per_call=True
    )
    save_txt: bool = option(
        False, "also write what is drawn into labels/, in YOLO's format", group='demo', programs=(DEMO,), per_call=True
    )
    save_crops: bool = option(
        False, 'also cut what is drawn out of the images, into crops/', group='demo', programs=(DEMO,), per_call=True
    )
    no_display: bool = option(False, 'never open a window', group='demo', programs=(DEMO,), per_call=True)

    # export
    format: str = option(
        'onnx',
        'onnx; openvino: an .xml and a .bin; pt2: of torch.export',
        group='export',
        choices=('onnx', 'openvino', 'pt2'),
        **EXPORTING,
    )
    float_input: bool = option(False, 'the file takes float32 images, of the same values', group='export', **EXPORTING)
    dynamic_size: bool = option(False, 'the file takes images of any size', group='export', **EXPORTING)
    raw: bool = option(False, "the file gives the network's maps, without the decoder", group='export', **EXPORTING)
    half: bool = option(False, 'the network computes in float16, for GPUs', group='export', **EXPORTING)
    int8: str = option(
        '',
        'the network computes in int8, for CPUs: as --dataset, whose images calibrate it and whose val split judges it',
        group='export',
        **EXPORTING,
    )
    calibration_images: int = option(
        64,
        'images of the train split of --int8 that give the ranges of values',
        group='export',
        check=between(1, 10_000),
        idle=lambda opt: '' if opt.int8 else 'acts only with --int8',
        **EXPORTING,
    )
    own_dcn: bool = option(
        False,
        "deformable convolutions compute in int8, too, by operators that only this package's programs have",
        group='export',
        idle=lambda opt: '' if opt.int8 and opt.format == 'openvino' else 'acts only with --int8 --format openvino',
        **EXPORTING,
    )
    force: bool = option(False, 'replace the file at --output', group='export', **EXPORTING)

    # What follows from the options
    program: str  # the program that runs: main.py, test.py, demo.py or export.py
    given: list[str]  # names of the options on the command line
    record: dict[str, Any]  # each option as it was given, or taken from the run that is resumed
    facts: dict[str, Any]  # of the checkpoint, where the run takes them
    gpus_str: str
    processes: int  # that share the work: those of --gpus, or of torchrun
    chunk_sizes: list[int]  # images in each chunk of a batch: --accumulate of the first process, then of the next
    root_dir: str
    save_dir: str  # exp_dir/EXP_ID, or the folder of the run that the checkpoint lies in
    debug_dir: str
    reg_offset: bool
    reg_bbox: bool
    hm_hp: bool
    reg_hp_offset: bool
    pad: int  # input sides are multiples of pad + 1
    num_stacks: int  # outputs of the network

    # What the dataset adds
    num_classes: int
    class_names: list[str]
    num_joints: int | None
    flip_idx: list | None  # pairs of joints, 0-based
    skeleton: list | None  # limbs as pairs of joints, 0-based
    mean: np.ndarray  # float32 [1, 1, 3], of BGR channels on [0, 1]
    std: np.ndarray
    output_h: int
    output_w: int
    output_res: int
    heads: dict[str, int]  # channels by name

    @functools.cached_property
    def device(self) -> 'torch.device':
        """Return the device of `--gpus`, opened at its first use.

        Raises:
            UserError: the GPU is not there.
        """
        from .utils.device import open_device

        return open_device(self.gpus, self.gpus_str, not self.not_cuda_benchmark)


ALL_ROWS: dict[str, Option] = Options.rows | {
    name: row for task in TASKS.values() for name, row in task.options.rows.items()
}
MODEL_OPTIONS = tuple(name for name, row in ALL_ROWS.items() if row.in_checkpoint)


EXAMPLES = """\
{where}without --dataset the task's own is taken, from where data/README.md says; FOLDER is data of yours, in COCO,
YOLO, VOC or labelme format as their tools write it:
{tasks}
  toy data    {toy} {up}data/toy --task TASK
              {train} TASK --dataset {up}data/toy --pretrained none    (ddd: --data_dir {up}data/toy)
{all_steps}  to score    {test} TASK --load_model {up}exp/TASK/default/model_best.pth [--dataset as in training]
  to look     {demo} TASK --load_model {up}exp/TASK/default/model_best.pth --demo IMAGES
  options     @FILE stands for the options in a file: {up}exp/TASK/default/options.args has those of a run
"""
# What the examples call, in src/ of a checkout and where the package is installed.
IN_CHECKOUT = {
    'where': 'run in src/; ',
    'up': '../',
    'all_steps': '              or, in the folder above, all at once: make demo | demo-pose | demo-exdet | demo-3d\n',
    'toy': 'python tools/make_toy_data.py',
    'extreme': 'tools/gen_coco_extreme_points.py',
    'kitti': 'tools/convert_kitti_to_coco.py',
    'train': 'python main.py',
    'test': 'python test.py',
    'demo': 'python demo.py',
}
INSTALLED = {
    'where': '',
    'up': '',
    'all_steps': '',
    'toy': f'{COMMAND} toy',
    'extreme': f'{COMMAND} convert extreme',
    'kitti': f'{COMMAND} convert kitti',
    'train': f'{COMMAND} train',
    'test': f'{COMMAND} test',
    'demo': f'{COMMAND} demo',
}
DESCRIPTIONS = {
    MAIN: 'Train CenterNet (objects as points). With --test, evaluate on the training side.',
    TEST: 'Score a trained CenterNet (objects as points) on a dataset.',
    EXPORT: 'Write a trained CenterNet (objects as points) into a file that runs without PyTorch.',
    DEMO: 'Look at what a trained CenterNet (objects as points) finds in images, videos or a camera.',
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Each option with its default, the examples line by line."""


def build_parser(program: str = MAIN) -> OneLineParser:
    """Build a parser of all options; its `--help` lists those that act in `program`, in their groups."""
    words = INSTALLED if called_as_command() else IN_CHECKOUT
    lines = [f'  {name:11} {words["train"]} {name} {task.example.format(**words)}' for name, task in TASKS.items()]
    parser = OneLineParser(
        usage=f'{sys.argv[0] if called_as_command() else program} TASK [options]',
        description=DESCRIPTIONS[program],
        epilog=EXAMPLES.format(tasks='\n'.join(lines), **words),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        fromfile_prefix_chars='@',
    )
    summaries = ' | '.join(f'{name} ({task.summary})' for name, task in TASKS.items())
    parser.add_argument('task', metavar='TASK', help=summaries)
    add_arguments(parser, list(ALL_ROWS.values()), program, argparse.SUPPRESS)
    return parser


class opts:
    """Reads options; see the module's docstring. Mistakes raise `UserError`."""

    def parse(self, args: list[str] | None = None, program: str = MAIN, launch: Launch = ALONE) -> Options:
        """Parse `args` (or the command line), check it and derive what follows from it.

        In test.py and demo.py (`program`), and for `--resume` and `--test`, options of the network that were not
        given come from the checkpoint, and a given one that contradicts it is refused. With `--resume` all options
        that were not given come from the run. So do they where torchrun started the processes again (`launch`).
        """
        given = read_arguments(args, program)
        opt = Options(program=program, task=given.pop('task'), given=sorted(given))
        check_task(opt.task)
        set_values(opt, {name: row.default for name, row in ALL_ROWS.items()} | given)
        derive_outputs(opt, launch)
        if opt.resume and not opt.load_model:
            resume_from_last(opt, required=program != MAIN or opt.test)
        opt.facts = read_facts(opt)
        if opt.resume and program == MAIN:
            take_run_options(opt, launch)
        check_names(opt)
        adopt_val_share(opt)
        adopt_model_options(opt)
        adopt_decoder_options(opt)
        derive_options(opt, launch)
        check_combinations(opt)
        for note in idle_options(opt):
            logger.info('note: %s', note)
        return opt

    def init(self, args: list[str] | None = None, program: str = DEMO) -> Options:
        """Parse, then take the facts of the checkpoint, or else the default ones of the dataset (for demo, export)."""
        opt = self.parse(args, program)
        return self.update_dataset_info_and_set_heads(opt, demo_facts(opt))

    @staticmethod
    def update_dataset_info_and_set_heads(opt: Options, dataset: Any) -> Options:
        """Set classes, mean/std, input and output size and `heads` from a dataset class (or its facts).

        Raises:
            UserError: the checkpoint's classes, joints or heads are others, or the input size does not suit the arch.
        """
        for name in DATASET_FACTS:
            own, kept = getattr(dataset, name, None), opt.facts.get(name)
            if own is not None and kept is not None and name in ('class_names', 'num_joints') and own != kept:
                raise UserError(
                    f"checkpoint '{opt.load_model}' was trained with {name} {brief(kept)}, but dataset "
                    f"'{opt.dataset}' has {brief(own)}: use the dataset that it was trained on"
                )
            setattr(opt, name, kept if kept is not None else own)
        opt.mean, opt.std = (np.array(v, np.float32).reshape(1, 1, 3) for v in (opt.mean, opt.std))
        opt.num_classes = len(opt.class_names)
        set_resolution(opt, dataset.default_resolution)
        opt.heads = heads_of(opt)
        if opt.facts.get('heads', opt.heads) != opt.heads:
            raise UserError(
                f"checkpoint '{opt.load_model}' has the heads {brief(opt.facts['heads'])}, but the options and "
                f"dataset '{opt.dataset}' ask for {brief(opt.heads)}"
            )
        take_thresholds(opt)
        if opt.program == MAIN:
            check_metric(opt.metric, dataset.create_metric(opt.eval_metric).names)
        return opt


# ------------------------------------------------------------------------------------------ reading


def read_arguments(args: list[str] | None, program: str) -> dict[str, Any]:
    """Return the task, and the options that stand on the command line, as argparse reads them."""
    parser = build_parser(program)
    unset = object()
    read = parser.parse_args(args, Namespace(**dict.fromkeys(ALL_ROWS, unset)))
    return {name: value for name, value in vars(read).items() if value is not unset}


def set_values(opt: Options, raw: Mapping[str, Any]) -> None:
    """Set options to their checked values, and keep them in the record as they were given."""
    for name, value in raw.items():
        setattr(opt, name, ALL_ROWS[name].value(value))
    opt.record = {**vars(opt).get('record', {}), **raw}


def check_task(name: str) -> None:
    """Check that the task exists."""
    if name not in TASKS:
        raise UserError(f"task '{name}' is not one of {', '.join(TASKS)}" + did_you_mean(name, TASKS))


def check_names(opt: Options) -> None:
    """Check that dataset and arch exist."""
    from .datasets.source_factory import check_dataset_name

    if opt.arch not in ARCHS:
        raise UserError(f"arch '{opt.arch}' is not one of {', '.join(ARCHS)}" + did_you_mean(opt.arch, ARCHS))
    opt.dataset = opt.int8 or opt.dataset or TASKS[opt.task].dataset
    if os.path.isdir(opt.dataset):
        opt.record['dataset'] = os.path.abspath(opt.dataset)  # a run may be resumed from elsewhere
    check_dataset_name(opt.dataset, opt.task)


# ------------------------------------------------------------------------------------------ folders


def derive_outputs(opt: Options, launch: Launch) -> None:
    """Derive the folders that outputs go to; none is made here.

    A checkpoint that lies in a run's folder is tested, looked through and resumed there, unless the command line
    names another place.

    Raises:
        UserError: `--exp_id` is no name of a folder in the folder of the task.
    """
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    in_checkout = package.parent.name == 'src' and (checkout / 'setup.py').exists()
    opt.root_dir = str(checkout if in_checkout else Path.cwd())
    exp_dir = os.path.abspath(opt.exp_dir or os.path.join(opt.root_dir, 'exp'))
    opt.exp_dir = os.path.join(exp_dir, opt.task)
    opt.save_dir = os.path.normpath(os.path.join(opt.exp_dir, opt.exp_id))
    if Path(opt.exp_dir) not in Path(opt.save_dir).parents or '\0' in opt.exp_id:
        raise UserError(f"--exp_id '{opt.exp_id}': expected the name of a folder inside '{opt.exp_dir}'")
    if max(len(os.fsencode(part)) for part in Path(opt.exp_id).parts) > LONGEST_NAME:
        raise UserError(f"--exp_id '{opt.exp_id[:20]}...': expected a name of at most {LONGEST_NAME} bytes")
    if not go_on_after_restart(opt, launch) and 'exp_id' not in opt.given:
        name_run(opt)
    run = run_of(opt.load_model)
    elsewhere = 'exp_dir' in opt.given and run is not None and Path(os.path.realpath(exp_dir)) not in run.parents
    if run is not None and 'exp_id' not in opt.given and not elsewhere and goes_on(opt):
        opt.save_dir, opt.exp_dir, opt.exp_id = str(run), str(run.parent), run.name
    opt.debug_dir = os.path.join(opt.save_dir, 'debug')


def name_run(opt: Options) -> None:
    """Give a run without `--exp_id` its folder: a free one to start in, the latest one to go on in."""
    if opt.program == MAIN and not (opt.resume or opt.test or opt.overwrite):
        folder = free_folder(opt.save_dir)
        if folder != opt.save_dir:
            logger.info(
                "note: '%s' holds an earlier run, so this one goes to '%s' (--exp_id names a run, --resume goes on "
                'with the latest, --overwrite starts over)',
                opt.save_dir,
                folder,
            )
    elif opt.resume and not opt.load_model:
        folder = latest_folder(opt.save_dir)
    else:
        return
    opt.save_dir, opt.exp_id = folder, os.path.basename(folder)


def go_on_after_restart(opt: Options, launch: Launch) -> bool:
    """Go on with the run that torchrun's processes had begun before they were started again.

    Returns:
        whether they had.
    """
    if launch.restarts == 0 or opt.program != MAIN or opt.test:
        return False
    folder = folder_begun_by(launch.agent, opt.save_dir, numbered='exp_id' not in opt.given)
    if folder is None:
        return False
    opt.save_dir, opt.exp_id, opt.overwrite = folder, os.path.basename(folder), False
    if os.path.exists(os.path.join(folder, 'model_last.pth')):
        logger.info('torchrun has started the processes again: the run goes on from its last checkpoint')
        opt.resume, opt.load_model = True, ''
    return True


def run_of(checkpoint: str) -> Path | None:
    """Return the folder of the run that a checkpoint lies in; None where it lies in none."""
    folder = Path(os.path.realpath(checkpoint)).parent
    return folder if checkpoint and (folder / RUN_RECORD).is_file() else None


def goes_on(opt: Options) -> bool:
    """Return whether the program works with the checkpoint's network as it is; fine-tuning starts another."""
    return opt.program != MAIN or opt.resume or opt.test


def resume_from_last(opt: Options, required: bool) -> None:
    """`--resume` alone goes on from the run's own last checkpoint; training that has none starts anew."""
    last = os.path.join(opt.save_dir, 'model_last.pth')
    if os.path.exists(last):
        opt.load_model = last
    elif required:
        raise UserError(f"--resume found no '{last}': train first, or give --load_model FILE")
    else:
        opt.resume = False
        logger.info("note: --resume found no '%s': starting from the beginning", last)


# ------------------------------------------------------------------------------------------ checkpoints


def read_facts(opt: Options) -> dict[str, Any]:
    """Read the facts of the checkpoint that the program goes on with; {} without one."""
    if opt.program not in INFERENCE and is_exported(opt.load_model):
        raise UserError(f"'{opt.load_model}' is an exported file, which test.py and demo.py run: give the checkpoint")
    if not (opt.load_model and goes_on(opt)):
        return {}
    from .models.checkpoints import checkpoint_facts

    facts = checkpoint_facts(opt.load_model)
    if facts.get('task', opt.task) != opt.task:
        raise UserError(f"checkpoint '{opt.load_model}' is a {facts['task']} model, not a {opt.task} one")
    return facts


def take_run_options(opt: Options, launch: Launch) -> None:
    """Take every option that the command line does not give from the run that is resumed, and say what differs.

    Raises:
        UserError: the checkpoint's record of an option is no value that it can have.
    """
    recorded = opt.facts.get('options', {})
    kept = {name: value for name, value in recorded.items() if name in ALL_ROWS and not ALL_ROWS[name].per_call}
    if launch.count > 1 and kept.get('gpus', '-1') != '-1':  # each of torchrun's processes has its own
        del kept['gpus']
    if 'input_res' in opt.given:  # which the run's height and width would override
        kept = {name: value for name, value in kept.items() if name not in ('input_h', 'input_w')}
    for name, value in kept.items():
        row = ALL_ROWS[name]
        fits = type(value) is row.kind or (row.kind is float and type(value) is int)
        if not fits or (row.choices and value not in row.choices):
            raise UserError(f"checkpoint '{opt.load_model}' records --{name} {brief(value)}, which is no value of it")
    changes = [
        f'--{name} {opt.record[name]} (before: {value})'
        for name, value in kept.items()
        if name in opt.given and opt.record[name] != value
    ]
    set_values(opt, {name: value for name, value in kept.items() if name not in opt.given})
    if changes:
        logger.info('resumed with other options than the run had: %s', ', '.join(changes))


def adopt_val_share(opt: Options) -> None:
    """Take `--val_share` from the run of the checkpoint, unless it is given: others may be images that were learnt."""
    kept = opt.facts.get('options', {}).get('val_share')
    row = ALL_ROWS['val_share']
    if 'val_share' not in opt.given and isinstance(kept, float) and row.check is not None and row.check.passes(kept):
        opt.val_share = kept


def adopt_model_options(opt: Options) -> None:
    """Take the options that shape the network from the checkpoint's facts, unless the command line gave them."""
    for name in MODEL_OPTIONS:
        kept = opt.facts.get(name)
        if kept is None:
            continue
        if name in opt.given and getattr(opt, name) != kept and not (name == 'head_conv' and fixed_heads(opt)):
            raise UserError(
                f"checkpoint '{opt.load_model}' was trained with {name} {kept}, but the command line says "
                f'{getattr(opt, name)}: leave --{name} out'
            )
        setattr(opt, name, kept)


def adopt_decoder_options(opt: Options) -> None:
    """Take the options of the decoder inside an exported file, which can no longer be chosen.

    Raises:
        UserError: the command line gives another value.
    """
    for name in DECODER_FACTS:
        kept = opt.facts.get(name)
        if kept is None:
            continue
        if name in opt.given and getattr(opt, name) != kept:
            raise UserError(
                f"'{opt.load_model}' was exported with {name} {kept}, which is inside the file, but the command line "
                f'says {getattr(opt, name)}: export the checkpoint anew'
            )
        setattr(opt, name, kept)


def demo_facts(opt: Options) -> Any:
    """Return the facts of the dataset that the checkpoint was trained on, as far as it records or shows them.

    With `--int8` they are that dataset's, which has to fit the checkpoint.
    Classes that it does not name are the dataset's where their number fits, of `--dataset` or of the built-in one
    that has as many; else they are numbered.
    """
    from .datasets.dataset_factory import get_dataset
    from .datasets.source_factory import datasets_for

    facts = opt.facts
    if opt.int8:
        return get_dataset(opt.dataset, opt.task)
    if {'class_names', 'mean', 'std', 'input_h', 'input_w'} <= facts.keys():
        return Namespace(default_resolution=[facts['input_h'], facts['input_w']])
    dataset = get_dataset(opt.dataset, opt.task)
    if 'class_names' in facts:  # the others are the dataset's
        kept = {name: getattr(dataset, name) for name in ('default_resolution', 'mean', 'std')}
        return Namespace(**kept)
    count, joints = facts.get('num_classes'), facts.get('num_joints')
    if count in (None, dataset.num_classes) and joints in (None, dataset.num_joints) or 'dataset' in opt.given:
        return dataset
    for name in datasets_for(opt.task):
        other = get_dataset(name, opt.task)
        if other.num_classes == count and joints in (None, other.num_joints):
            logger.info("note: the checkpoint names no classes; they are taken to be those of '%s'", name)
            opt.dataset = name
            return other
    logger.info('note: the checkpoint names no classes: they are numbered')
    return Namespace(
        default_resolution=dataset.default_resolution,
        mean=dataset.mean,
        std=dataset.std,
        class_names=[f'class {number}' for number in range(1, facts['num_classes'] + 1)],
        num_joints=joints,
        flip_idx=[] if joints else None,
        skeleton=[] if joints else None,
    )


# ------------------------------------------------------------------------------------------ what follows


def derive_options(opt: Options, launch: Launch) -> None:
    """Set what follows from other options: devices, shares of a batch, which heads there are, -1 as a default."""
    task, family = TASKS[opt.task], family_of(opt.arch)
    opt.data_dir = os.path.abspath(opt.data_dir or os.path.join(opt.root_dir, 'data'))
    if opt.record['data_dir']:
        opt.record['data_dir'] = opt.data_dir
    derive_devices(opt, launch)
    for name, row in ALL_ROWS.items():
        if not acts_in_task(row, opt.task):
            setattr(opt, name, row.value(row.default))
    opt.reg_offset = not opt.not_reg_offset
    opt.reg_bbox = not opt.not_reg_bbox
    opt.hm_hp = not opt.not_hm_hp
    opt.reg_hp_offset = not opt.not_reg_hp_offset and opt.hm_hp
    opt.pad = family.side_multiple - 1
    opt.num_stacks = family.stacks
    if family.fixed_head_conv is not None:
        opt.head_conv = family.fixed_head_conv
    elif opt.head_conv == -1:
        opt.head_conv = family.default_head_conv
    if opt.K == -1:
        opt.K = task.K
    if opt.trainval:
        opt.val_intervals = 0
    if opt.debug > 0:
        if launch.count > 1:
            raise UserError(f'--debug looks into one process, but torchrun started {launch.count}: use python alone')
        opt.batch_size, opt.num_workers, opt.gpus, opt.master_batch_size = 1, 0, opt.gpus[:1], -1
        opt.test_batch_size = opt.accumulate = opt.processes = 1
    share = max(1, (os.cpu_count() or 1) // launch.local_count)
    opt.num_workers = min(opt.num_workers, share)
    opt.chunk_sizes = chunk_sizes(opt.batch_size, opt.master_batch_size, opt.processes * opt.accumulate)
    if opt.master_batch_size == -1:
        opt.master_batch_size = opt.chunk_sizes[0]
    if opt.lr_for > 0 and opt.program == MAIN and not opt.test:
        scale_rate(opt)


def scale_rate(opt: Options) -> None:
    """Scale the learning rate, which is that of batches of `--lr_for`, to the batch size."""
    opt.lr = opt.record['lr'] * opt.batch_size / opt.lr_for
    logger.info(
        '--lr %g for batches of %d becomes %g for batches of %d',
        *(opt.record['lr'], opt.lr_for, opt.lr, opt.batch_size),
    )


def derive_devices(opt: Options, launch: Launch) -> None:
    """Derive the list `gpus` of local indices, or [-1] for the CPU, `gpus_str`, as it was given or found, and the
    number of processes that share the work.

    In one of several processes `gpus` and `gpus_str` are its own device alone.

    Raises:
        UserError: `--gpus` is no list of GPU ids, or gives torchrun's processes other GPUs than their own.
    """
    import torch

    parse, _ = numbers(int, '')
    found = '0' if torch.cuda.is_available() else '-1'
    if launch.count > 1 and not launch.own and found == '0':
        found = str(launch.local_rank)
    opt.gpus_str = opt.record['gpus'] or found
    try:
        ids = parse(opt.gpus_str)
    except ValueError:
        raise UserError(f"--gpus '{opt.gpus_str}': expected a GPU id such as 0, or -1 for the CPU") from None
    if not ids or (min(ids) < 0 and ids != [-1]) or len(set(ids)) < len(ids):
        raise UserError(f"--gpus '{opt.gpus_str}': expected GPU ids such as 0 or 0,1, or -1 for the CPU")
    opt.processes = max(launch.count, len(ids))
    if launch.count > 1 and ids != [-1]:
        if launch.own and len(ids) == launch.count:
            ids = ids[launch.rank : launch.rank + 1]
        elif opt.record['gpus']:
            raise UserError(
                f'--gpus {opt.gpus_str} with torchrun, each of whose {launch.count} processes takes the GPU of its '
                'number: leave --gpus out (-1 is the CPU), and choose by CUDA_VISIBLE_DEVICES'
            )
        opt.gpus_str = str(ids[0])
    opt.gpus = [-1] if ids == [-1] else list(range(len(ids)))


def acts_in_task(row: Option, task: str) -> bool:
    """Return whether an option acts in a task: its own options and the shared ones that say so do."""
    if row.name in Options.rows:
        return row.acts is None or row.acts(TASKS[task])
    return row.name in TASKS[task].options.rows


def chunk_sizes(batch_size: int, master_batch_size: int, count: int) -> list[int]:
    """Split a batch into `count` chunks: the master's share first, the rest split evenly, its remainder one each to the
    first of the rest."""
    if count == 1:
        return [batch_size]
    master = master_batch_size if master_batch_size != -1 else batch_size // count
    share, extra = divmod(batch_size - master, count - 1)
    return [master] + [share + (i < extra) for i in range(count - 1)]


def set_resolution(opt: Options, default: list[int]) -> None:
    """Set input and output size: h/w over res over the checkpoint's over the dataset's default `[h, w]`."""
    height = opt.facts.get('input_h', default[0])
    width = opt.facts.get('input_w', default[1])
    if opt.record['input_res'] > 0:
        height = width = opt.record['input_res']
    opt.input_h = opt.record['input_h'] if opt.record['input_h'] > 0 else height
    opt.input_w = opt.record['input_w'] if opt.record['input_w'] > 0 else width
    if TASKS[opt.task].square_input and opt.input_h != opt.input_w:
        raise UserError(f'{opt.task} takes square inputs, not {opt.input_h} x {opt.input_w}: use --input_res')
    for side in (opt.input_h, opt.input_w):
        if side % (opt.pad + 1):
            raise UserError(f'input size {opt.input_h} x {opt.input_w}: {opt.arch} needs multiples of {opt.pad + 1}')
    opt.output_h, opt.output_w = opt.input_h // opt.down_ratio, opt.input_w // opt.down_ratio
    opt.input_res = max(opt.input_h, opt.input_w)
    opt.output_res = max(opt.output_h, opt.output_w)
    if opt.hm_gauss == -1:
        opt.hm_gauss = opt.input_res / 128


def take_thresholds(opt: Options) -> None:
    """Put the thresholds [C] of the classes in the place of a `--vis_thresh` that names their file.

    Raises:
        UserError: there is no such file, or it is of other classes.
    """
    chosen = opt.vis_thresh
    if not isinstance(chosen, str):
        return
    folders = [os.path.dirname(opt.load_model)] if opt.load_model else []
    path = find_thresholds([*folders, opt.save_dir]) if chosen == BEST else chosen
    opt.vis_thresh = read_thresholds(path, opt.class_names, os.path.basename(opt.load_model))


# ------------------------------------------------------------------------------------------ contradictions


def check_combinations(opt: Options) -> None:
    """Refuse options that contradict each other, before hours are spent on them."""
    if opt.keep_res and opt.fix_res:
        raise UserError('--keep_res and --fix_res exclude each other')
    opt.fix_res = not opt.keep_res
    ways = [f'--{name}' for name in ('norm_wh', 'dense_wh', 'cat_spec_wh') if getattr(opt, name)]
    if len(ways) > 1:
        raise UserError(f'{" and ".join(ways)} are different ways to learn box sizes: choose one')
    if opt.program == DEMO and opt.processes > 1:
        raise UserError(f'--gpus {opt.gpus_str}: demo.py looks at one image after the other: give it one GPU')
    if opt.program == MAIN and not opt.test and min(opt.chunk_sizes) < 1:
        chunk = f'process of {opt.processes}' if opt.accumulate == 1 else f'chunk of --accumulate {opt.accumulate}'
        if opt.processes > 1 < opt.accumulate:
            chunk += f' in {opt.processes} processes'
        raise UserError(
            f'--batch_size {opt.batch_size} with --master_batch_size {opt.master_batch_size} leaves a {chunk} '
            'without images'
        )
    if opt.sync_bn and opt.gpus == [-1]:
        raise UserError('--sync_bn acts on several GPUs alone; PyTorch has none for the CPU')
    if opt.amp == 'float16' and opt.gpus == [-1] and opt.program == MAIN:
        check_float16_on_cpu()
    if opt.overwrite and 'resume' in opt.given:
        raise UserError('--overwrite starts a run over and --resume goes on with it: choose one')
    if (
        opt.program == MAIN
        and not opt.test
        and opt.val_intervals == 0
        and opt.metric != 'loss'
        and 'metric' in opt.given
    ):
        why = '--trainval' if opt.trainval else '--val_intervals 0'
        raise UserError(f'{why} trains without validation, so --metric {opt.metric} has nothing to choose by')
    if opt.program != MAIN and oracles(opt):
        raise UserError(f'--{oracles(opt)[0]} needs the truth of the training side: use main.py --test')
    needs = {
        'eval_oracle_offset': opt.reg_offset,
        'eval_oracle_wh': opt.reg_bbox,
        'eval_oracle_hmhp': opt.hm_hp,
        'eval_oracle_hp_offset': opt.reg_hp_offset,
    }
    for name, there in needs.items():
        if getattr(opt, name) and not there:
            raise UserError(f'--{name} replaces a head that the other options switch off')


def check_float16_on_cpu() -> None:
    """Refuse `--amp float16` on a processor that does not compute in it, before data are read."""
    import torch

    from .utils.precision import check_computes_in

    check_computes_in('float16', torch.device('cpu'), '--amp')


def check_metric(name: str, names: Sequence[str]) -> None:
    """Refuse to choose the best checkpoint by a metric that there is not.

    Args:
        name: of `--metric`.
        names: of the metrics that the dataset is scored by.

    Raises:
        UserError: it is none of them.
    """
    if name not in ('loss', 'AP', *names):
        raise UserError(f"--metric '{name}' is not one of loss, AP, {', '.join(names)}" + did_you_mean(name, names))


def check_training(opt: Options) -> None:
    """Refuse options that main.py takes with `--test` only, or that training cannot follow."""
    if oracles(opt):
        name = oracles(opt)[0]
        raise UserError(f'--{name} puts the truth in place of a head: it is for main.py --test, not for training')
    if opt.keep_res and TASKS[opt.task].trains_unresized and opt.batch_size > 1:
        raise UserError('--keep_res gives inputs of different sizes: train with --batch_size 1, or without it')


def oracles(opt: Options) -> list[str]:
    """Return the options on the command line that put the truth in place of a head."""
    return [name for name in opt.given if name.startswith('eval_oracle_')]


def idle_options(opt: Options) -> list[str]:
    """Return a line for each option on the command line that cannot act in this run."""
    notes = []
    for name in opt.given:
        row = ALL_ROWS[name]
        if not acts_in_task(row, opt.task):
            notes.append(f'--{name} does not act in {opt.task}')
        elif opt.program not in row.programs:
            notes.append(f'--{name} acts in {" and ".join(row.programs)}')
        elif row.idle is not None and row.idle(opt):
            notes.append(f'--{name} {row.idle(opt)}')
    return notes


# ------------------------------------------------------------------------------------------ what is kept


OF_ONE_CALL = ('exp_id', 'test', 'resume', 'overwrite')  # options that a run which is started anew does not take over
PATHS = ('dataset', 'load_model', 'data_dir', 'exp_dir', 'pretrained', 'calib')  # options that may name files


def argument_lines(opt: Options) -> list[str]:
    """Return the options of a training run that are not at their defaults as lines of a file that `@FILE` reads.

    The task and the name of the run are not among them: `main.py TASK @FILE --exp_id NAME` trains alike again.
    """
    lines = [f'# options of a run: python main.py {opt.task} @THIS_FILE --exp_id NAME trains alike again']
    for name, value in sorted(opt.record.items()):
        row = ALL_ROWS[name]
        left_out = name in OF_ONE_CALL or (name in ('load_model', 'pretrained') and opt.resume)
        if left_out or value == row.default or MAIN not in row.programs or not acts_in_task(row, opt.task):
            continue
        if name in PATHS and os.path.exists(value):
            value = os.path.abspath(value)
        lines.append(shlex.quote(f'--{name}' if row.kind is bool else f'--{name}={value}'))
    return lines


def shared_options(opt: Options) -> dict[str, Any]:
    """Return `{what: value}` of the versions and options that must be the same in all processes of a run."""
    import torch

    own = ('gpus', 'num_workers', 'data_dir', 'exp_dir', 'dataset', 'load_model', 'pretrained', 'print_iter')
    options = {f'--{name}': value for name, value in sorted(opt.record.items()) if name not in own}
    return {'PyTorch': torch.__version__, 'task': opt.task, **options, 'chunks': opt.chunk_sizes}


def brief(value: Any) -> str:
    """Return a value for a message: long lists are cut, with their length."""
    if isinstance(value, (list, tuple)) and len(value) > 5:
        return f'[{", ".join(map(str, value[:4]))}, ... {len(value)} in all]'
    text = str(value)
    return text if len(text) <= 200 else f'{text[:197]}...'


def model_facts(opt: Options) -> dict:
    """Return the facts that a checkpoint keeps beside its weights, so that test, demo and resume need no options."""
    facts = {name: getattr(opt, name) for name in MODEL_OPTIONS + DATASET_FACTS}
    facts.update({name: [float(v) for v in getattr(opt, name).flat] for name in ('mean', 'std')})
    kept = {name: value for name, value in opt.record.items() if not ALL_ROWS[name].per_call}
    facts.update(task=opt.task, heads=opt.heads, input_h=opt.input_h, input_w=opt.input_w, options=kept)
    return {name: value for name, value in facts.items() if value is not None}
