"""Train CenterNet: python main.py TASK [options]. With --test, evaluate on the training side and exit.

What a function needs is imported in it, once the command line is found right: torch takes seconds to load.
"""

from typing import TYPE_CHECKING

from lib.utils.cli import run_cli
from lib.utils.signals import stop_signals_exit

if TYPE_CHECKING:
    from lib.datasets.sample.base import Sample
    from lib.opts import Options


def main(args: list[str] | None = None) -> None:
    with stop_signals_exit():
        from lib.opts import opts

        opt = opts().parse(args)

        import torch

        from lib.datasets.dataset_factory import get_dataset

    Dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, Dataset)
    torch.manual_seed(opt.seed)
    if opt.test:
        evaluate(opt, Dataset)
    else:
        train(opt, Dataset)


def train(opt: 'Options', Dataset: type['Sample']) -> None:
    """Train from epoch to epoch, validating now and then; the run's folder holds what comes of it."""
    import torch

    from lib.datasets.loaders import TrainLoader, val_loader
    from lib.logger import Logger
    from lib.models.model import create_model
    from lib.opts import check_training
    from lib.trains.base_trainer import Interrupted
    from lib.trains.run import Run
    from lib.trains.train_factory import train_factory
    from lib.utils.run_folder import refuse_used_folder
    from lib.utils.signals import StopSignals

    check_training(opt)
    if not (opt.resume or opt.overwrite):
        refuse_used_folder(opt.save_dir)
    validates = opt.val_intervals > 0
    train_loader = TrainLoader(opt, Dataset(opt, 'train'))
    validation = val_loader(opt, Dataset(opt, 'val')) if validates else None

    model = create_model(opt.arch, opt.heads, opt.head_conv, 'none' if opt.load_model else opt.pretrained)
    optimizer = torch.optim.Adam(model.parameters(), opt.lr, fused=True)
    trainer = train_factory[opt.task](opt, model, optimizer)
    with Logger(opt) as logger, StopSignals(trainer.request_stop):
        run = Run(opt, trainer, logger, Dataset.create_metric(opt.eval_metric).main, len(train_loader))
        run.start()
        trainer.set_device(opt.device)
        try:
            if validation is not None and run.owes_validation():
                run.validate(validation)
            while not run.is_over():
                run.train_epoch(train_loader)
                if validation is not None and run.owes_validation():
                    run.validate(validation)
        except Interrupted as stop:
            run.save_interrupted(stop)
            raise (stop.reason or KeyboardInterrupt) from None
        run.finish()


def evaluate(opt: 'Options', Dataset: type['Sample']) -> None:
    """Compute the losses and the metric of a trained network on val, through the training-side decoder."""
    from lib.datasets.loaders import val_loader
    from lib.models.model import create_model, load_model
    from lib.trains.train_factory import train_factory
    from lib.utils.files import writable_folder

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
