"""`python -m centernet` is the command `centernet`."""

from .programs.command import run

if __name__ == '__main__':
    run()
