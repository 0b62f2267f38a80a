"""Every command-line option, with its checks.

`opts().parse()` reads a command line; `opts().update_dataset_info_and_set_heads()` adds what only the dataset
knows (classes, input size, network heads); `opts().init()` does both at once, for detectors without a dataset.
"""

import argparse
import math
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from .datasets.dataset_factory import check_dataset_name, get_dataset
from .models.fuse import DTYPES
from .models.model import ARCHS, checkpoint_facts
from .utils.cli import OneLineParser
from .utils.errors import UserError, did_you_mean

TASKS = ('ctdet', 'exdet', 'ddd', 'multi_pose')
DEFAULT_DATASET = {'ctdet': 'coco', 'exdet': 'coco', 'ddd': 'kitti', 'multi_pose': 'coco_hp'}
# The heads of each task and their channels, in the published order; `heads_of` leaves out what options switch off.
HEADS: dict[str, Callable[[Namespace], dict[str, int]]] = {
    'ctdet': lambda opt: {'hm': opt.num_classes, 'wh': 2 * opt.num_classes if opt.cat_spec_wh else 2, 'reg': 2},
    'exdet': lambda opt: {
        **dict.fromkeys(('hm_t', 'hm_l', 'hm_b', 'hm_r'), 1 if opt.agnostic_ex else opt.num_classes),
        'hm_c': opt.num_classes,
        **dict.fromkeys(('reg_t', 'reg_l', 'reg_b', 'reg_r'), 2),
    },
    'ddd': lambda opt: {'hm': opt.num_classes, 'dep': 1, 'rot': 8, 'dim': 3, 'wh': 2, 'reg': 2},
    'multi_pose': lambda opt: {
        'hm': 1,
        'wh': 2,
        'hps': 2 * opt.num_joints,
        'reg': 2,
        'hm_hp': opt.num_joints,
        'hp_offset': 2,
    },
}

# Options that shape the network or the meaning of its outputs. A checkpoint remembers them, and whoever
# reads it back (test, demo, resume) takes them from there.
MODEL_OPTIONS = (
    'arch',
    'head_conv',
    'down_ratio',
    'mse_loss',
    'cat_spec_wh',
    'not_reg_offset',
    'agnostic_ex',
    'not_hm_hp',
    'not_reg_hp_offset',
    'not_reg_bbox',
)
# What a dataset tells of itself, and a checkpoint remembers in its place.
DATASET_FACTS = ('class_names', 'mean', 'std', 'num_joints', 'flip_idx', 'skeleton')

# Options that act in some tasks only: given elsewhere, they are reported as having no effect.
TASK_OPTIONS = {
    ('ctdet',): ('norm_wh', 'dense_wh', 'cat_spec_wh'),
    ('exdet',): ('agnostic_ex', 'scores_thresh', 'center_thresh', 'aggr_weight'),
    ('multi_pose',): (
        'dense_hp',
        'not_hm_hp',
        'not_reg_hp_offset',
        'rotate',
        'aug_rot',
        'hp_weight',
        'hm_hp_weight',
        'eval_oracle_kps',
        'eval_oracle_hmhp',
        'eval_oracle_hp_offset',
    ),
    ('ddd',): (
        'aug_ddd',
        'rect_mask',
        'kitti_split',
        'dep_weight',
        'dim_weight',
        'rot_weight',
        'peak_thresh',
        'eval_oracle_dep',
        'eval_oracle_dim',
        'eval_oracle_rot',
        'not_reg_bbox',
        'calib',
    ),
    ('ctdet', 'ddd', 'multi_pose'): ('wh_weight', 'eval_oracle_wh'),
    ('ctdet', 'exdet', 'multi_pose'): (
        'not_rand_crop',
        'flip',
        'no_color_aug',
        'flip_test',
        'test_scales',
    ),
    ('ctdet', 'multi_pose'): ('reg_loss', 'nms'),  # exdet's detections always pass soft-NMS
}


