"""Small trained models of the four tasks: toy pictures, and the fewest epochs that find most."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / 'src'
VAL = 100  # held-out pictures
ARCH = 'dlav0_34'
LONGER = '--num_epochs 10 --lr_step 8 --lr 2.5e-4'  # of other archs, which learn more slowly from scratch
COMMON = (
    '--gpus -1 --head_conv 64 --pretrained none --batch_size 4 --lr 1e-3 --num_workers 0 --val_intervals 0 --overwrite'
)
PLAIN = '--no_color_aug --not_rand_crop --shift 0 --scale 0 --wh_weight 0.3'


@dataclass(frozen=True)
class Recipe:
    """How a task's model is made.

    Attributes:
        pictures: arguments of make_toy_data.py.
        training: arguments of main.py beside `COMMON`.
        scoring: arguments of test.py: of ddd boxes in the image, since 3D boxes need longer training.
    """

    pictures: str
    training: str
    scoring: str = ''


RECIPES = {
    'ctdet': Recipe(
        '--train 1000 --size 64 --colors class',
        f'{PLAIN} --input_res 64 --num_epochs 3 --num_iters 200 --lr_step 2',
    ),
    'multi_pose': Recipe(
        '--train 1000 --size 96',
        f'{PLAIN} --input_res 96 --num_epochs 4 --num_iters 250 --lr_step 3',
    ),
    'exdet': Recipe(
        '--train 1000 --size 64 --colors class',
        f'{PLAIN} --input_res 64 --num_epochs 3 --num_iters 200 --lr_step 2',
    ),
    'ddd': Recipe(
        '--train 600 --size 384x128',
        '--input_h 64 --input_w 192 --num_epochs 4 --num_iters 150 --lr_step 3 --aug_ddd 0 --wh_weight 1.5 '
        '--off_weight 5 --dep_weight 2 --dim_weight 3 --rot_weight 8',
        '--eval_metric bbox',
    ),
}


@dataclass(frozen=True)
class ToyModel:
    """A trained model and its data.

    Attributes:
        task: its task.
        checkpoint: the file.
        place: the options of the programs that name its data.
        dataset: as `--dataset` takes it.
    """

    task: str
    checkpoint: Path
    place: list[str]
    dataset: str


def toy_model(task: str, folder: Path, arch: str = ARCH) -> ToyModel:
    """Return the model of a task in a folder; what is missing there is drawn and trained, which takes minutes.

    Pictures lie in `data/TASK`, the model in `TASK.pth`, of another arch than `ARCH` in `TASK-ARCH.pth`.
    """
    recipe, data = RECIPES[task], folder / 'data' / task
    own = ['--data_dir', str(data)] if task == 'ddd' else ['--dataset', str(data)]
    name = task if arch == ARCH else f'{task}-{arch}'
    checkpoint, trained = folder / f'{name}.pth', folder / 'exp' / task / name / 'model_last.pth'
    if not data.exists():
        run('tools/make_toy_data.py', str(data), '--task', task, '--val', str(VAL), *recipe.pictures.split())
    if not checkpoint.exists():
        where = ['--arch', arch, '--exp_dir', str(folder / 'exp'), '--exp_id', name]
        longer = [] if arch == ARCH else LONGER.split()
        run('main.py', task, *own, *COMMON.split(), *recipe.training.split(), *longer, *where)
        trained.rename(checkpoint)  # only now: a training that was stopped leaves a checkpoint, too
    return ToyModel(task, checkpoint, own, 'kitti' if task == 'ddd' else str(data))


def run(program: str, *args: str) -> str:
    """Run a program of src/; returns what it prints.

    Raises:
        SystemExit: it failed; its last lines are shown.
    """
    done = subprocess.run([sys.executable, str(SRC / program), *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{program} {" ".join(args)} failed:\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}')
    return done.stdout
