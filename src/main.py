"""Train CenterNet: python main.py TASK [options]. With --test, evaluate on the training side and exit."""

from argparse import Namespace

import torch

from lib.datasets.dataset_factory import get_dataset
from lib.datasets.loaders import TrainLoader, val_loader
from lib.logger import Logger
from lib.models.model import create_model, load_model
from lib.opts import check_training, opts
from lib.trains.base_trainer import Interrupted
from lib.trains.run import Run
from lib.trains.train_factory import train_factory
from lib.utils.cli import run_cli
from lib.utils.device import open_device
from lib.utils.files import writable_folder
from lib.utils.signals import StopSignals


def main(args: list[str] | None = None) -> None:
    opt = opts().parse(args)
    Dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, Dataset)
    opt.device = open_device(opt)
    torch.manual_seed(opt.seed)
    evaluate(opt, Dataset) if opt.test else train(opt, Dataset)


def train(opt: Namespace, Dataset: type) -> None:
    """Train from epoch to epoch, validating now and then; the run's folder holds what comes of it."""
    check_training(opt)
    validates = opt.val_intervals > 0
    train_loader = TrainLoader(opt, Dataset(opt, 'train'))
    validation = val_loader(opt, Dataset(opt, 'val')) if validates else None

    model = create_model(opt.arch, opt.heads, opt.head_conv, 'none' if opt.load_model else opt.pretrained)
    optimizer = torch.optim.Adam(model.parameters(), opt.lr, fused=True)
    trainer = train_factory[opt.task](opt, model, optimizer)
    run = Run(opt, trainer, Logger(opt), Dataset.main_metric)
    run.start()
    trainer.set_device(opt.device)

    with StopSignals(trainer.request_stop):
        try:
            if validates and run.owes_validation():
                run.validate(validation)
            while run.epoch < opt.num_epochs:
                run.train_epoch(train_loader)
                if validates and run.owes_validation():
                    run.validate(validation)
        except Interrupted as stop:
            run.save_interrupted(stop)
            raise KeyboardInterrupt from None
    run.finish()


def evaluate(opt: Namespace, Dataset: type) -> None:
    """Losses and metric of a trained network on val, through the training-side decoder."""
    writable_folder(opt.save_dir)
    loader = val_loader(opt, Dataset(opt, 'val'))
    model = create_model(opt.arch, opt.heads, opt.head_conv)
    if opt.load_model:
        load_model(model, opt.load_model, strict=True)
    else:
        print('no --load_model: a random network is evaluated')
    trainer = train_factory[opt.task](opt, model)
    trainer.set_device(opt.device)
    losses, results = trainer.val(0, loader, collect=True)
    print(' | '.join(f'{name} {value:.4f}' for name, value in losses.items()))
    loader.dataset.run_eval(results, opt.save_dir)


if __name__ == '__main__':
    run_cli(main)