# Options that act in some programs only, likewise.
PROGRAM_OPTIONS = {
    ('main.py',): (
        *('test', 'lr', 'lr_step', 'num_epochs', 'batch_size', 'master_batch_size', 'num_iters', 'val_intervals'),
        *('save_all', 'metric', 'print_iter', 'hide_data_time', 'pretrained'),
        *('not_rand_crop', 'shift', 'scale', 'rotate', 'flip', 'no_color_aug', 'aug_rot', 'aug_ddd', 'rect_mask'),
        *('norm_wh', 'dense_wh', 'dense_hp', 'reg_loss', 'hm_gauss'),
        *(f'{part}_weight' for part in ('hm', 'off', 'wh', 'hp', 'hm_hp', 'dep', 'dim', 'rot')),
    ),
    ('test.py', 'demo.py'): ('flip_test', 'test_scales', 'nms', 'dtype'),
    ('test.py',): ('not_prefetch_test', 'test_batch_size'),
    ('demo.py',): ('demo', 'output', 'save_video', 'no_display'),
}


EXAMPLES = """\
run in src/ (without --dataset the task's own, from where data/README.md says; FOLDER, data of yours, holds
annotations/train.json, annotations/val.json in COCO format and images/):
  ctdet       python main.py ctdet [--dataset pascal | --dataset FOLDER]
  multi_pose  python main.py multi_pose [--dataset FOLDER]
  exdet       python main.py exdet [--dataset FOLDER]    first tools/gen_coco_extreme_points.py adds its points
  ddd         python main.py ddd [--dataset FOLDER]      first tools/convert_kitti_to_coco.py ../data/kitti
  toy data    python tools/make_toy_data.py ../data/toy --task TASK
              python main.py TASK --dataset ../data/toy --pretrained none    (ddd: --data_dir ../data/toy)
              or, in the folder above, all steps in minutes: make demo | demo-pose | demo-exdet | demo-3d
  to score    python test.py TASK --load_model ../exp/TASK/default/model_best.pth [--dataset as in training]
  to look     python demo.py TASK --load_model ../exp/TASK/default/model_best.pth --demo IMAGES
"""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Each option with its default, the examples line by line."""


def build_parser() -> OneLineParser:
    """All options, in the groups in which `--help` shows them."""
    parser = OneLineParser(
        usage='%(prog)s TASK [options]',
        description='CenterNet: objects as points. main.py trains, test.py scores, demo.py looks.',
        epilog=EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        'task', metavar='TASK', help='ctdet (boxes) | exdet (extreme points) | ddd (3D boxes) | multi_pose (joints)'
    )

    group = parser.add_argument_group('experiment')
    group.add_argument(
        '--dataset',
        default='',
        help="coco | coco_hp | kitti | pascal, or a folder of your own; '' is the task's own",
    )
    group.add_argument('--exp_id', default='default', help='name of the run: outputs go to exp/TASK/EXP_ID')
    group.add_argument('--test', action='store_true', help='evaluate with the training-side decoder on val, then exit')
    group.add_argument(
        '--debug',
        type=int,
        default=0,
        help='1: final detections, 2: and network maps, 3: with matplotlib, 4: save all',
    )
    group.add_argument('--demo', default='', help="image, folder, video, 'webcam' or 'webcam:N'")
    group.add_argument('--load_model', default='', help='checkpoint to start from')
    group.add_argument('--resume', action='store_true', help='go on from --load_model, or else from model_last.pth')
    group.add_argument('--data_dir', default='', help="folder of the datasets; '' is data/")
    group.add_argument('--exp_dir', default='', help="folder of the outputs; '' is exp/")

    group = parser.add_argument_group('system')
    group.add_argument(
        '--gpus',
        default='',
        help="GPU id; -1 is the CPU; '' is GPU 0 where there is one; several are refused, this version runs on one",
    )
    group.add_argument('--num_workers', type=int, default=4, help='processes that load data; at most the cores')
    group.add_argument('--not_cuda_benchmark', action='store_true', help='no cuDNN auto-tuning')
    group.add_argument('--seed', type=int, default=317, help='seed of weights, batches and augmentation')

    group = parser.add_argument_group('log')
    group.add_argument('--print_iter', type=int, default=0, help='a line every N iterations instead of the bar')
    group.add_argument('--hide_data_time', action='store_true', help='leave the data time out of the bar')
    group.add_argument('--save_all', action='store_true', help="keep every epoch's checkpoint")
    group.add_argument('--metric', default='loss', help="what chooses model_best: loss, AP, or a figure's name")
    group.add_argument('--vis_thresh', type=float, default=0.3, help='lowest score that is drawn')
    group.add_argument('--debugger_theme', default='white', choices=['white', 'black'], help='ground of the maps')

    group = parser.add_argument_group('model')
    group.add_argument('--arch', default='dla_34', help=' | '.join(ARCHS))
    group.add_argument(
        '--head_conv',
        type=int,
        default=-1,
        help='channels of the head conv; 0: none; -1: 256 for dla, 64 otherwise',
    )
    group.add_argument('--down_ratio', type=int, default=4, help='input size / output size; only 4')
    group.add_argument('--not_reg_offset', action='store_true', help='no sub-pixel offset head')
    group.add_argument('--pretrained', default='imagenet', help='trunk weights to train from: imagenet | none | FILE')

    group = parser.add_argument_group('input')
    group.add_argument('--input_res', type=int, default=-1, help="input height and width; -1: the dataset's")
    group.add_argument('--input_h', type=int, default=-1, help='input height; -1: as input_res')
    group.add_argument('--input_w', type=int, default=-1, help='input width; -1: as input_res')

    group = parser.add_argument_group('train')
    group.add_argument('--lr', type=float, default=1.25e-4, help='learning rate, for the batch size given')
    group.add_argument('--lr_step', default='90,120', help='epochs after which the rate drops tenfold')
    group.add_argument('--num_epochs', type=int, default=140, help='epochs of training')
    group.add_argument('--batch_size', type=int, default=32, help='images a step')
    group.add_argument(
        '--master_batch_size',
        type=int,
        default=-1,
        help="the first GPU's share of the batch: without effect, as this version runs on one device",
    )
    group.add_argument('--num_iters', type=int, default=-1, help='iterations an epoch; -1: all')
    group.add_argument('--val_intervals', type=int, default=5, help='epochs between validations; 0: never')
    group.add_argument('--trainval', action='store_true', help='no validation; own data and kitti train on val too')

    group = parser.add_argument_group('test')
    group.add_argument('--flip_test', action='store_true', help='average with the mirrored image')
    group.add_argument('--test_scales', default='1', help='scales to test at, comma-separated')
    group.add_argument('--nms', action='store_true', help='soft-NMS also at a single scale')
    group.add_argument('--K', type=int, default=-1, help='detections kept; -1: 100, exdet 40 a side')
    group.add_argument('--not_prefetch_test', action='store_true', help='load test images in this process')
    group.add_argument('--test_batch_size', type=int, default=1, help='images that go through the network together')
    group.add_argument('--dtype', default='float32', choices=list(DTYPES), help='what the network computes in')
    group.add_argument('--fix_res', action='store_true', help='every image at the input size (the default)')
    group.add_argument('--keep_res', action='store_true', help='keep the resolution of each image')

    group = parser.add_argument_group('augmentation')
    group.add_argument('--not_rand_crop', action='store_true', help='shift and scale instead of random crops')
    group.add_argument('--shift', type=float, default=0.1, help='spread of the shift, without random crops')
    group.add_argument('--scale', type=float, default=0.4, help='spread of the scale, without random crops')
    group.add_argument('--rotate', type=float, default=0, help='spread of the rotation in degrees (multi_pose)')
    group.add_argument('--flip', type=float, default=0.5, help='probability of a horizontal flip')
    group.add_argument('--no_color_aug', action='store_true', help='leave colours as they are')
    group.add_argument('--aug_rot', type=float, default=0, help='probability of a rotation (multi_pose)')
    group.add_argument('--aug_ddd', type=float, default=0.5, help='probability of shift and scale (ddd)')
    group.add_argument('--rect_mask', action='store_true', help='ignored objects as rectangles (ddd)')

    group = parser.add_argument_group('loss')
    group.add_argument('--mse_loss', action='store_true', help='squared error on heatmaps instead of focal loss')
    group.add_argument('--hm_gauss', type=float, default=-1, help='sigma of the MSE heatmap; -1: input_res / 128')
    group.add_argument('--reg_loss', default='l1', choices=['l1', 'sl1', 'l2'], help='regression loss')
    for name, default, what in (
        ('hm', 1, 'heatmap'),
        ('off', 1, 'offset'),
        ('wh', 0.1, 'box size'),
        ('hp', 1, 'joint position'),
        ('hm_hp', 1, 'joint heatmap'),
        ('dep', 1, 'depth'),
        ('dim', 1, '3D size'),
        ('rot', 1, 'orientation'),
    ):
        group.add_argument(f'--{name}_weight', type=float, default=default, help=f'weight of the {what} loss')

    group = parser.add_argument_group('ctdet')
    group.add_argument('--norm_wh', action='store_true', help='box size loss relative to the box')
    group.add_argument('--dense_wh', action='store_true', help='box size learnt around centres, not only at them')
    group.add_argument('--cat_spec_wh', action='store_true', help='a box size for each class')

    group = parser.add_argument_group('exdet')
    group.add_argument('--agnostic_ex', action='store_true', help='extreme point maps without classes')
    group.add_argument('--scores_thresh', type=float, default=0.1, help='lowest score of an extreme point')
    group.add_argument('--center_thresh', type=float, default=0.1, help='lowest score of a centre')
    group.add_argument('--aggr_weight', type=float, default=0.0, help='weight of edge aggregation')

    group = parser.add_argument_group('multi_pose')
    group.add_argument('--dense_hp', action='store_true', help='joints learnt around centres, not only at them')
    group.add_argument('--not_hm_hp', action='store_true', help='no joint heatmap')
    group.add_argument('--not_reg_hp_offset', action='store_true', help='no sub-pixel offset of joints')

    group = parser.add_argument_group('ddd')
    group.add_argument('--kitti_split', default='3dop', choices=['3dop', 'subcnn'], help='which split of KITTI')
    group.add_argument('--peak_thresh', type=float, default=0.2, help='lowest score of a 3D detection')
    group.add_argument('--not_reg_bbox', action='store_true', help='no box size head')

    group = parser.add_argument_group('ground truth in place of a head (main.py --test)')
    for name, what in (
        ('hm', 'heatmap'),
        ('wh', 'box size'),
        ('offset', 'offset'),
        ('kps', 'joint positions'),
        ('hmhp', 'joint heatmaps'),
        ('hp_offset', 'joint offset'),
        ('dep', 'depth'),
        ('dim', '3D size'),
        ('rot', 'orientation'),
    ):
        group.add_argument(f'--eval_oracle_{name}', action='store_true', help=f'true {what}')

    group = parser.add_argument_group('demo')
    group.add_argument('--output', default='', help="folder for pictures and results.json; '' is SAVE_DIR/demo")
    group.add_argument('--save_video', default='', help="video file to write; '' is OUTPUT/NAME.mp4 for videos")
    group.add_argument('--no_display', action='store_true', help='never open a window')
    group.add_argument('--calib', default='', help='KITTI calibration file, or folder of one a picture (ddd)')
    return parser


class opts:
    """Reads options; see the module's docstring. Mistakes raise `UserError`."""

    def __init__(self):
        self.parser = build_parser()

    def parse(self, args: list[str] | None = None, program: str = 'main.py') -> Namespace:
        """Parse `args` (or the command line), check it and derive what follows from it.

        In test.py and demo.py (`program`), and for `--resume` and `--test`, options of the network that were not
        given come from the checkpoint, and a given one that contradicts it is refused.
        """
        opt = self._read(args)
        adopt = program != 'main.py'
        check_names(opt)
        check_values(opt)
        derive_paths(opt)
        if opt.resume and not opt.load_model:
            resume_from_last(opt, required=adopt or opt.test)
        opt.facts = checkpoint_facts(opt.load_model) if opt.load_model and (adopt or opt.resume or opt.test) else {}
        adopt_model_options(opt)
        derive_options(opt)
        check_combinations(opt, program)
        for note in idle_options(opt, program):
            print(f'note: {note}')
        return opt

    def init(self, args: list[str] | None = None) -> Namespace:
        """Parse, then take the facts of the checkpoint, or else the default ones of the dataset (for demo)."""
        opt = self.parse(args, program='demo.py')
        if 'class_names' in opt.facts:
            facts = Namespace(default_resolution=[opt.facts['input_h'], opt.facts['input_w']], metrics=())
        else:
            facts = get_dataset(opt.dataset, opt.task)
        return self.update_dataset_info_and_set_heads(opt, facts)

    @staticmethod
    def update_dataset_info_and_set_heads(opt: Namespace, dataset) -> Namespace:
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
        metrics = getattr(dataset, 'metrics', ())
        if metrics and opt.metric not in ('loss', 'AP', *metrics):
            raise UserError(
                f"--metric '{opt.metric}' is not one of loss, AP, {', '.join(metrics)}"
                + did_you_mean(opt.metric, metrics)
            )
        return opt

    def _read(self, args: list[str] | None) -> Namespace:
        """Parse alone; `opt.given` are the names of the options on the command line."""
        unset = object()
        defaults = {action.dest: action.default for action in self.parser._actions if action.dest != 'help'}
        opt = self.parser.parse_args(args, Namespace(**dict.fromkeys(defaults, unset)))
        opt.given = sorted(name for name in defaults if getattr(opt, name) is not unset)
        for name, default in defaults.items():
            if name not in opt.given:
                setattr(opt, name, default)
        return opt


