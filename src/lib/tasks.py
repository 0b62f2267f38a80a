"""The tasks, one entry each: all that the program needs to know of a task beside its three files.

A task's sample (what it learns from an image), trainer (its loss) and detector lie in the files of its name in
`datasets/sample`, `trains` and `detectors`. Importing this module does not import torch.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .utils.detections import Detection, describe_box, describe_box_3d, describe_extreme_points, describe_pose
from .utils.option_rows import MAIN, Option, at_least, between, option, option_rows

if TYPE_CHECKING:
    from .opts import Options


@dataclass(frozen=True)
class Head:
    """An output of the network.

    Attributes:
        channels: their number, by the options.
        unless: switches of which each leaves the head out.
    """

    channels: 'Callable[[Options], int]'
    unless: tuple[str, ...] = ()


def num_classes(opt: 'Options') -> int:
    """Return as many channels as classes."""
    return opt.num_classes


def num_joints(opt: 'Options') -> int:
    """Return as many channels as joints."""
    assert opt.num_joints is not None  # the data of multi_pose has joints
    return opt.num_joints


def fixed(channels: int) -> 'Callable[[Options], int]':
    """Return a function that gives the same number of channels whatever the options."""
    return lambda opt: channels


class NoOptions:
    """A task without options of its own."""

    rows: ClassVar[dict[str, Option]] = {}


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        summary: what it finds, in a word or two.
        sample, trainer, detector: its classes in `datasets/sample/TASK.py`, `trains/TASK.py`, `detectors/TASK.py`.
        dataset: the dataset that it takes where `--dataset` is not given.
        needs: what annotations must hold, in the words of `datasets/source.py`.
        heads: the network's outputs in the published order.
        read_heads: the inverse: `num_classes` (and more) of heads `{name: channels}`, for checkpoints without facts.
        describe_row: a row of its results as a detection (see `utils/detections.py`).
        K: detections kept where `--K` is not given.
        square_input: the network's input is a square.
        trains_unresized: with `--keep_res` training too takes each image at its own size.
        augments: training crops, mirrors and recolours images.
        merges_views: testing can merge what it finds in the mirrored image and at several scales.
        optional_nms: soft-NMS of a single view is a matter of choice.
        chooses_regression_loss: `--reg_loss` acts.
        options: its own options.
        example: options of the example in `--help`, and what must be done before.
    """

    summary: str
    sample: str
    trainer: str
    detector: str
    dataset: str
    heads: Mapping[str, Head]
    read_heads: Callable[[Mapping[str, int]], dict[str, Any]]
    describe_row: Callable[[np.ndarray], Detection]
    needs: tuple[str, ...] = ('boxes',)
    K: int = 100
    square_input: bool = False
    trains_unresized: bool = False
    augments: bool = True
    merges_views: bool = True
    optional_nms: bool = True
    chooses_regression_loss: bool = True
    options: type[Any] = NoOptions
    example: str = '[--dataset FOLDER]'

    def recorded_options(self) -> list[tuple[str, Option]]:
        """Return those of the task's own options, with their names, that a checkpoint records."""
        return [(name, row) for name, row in self.options.rows.items() if row.in_checkpoint]


TRAINING = {'programs': (MAIN,)}


@option_rows('ctdet')
class CtdetOptions:
    """Options of 2D detection."""

    norm_wh: bool = option(False, 'box size loss relative to the box', **TRAINING)
    dense_wh: bool = option(False, 'box size learnt around centres, not only at them', **TRAINING)
    cat_spec_wh: bool = option(False, 'a box size for each class', in_checkpoint=True)


@option_rows('exdet')
class ExdetOptions:
    """Options of detection by extreme points."""

    agnostic_ex: bool = option(False, 'extreme point maps without classes', in_checkpoint=True)
    scores_thresh: float = option(0.1, 'lowest score of an extreme point', check=between(0, 1))
    center_thresh: float = option(0.1, 'lowest score of a centre', check=between(0, 1))
    aggr_weight: float = option(0.0, 'weight of edge aggregation')


@option_rows('multi_pose')
class MultiPoseOptions:
    """Options of pose estimation."""

    dense_hp: bool = option(False, 'joints learnt around centres, not only at them', **TRAINING)
    not_hm_hp: bool = option(False, 'no joint heatmap', in_checkpoint=True)
    not_reg_hp_offset: bool = option(False, 'no sub-pixel offset of joints', in_checkpoint=True)
    aug_rot: float = option(
        0.0,
        'probability of a rotation',
        check=between(0, 1),
        idle=lambda opt: 'acts only with --rotate (how far)' if opt.rotate == 0 else '',
        **TRAINING,
    )
    rotate: float = option(
        0.0,
        'spread of the rotation in degrees',
        check=at_least(0),
        idle=lambda opt: 'acts only with --aug_rot (how often)' if opt.aug_rot == 0 else '',
        **TRAINING,
    )
    hp_weight: float = option(1.0, 'weight of the joint position loss', check=at_least(0), **TRAINING)
    hm_hp_weight: float = option(1.0, 'weight of the joint heatmap loss', check=at_least(0), **TRAINING)
    eval_oracle_kps: bool = option(False, 'main.py --test with the true joint positions')
    eval_oracle_hmhp: bool = option(False, 'main.py --test with the true joint heatmaps')
    eval_oracle_hp_offset: bool = option(False, 'main.py --test with the true joint offset')


