"""Evaluate a checkpoint: python test.py TASK --load_model FILE [options].

`main` reads the options and has the results scored, `detect_all` shares the images out, `detect_share` detects in
them: lib/programs/test.py has the three, top-down, for `centernet test` too.
"""

from lib.programs.test import detect_all, detect_share, main
from lib.utils.launch import run_ranked

__all__ = ['detect_all', 'detect_share', 'main']

if __name__ == '__main__':
    run_ranked(main)