def check_names(opt: Namespace) -> None:
    """Task, dataset and arch are ones that there are."""
    if opt.task not in TASKS:
        raise UserError(f"task '{opt.task}' is not one of {', '.join(TASKS)}" + did_you_mean(opt.task, TASKS))
    opt.dataset = opt.dataset or DEFAULT_DATASET[opt.task]
    check_dataset_name(opt.dataset, opt.task)
    if opt.arch not in ARCHS:
        raise UserError(f"arch '{opt.arch}' is not one of {', '.join(ARCHS)}" + did_you_mean(opt.arch, ARCHS))


def check_values(opt: Namespace) -> None:
    """Each number is in its range; lists are parsed."""
    opt.lr_step = parse_list('lr_step', opt.lr_step, int, 'epochs such as 90,120')
    opt.test_scales = parse_list('test_scales', opt.test_scales, float, 'scales such as 0.5,1,1.5')
    for name, value in vars(opt).items():
        if any(isinstance(x, float) and not math.isfinite(x) for x in (value if isinstance(value, list) else [value])):
            raise UserError(f'--{name} {value}: expected finite numbers')
    at_least = {
        'batch_size': 1, 'num_epochs': 1, 'num_workers': 0, 'print_iter': 0, 'val_intervals': 0, 'head_conv': -1,
        'seed': 0, 'test_batch_size': 1, 'shift': 0, 'scale': 0, 'rotate': 0,
    }  # fmt: skip
    at_least.update({name: 0 for name in vars(opt) if name.endswith('_weight')})
    for name, least in at_least.items():
        if getattr(opt, name) < least:
            raise UserError(f'--{name} {getattr(opt, name)}: expected at least {least}')
    for name in ('K', 'num_iters', 'hm_gauss', 'master_batch_size', 'input_res', 'input_h', 'input_w'):
        if getattr(opt, name) <= 0 and getattr(opt, name) != -1:
            raise UserError(f'--{name} {getattr(opt, name)}: expected more than 0, or -1 for the default')
    for name in ('flip', 'aug_rot', 'aug_ddd', 'vis_thresh', 'peak_thresh', 'scores_thresh', 'center_thresh'):
        if not 0 <= getattr(opt, name) <= 1:
            raise UserError(f'--{name} {getattr(opt, name)}: expected a number from 0 to 1')
    if not 0 < opt.lr < float('inf'):
        raise UserError(f'--lr {opt.lr}: expected a number over 0')
    if opt.scale >= 1:
        raise UserError(f'--scale {opt.scale}: expected less than 1')
    if opt.seed >= 2**63:
        raise UserError(f'--seed {opt.seed}: expected less than 2**63')
    if not opt.test_scales or min(opt.test_scales) <= 0:
        found = ','.join(f'{scale:g}' for scale in opt.test_scales)
        raise UserError(f"--test_scales '{found}': expected numbers over 0")
    if opt.debug not in range(5):
        raise UserError(f'--debug {opt.debug}: expected 0 to 4')
    if opt.down_ratio != 4:
        raise UserError(f'--down_ratio {opt.down_ratio}: the networks are built for 4')
    if opt.pretrained not in ('imagenet', 'none') and not os.path.isfile(opt.pretrained):
        raise UserError(f"--pretrained '{opt.pretrained}' is neither imagenet, none nor a file")


