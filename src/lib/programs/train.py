"""Train CenterNet: python main.py TASK [options]. With --test, evaluate on the training side and exit.

With several GPUs, or under torchrun, this runs as one of several ranks, which share out each batch and validation.
What a function needs is imported in it, once the command line is found right: torch takes seconds to load.
"""

from typing import TYPE_CHECKING

from ..utils.allocator import keep_freed_memory
from ..utils.launch import start_ranks
from ..utils.signals import stop_signals_exit

if TYPE_CHECKING:
    from ..datasets.sample.base import Sample
    from ..opts import Options
    from ..utils.ranks import Ranks


def main(args: list[str] | None = None, ranks: 'Ranks | None' = None) -> None:
    with stop_signals_exit():
        from ..opts import opts
        from ..utils.launch import ALONE

        opt = opts().parse(args, launch=ranks.launch if ranks else ALONE)

        import torch

        from ..datasets.dataset_factory import get_dataset
        from ..utils.ranks import ONE

    if opt.processes > 1 and ranks is None:
        _ = opt.device  # a GPU that is not there is refused before any process starts
        start_ranks(main, args, opt.processes)
        return
    keep_freed_memory()
    Dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, Dataset)
    torch.manual_seed(opt.seed)
    if opt.test:
        evaluate(opt, Dataset, ranks or ONE)
    else:
        train(opt, Dataset, ranks or ONE)


def train(opt: 'Options', Dataset: type['Sample'], ranks: 'Ranks') -> None:
    """Train from epoch to epoch, validating now and then; the run's folder holds what comes of it."""
    import torch

    from ..datasets.loaders import TrainLoader, val_loader
    from ..logger import open_logger
    from ..models.model import create_model
    from ..opts import check_training, shared_options
    from ..trains.base_trainer import Interrupted
    from ..trains.run import Run, chosen_metric
    from ..trains.train_factory import train_factory
    from ..utils.run_folder import refuse_used_folder
    from ..utils.signals import StopSignals

    check_training(opt)
    if not (opt.resume or opt.overwrite):
        refuse_used_folder(opt.save_dir)
    ranks.open_device(opt.device)
    validates = opt.val_intervals > 0
    with ranks.one_first():
        train_set = Dataset(opt, 'train')
        val_set = Dataset(opt, 'val') if validates else None
    ranks.check_alike({**shared_options(opt), **train_set.facts()})
    train_loader = TrainLoader(opt, train_set, ranks)
    validation = val_loader(opt, val_set, ranks) if validates else None

    model = create_model(opt.arch, opt.heads, opt.head_conv, 'none' if opt.load_model else opt.pretrained)
    model = ranks.join_norms(model) if opt.sync_bn else model
    optimizer = torch.optim.Adam(model.parameters(), opt.lr, fused=True)
    trainer = train_factory[opt.task](opt, model, optimizer, ranks)
    with open_logger(opt, ranks) as logger, StopSignals(trainer.request_stop, announced=ranks.count == 1):
        metric = chosen_metric(opt, Dataset.create_metric(opt.eval_metric).main, val_set)
        run = Run(opt, trainer, logger, metric, train_loader, len(val_set) if val_set is not None else 0)
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
            raise (stop.reason or ranks.interruption()) from None
        run.finish()


def evaluate(opt: 'Options', Dataset: type['Sample'], ranks: 'Ranks') -> None:
    """Compute the losses and the metric of a trained network on val, through the training-side decoder."""
    from ..datasets.loaders import val_loader
    from ..models.model import create_model, load_model
    from ..opts import shared_options
    from ..trains.train_factory import train_factory
    from ..utils.files import writable_folder

    ranks.open_device(opt.device)
    if ranks.is_lead:
        writable_folder(opt.save_dir)
    with ranks.one_first():
        dataset = Dataset(opt, 'val')
    ranks.check_alike({**shared_options(opt), **dataset.facts()})
    loader = val_loader(opt, dataset, ranks)
    model = create_model(opt.arch, opt.heads, opt.head_conv)
    if opt.load_model:
        load_model(model, opt.load_model, strict=True)
    elif ranks.is_lead:
        print('no --load_model: a random network is evaluated')
    trainer = train_factory[opt.task](opt, model, ranks=ranks)
    trainer.start_precision()
    trainer.set_device(opt.device)
    losses, results = trainer.val(0, loader, collect=True)
    if ranks.is_lead:
        print(' | '.join(f'{name} {value:.4f}' for name, value in losses.items()))
        dataset.run_eval(results, opt.save_dir)
