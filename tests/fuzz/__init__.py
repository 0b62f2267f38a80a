"""A seeded fuzzer: broken files and arguments through the programs, in search of tracebacks, crashes and damage.

`python tests/fuzz/run.py --help`. Each format has a module with `make_base(folder)`, which writes a valid input, and
`make_case(rng, base, folder)`, which breaks a copy of it.
"""