def parse_list(name: str, text: str, kind: type, expected: str) -> list:
    """`'90,120'` as a list of numbers; an empty text is an empty list.

    Raises:
        UserError: it is none; says what was `expected`.
    """
    try:
        return [kind(part) for part in text.split(',') if part.strip()]
    except ValueError:
        raise UserError(f"--{name} '{text}': expected {expected}") from None


def derive_paths(opt: Namespace) -> None:
    """The folders that inputs come from and outputs go to; none is made here."""
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    in_checkout = package.parent.name == 'src' and (checkout / 'setup.py').exists()
    opt.root_dir = str(checkout if in_checkout else Path.cwd())
    opt.data_dir = os.path.abspath(opt.data_dir or os.path.join(opt.root_dir, 'data'))
    opt.exp_dir = os.path.join(os.path.abspath(opt.exp_dir or os.path.join(opt.root_dir, 'exp')), opt.task)
    opt.save_dir = os.path.join(opt.exp_dir, opt.exp_id)
    opt.debug_dir = os.path.join(opt.save_dir, 'debug')


def resume_from_last(opt: Namespace, required: bool) -> None:
    """`--resume` alone goes on from the run's own last checkpoint; training that has none starts anew."""
    last = os.path.join(opt.save_dir, 'model_last.pth')
    if os.path.exists(last):
        opt.load_model = last
    elif required:
        raise UserError(f"--resume found no '{last}': train first, or give --load_model FILE")
    else:
        opt.resume = False
        print(f"note: --resume found no '{last}': starting from the beginning")