@option_rows('ddd')
class DddOptions:
    """Options of 3D detection."""

    kitti_split: str = option('3dop', 'which split of KITTI', choices=('3dop', 'subcnn'))
    aug_ddd: float = option(0.5, 'probability of shift and scale', check=between(0, 1), **TRAINING)
    rect_mask: bool = option(False, 'ignored objects as rectangles', **TRAINING)
    peak_thresh: float = option(0.2, 'lowest score of a 3D detection', check=between(0, 1))
    not_reg_bbox: bool = option(False, 'no box size head', in_checkpoint=True)
    calib: str = option('', 'KITTI calibration file; in demo.py also a folder of one an image')
    dep_weight: float = option(1.0, 'weight of the depth loss', check=at_least(0), **TRAINING)
    dim_weight: float = option(1.0, 'weight of the 3D size loss', check=at_least(0), **TRAINING)
    rot_weight: float = option(1.0, 'weight of the orientation loss', check=at_least(0), **TRAINING)
    eval_oracle_dep: bool = option(False, 'main.py --test with the true depth')
    eval_oracle_dim: bool = option(False, 'main.py --test with the true 3D size')
    eval_oracle_rot: bool = option(False, 'main.py --test with the true orientation')


TASKS: dict[str, Task] = {
    'ctdet': Task(
        summary='boxes',
        sample='CtdetSample',
        trainer='CtdetTrainer',
        detector='CtdetDetector',
        dataset='coco',
        heads={
            'hm': Head(num_classes),
            'wh': Head(lambda opt: 2 * opt.num_classes if opt.cat_spec_wh else 2),
            'reg': Head(fixed(2), unless=('not_reg_offset',)),
        },
        read_heads=lambda heads: {
            'num_classes': heads['hm'],
            # of one class, a size for each class and one for all are the same
            'cat_spec_wh': heads['hm'] > 1 and heads['wh'] == 2 * heads['hm'],
        },
        describe_row=describe_box,
        trains_unresized=True,
        options=CtdetOptions,
        example='[--dataset pascal | --dataset FOLDER]',
    ),
    'exdet': Task(
        summary='extreme points',
        sample='ExdetSample',
        trainer='ExdetTrainer',
        detector='ExdetDetector',
        dataset='coco',
        heads={
            **{f'hm_{side}': Head(lambda opt: 1 if opt.agnostic_ex else opt.num_classes) for side in 'tlbr'},
            'hm_c': Head(num_classes),
            **{f'reg_{side}': Head(fixed(2), unless=('not_reg_offset',)) for side in 'tlbr'},
        },
        read_heads=lambda heads: {
            'num_classes': heads['hm_c'],
            'agnostic_ex': heads['hm_t'] == 1 and heads['hm_c'] > 1,
        },
        describe_row=describe_extreme_points,
        needs=('boxes', 'extreme points'),
        K=40,  # a side
        square_input=True,
        optional_nms=False,  # always: one object gives many fours of points
        chooses_regression_loss=False,
        options=ExdetOptions,
        example='[--dataset FOLDER]    first {extreme} adds its points',
    ),
    'ddd': Task(
        summary='3D boxes',
        sample='DddSample',
        trainer='DddTrainer',
        detector='DddDetector',
        dataset='kitti',
        heads={
            'hm': Head(num_classes),
            'dep': Head(fixed(1)),
            'rot': Head(fixed(8)),
            'dim': Head(fixed(3)),
            'wh': Head(fixed(2), unless=('not_reg_bbox',)),
            'reg': Head(fixed(2), unless=('not_reg_offset',)),
        },
        read_heads=lambda heads: {'num_classes': heads['hm']},
        describe_row=describe_box_3d,
        needs=('3D boxes',),
        augments=False,  # a mirrored or zoomed image has other depths
        merges_views=False,
        optional_nms=False,
        chooses_regression_loss=False,
        options=DddOptions,
        example='[--dataset FOLDER]      first {kitti} {up}data/kitti',
    ),
    'multi_pose': Task(
        summary='people and their joints',
        sample='MultiPoseSample',
        trainer='MultiPoseTrainer',
        detector='MultiPoseDetector',
        dataset='coco_hp',
        heads={
            'hm': Head(fixed(1)),
            'wh': Head(fixed(2)),
            'hps': Head(lambda opt: 2 * num_joints(opt)),
            'reg': Head(fixed(2), unless=('not_reg_offset',)),
            'hm_hp': Head(num_joints, unless=('not_hm_hp',)),
            'hp_offset': Head(fixed(2), unless=('not_reg_hp_offset', 'not_hm_hp')),
        },
        read_heads=lambda heads: {'num_classes': heads['hm'], 'num_joints': heads['hps'] // 2},
        describe_row=describe_pose,
        needs=('boxes', 'joints'),
        square_input=True,
        options=MultiPoseOptions,
    ),
}


def heads_of(opt: 'Options') -> dict[str, int]:
    """Return the heads of a network, `{name: channels}` in the published order.

    Args:
        opt: its options, `num_classes` and `num_joints` among them.
    """
    heads = TASKS[opt.task].heads
    return {
        name: head.channels(opt)
        for name, head in heads.items()
        if not any(getattr(opt, switch) for switch in head.unless)
    }


def infer_task(heads: Mapping[str, int]) -> dict[str, Any]:
    """Find the task that has the heads `{name: channels}`, its classes and joints, and the options that shaped them.

    Returns:
        `task`, what its `read_heads` gives and the switches of the heads that are missing; {} where no task has them.
    """
    for name, task in TASKS.items():
        needed = {head for head, facts in task.heads.items() if not facts.unless}
        if needed <= heads.keys() <= task.heads.keys():
            missing = {facts.unless[0]: head not in heads for head, facts in task.heads.items() if facts.unless}
            return {'task': name, **task.read_heads(heads), **missing}
    return {}


def load_class(room: str, name: str, class_name: str) -> Any:
    """Import a class of a task.

    Args:
        room: its package, such as 'trains'.
        name: the task's, which is the module's.
        class_name: the class's.
    """
    return getattr(importlib.import_module(f'.{room}.{name}', __package__), class_name)
