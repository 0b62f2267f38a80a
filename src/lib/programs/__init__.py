"""The programs, each read top-down as the method.

`src/main.py`, `test.py`, `demo.py` and `export.py` run them in a checkout, the command `centernet` wherever it is
installed.
"""