def adopt_model_options(opt: Namespace) -> None:
    """Take the options that shape the network from the checkpoint's facts, unless the command line gave them."""
    if opt.facts.get('task', opt.task) != opt.task:
        raise UserError(f"checkpoint '{opt.load_model}' is a {opt.facts['task']} model, not a {opt.task} one")
    for name in MODEL_OPTIONS:
        kept = opt.facts.get(name)
        if kept is None:
            continue
        if name in opt.given and getattr(opt, name) != kept:
            raise UserError(
                f"checkpoint '{opt.load_model}' was trained with {name} {kept}, but the command line says "
                f'{getattr(opt, name)}: leave --{name} out'
            )
        setattr(opt, name, kept)


def derive_options(opt: Namespace) -> None:
    """What follows from other options: devices and their shares of a batch, which heads there are, -1 as a default."""
    hourglass = opt.arch == 'hourglass'
    opt.gpus_str = opt.gpus or ('0' if torch.cuda.is_available() else '-1')
    ids = parse_list('gpus', opt.gpus_str, int, 'a GPU id such as 0, or -1 for the CPU')
    if not ids or (min(ids) < 0 and ids != [-1]) or len(set(ids)) < len(ids):
        raise UserError(f"--gpus '{opt.gpus_str}': expected GPU ids such as 0 or 0,1, or -1 for the CPU")
    opt.gpus = [-1] if ids == [-1] else list(range(len(ids)))
    opt.reg_offset = not opt.not_reg_offset
    opt.reg_bbox = not opt.not_reg_bbox
    opt.hm_hp = not opt.not_hm_hp
    opt.reg_hp_offset = not opt.not_reg_hp_offset and opt.hm_hp
    opt.pad = 127 if hourglass else 31
    opt.num_stacks = 2 if hourglass else 1
    if opt.head_conv == -1:
        opt.head_conv = 256 if 'dla' in opt.arch else 64
    if opt.K == -1:
        opt.K = 40 if opt.task == 'exdet' else 100
    if opt.task == 'ddd':  # 3D boxes are not mirrored, scaled or merged
        opt.flip_test, opt.nms, opt.test_scales = False, False, [1.0]
    if opt.trainval:
        opt.val_intervals = 0
    if opt.debug > 0:
        opt.batch_size, opt.num_workers, opt.gpus, opt.master_batch_size = 1, 0, opt.gpus[:1], -1
        opt.test_batch_size = 1
    opt.num_workers = min(opt.num_workers, os.cpu_count() or 1)
    opt.chunk_sizes = chunk_sizes(opt.batch_size, opt.master_batch_size, len(opt.gpus))
    if opt.master_batch_size == -1:
        opt.master_batch_size = opt.chunk_sizes[0]


