"""Train CenterNet: python main.py TASK [options]. With --test, evaluate on the training side and exit.

`main` reads the options and starts a process for each GPU, `train` trains from epoch to epoch, `evaluate` computes
losses and metric of a trained network: lib/programs/train.py has the three, top-down, for `centernet train` too.
"""

from lib.programs.train import evaluate, main, train
from lib.utils.launch import run_ranked

__all__ = ['evaluate', 'main', 'train']

if __name__ == '__main__':
    run_ranked(main)