def chunk_sizes(batch_size: int, master_batch_size: int, num_gpus: int) -> list[int]:
    """Images for each device: the master's share first, the rest split evenly, its remainder one each to the
    first of the rest."""
    if num_gpus == 1:
        return [batch_size]
    master = master_batch_size if master_batch_size != -1 else batch_size // num_gpus
    share, extra = divmod(batch_size - master, num_gpus - 1)
    return [master] + [share + (i < extra) for i in range(num_gpus - 1)]


def check_combinations(opt: Namespace, program: str) -> None:
    """Refuse options that contradict each other, before hours are spent on them."""
    if opt.keep_res and opt.fix_res:
        raise UserError('--keep_res and --fix_res exclude each other')
    opt.fix_res = not opt.keep_res
    ways = [f'--{name}' for name in ('norm_wh', 'dense_wh', 'cat_spec_wh') if getattr(opt, name)]
    if opt.task == 'ctdet' and len(ways) > 1:
        raise UserError(f'{" and ".join(ways)} are different ways to learn box sizes: choose one')
    if min(opt.chunk_sizes) < 1:
        raise UserError(
            f'--batch_size {opt.batch_size} with --master_batch_size {opt.master_batch_size} leaves a device of '
            f'--gpus {opt.gpus_str} without images'
        )
    if program == 'main.py' and not opt.test and opt.val_intervals == 0 and opt.metric != 'loss':
        why = '--trainval' if opt.trainval else '--val_intervals 0'
        raise UserError(f'{why} trains without validation, so --metric {opt.metric} has nothing to choose by')
    if program != 'main.py' and oracles(opt):
        raise UserError(f'--{oracles(opt)[0]} needs the truth of the training side: use main.py --test')
    needs = {
        'eval_oracle_offset': opt.reg_offset,
        'eval_oracle_wh': opt.reg_bbox or opt.task != 'ddd',
        'eval_oracle_hmhp': opt.hm_hp,
        'eval_oracle_hp_offset': opt.reg_hp_offset,
    }
    for name, has_head in needs.items():
        if getattr(opt, name) and not has_head:
            raise UserError(f'--{name} replaces a head that the other options switch off')


def check_training(opt: Namespace) -> None:
    """Refuse options that main.py takes with `--test` only, or that training cannot follow."""
    if oracles(opt):
        name = oracles(opt)[0]
        raise UserError(f'--{name} puts the truth in place of a head: it is for main.py --test, not for training')
    if opt.keep_res and opt.task == 'ctdet' and opt.batch_size > 1:
        raise UserError('--keep_res gives inputs of different sizes: train with --batch_size 1, or without it')


def oracles(opt: Namespace) -> list[str]:
    """The options on the command line that put the truth in place of a head."""
    return [name for name in opt.given if name.startswith('eval_oracle_')]


def idle_options(opt: Namespace, program: str) -> list[str]:
    """A line for each option on the command line that cannot act in this run."""
    notes = []
    for tasks, names in TASK_OPTIONS.items():
        if opt.task not in tasks:
            notes += [f'--{name} does not act in {opt.task}' for name in names if name in opt.given]
    named = {note.split()[0].removeprefix('--') for note in notes}
    for programs, names in PROGRAM_OPTIONS.items():
        if program not in programs:
            where = ' and '.join(programs)
            notes += [f'--{name} acts in {where}' for name in names if name in opt.given and name not in named]
    if program == 'main.py' and opt.keep_res and opt.task in ('exdet', 'multi_pose'):
        notes.append(f'--keep_res acts in test.py and demo.py; {opt.task} is trained on square inputs')
    if program == 'main.py' and opt.load_model and 'pretrained' in opt.given:
        notes.append('--pretrained does not act with --load_model')
    if 'master_batch_size' in opt.given and len(opt.gpus) == 1:
        notes.append('--master_batch_size does not act on one device')
    if 'head_conv' in opt.given and opt.arch == 'hourglass':
        notes.append('--head_conv does not act with hourglass, whose heads have 256 channels')
    if not opt.not_rand_crop and opt.task != 'ddd':
        notes += [f'--{name} acts only with --not_rand_crop' for name in ('shift', 'scale') if name in opt.given]
    if opt.task == 'multi_pose' and (opt.aug_rot > 0) != (opt.rotate > 0):
        notes.append('--aug_rot (how often) and --rotate (how far) act only together')
    if 'hm_gauss' in opt.given and not opt.mse_loss:
        notes.append('--hm_gauss acts only with --mse_loss')
    return notes


def set_resolution(opt: Namespace, default: list[int]) -> None:
    """Input and output size: h/w over res over the checkpoint's over the dataset's default `[h, w]`."""
    height = opt.facts.get('input_h', default[0])
    width = opt.facts.get('input_w', default[1])
    if 'input_res' in opt.given and opt.input_res > 0:
        height = width = opt.input_res
    opt.input_h = opt.input_h if 'input_h' in opt.given and opt.input_h > 0 else height
    opt.input_w = opt.input_w if 'input_w' in opt.given and opt.input_w > 0 else width
    if opt.task in ('multi_pose', 'exdet') and opt.input_h != opt.input_w:
        raise UserError(f'{opt.task} takes square inputs, not {opt.input_h} x {opt.input_w}: use --input_res')
    for side in (opt.input_h, opt.input_w):
        if side % (opt.pad + 1):
            raise UserError(f'input size {opt.input_h} x {opt.input_w}: {opt.arch} needs multiples of {opt.pad + 1}')
    opt.output_h, opt.output_w = opt.input_h // opt.down_ratio, opt.input_w // opt.down_ratio
    opt.input_res = max(opt.input_h, opt.input_w)
    opt.output_res = max(opt.output_h, opt.output_w)
    if opt.hm_gauss == -1:
        opt.hm_gauss = opt.input_res / 128


def heads_of(opt: Namespace) -> dict[str, int]:
    """`{head: channels}` of the network, in the published order."""
    wanted = {'reg': opt.reg_offset, 'hm_hp': opt.hm_hp, 'hp_offset': opt.reg_hp_offset}
    wanted.update({f'reg_{side}': opt.reg_offset for side in 'tlbr'})
    if opt.task == 'ddd':
        wanted['wh'] = opt.reg_bbox
    return {head: channels for head, channels in HEADS[opt.task](opt).items() if wanted.get(head, True)}


def brief(value) -> str:
    """A value for a message: long lists are cut, with their length."""
    if isinstance(value, (list, tuple)) and len(value) > 5:
        return f'[{", ".join(map(str, value[:4]))}, ... {len(value)} in all]'
    return str(value)


def model_facts(opt: Namespace) -> dict:
    """What a checkpoint remembers beside its weights, so that test, demo and resume need no options."""
    facts = {name: getattr(opt, name) for name in MODEL_OPTIONS + DATASET_FACTS}
    facts.update({name: [float(v) for v in getattr(opt, name).flat] for name in ('mean', 'std')})
    facts.update(task=opt.task, heads=opt.heads, input_h=opt.input_h, input_w=opt.input_w)
    return {name: value for name, value in facts.items() if value is not None}
