"""Builds the Cython kernels and installs `src/lib` under the name `centernet`."""

import os
import re
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
# The lines of requirements.txt that the library runs without, by the extras that have them.
EXTRAS = {
    'dev': {
        'Cython',
        'mypy',
        'pytest',
        'pytest-xdist',
        'ruff',
        'setuptools',
        'onnx',
        'onnxscript',
        'onnxruntime',
        'openvino',
        'nncf',
    },
    'onnx': {'onnx', 'onnxscript', 'onnxruntime'},
    'openvino': {'openvino'},
    'int8': {'openvino', 'nncf'},
}
OPENMP = [] if sys.platform == 'darwin' else ['-fopenmp']  # Apple's compiler has none: one thread there
FREE_SUMS = ['-fassociative-math', '-fno-signed-zeros', '-fno-trapping-math']  # vectorised inner products
EXTENSION_OPTIONS = {  # kernel -> further arguments of its Extension
    'nms': {'extra_compile_args': ['-O3', '-fno-trapping-math', '-ffp-contract=off']},  # the same on all processors
    'peaks': {'extra_compile_args': ['-O3']},
    'raster': {'extra_compile_args': ['-O3']},
    'dcn': {'extra_compile_args': ['-O3', *FREE_SUMS, *OPENMP], 'extra_link_args': OPENMP},
    'winograd': {'extra_compile_args': ['-O3', *OPENMP], 'extra_link_args': OPENMP},
}
SANITIZERS = os.environ.get('CENTERNET_SANITIZE', '')  # such as `address,undefined`: see `make asan`
SANITIZE = [f'-fsanitize={SANITIZERS}', '-fno-omit-frame-pointer', '-O1', '-g'] if SANITIZERS else []


def requirements(extra: str = '') -> list[str]:
    """The lines of requirements.txt of an extra, or those that are in none."""
    lines = (line.partition('#')[0].strip() for line in (ROOT / 'requirements.txt').read_text().splitlines())
    names = {line: re.match(r'[\w.-]+', line).group() for line in lines if line}
    optional = set().union(*EXTRAS.values())
    return [line for line, name in names.items() if (name in EXTRAS[extra] if extra else name not in optional)]


def kernels() -> list[Extension]:
    """One extension a `src/lib/external/*.pyx`."""
    paths = sorted((ROOT / 'src/lib/external').glob('*.pyx'))
    options = {path.stem: EXTENSION_OPTIONS.get(path.stem, {}) for path in paths}
    return [
        Extension(
            f'centernet.external.{path.stem}',
            [path.relative_to(ROOT).as_posix()],
            depends=['src/lib/external/per_cpu.h'],
            include_dirs=['src/lib/external'],
            extra_compile_args=[*options[path.stem].get('extra_compile_args', []), *SANITIZE],
            extra_link_args=[*options[path.stem].get('extra_link_args', []), *SANITIZE[:1]],
        )
        for path in paths
    ]


setup(
    name='centernet',
    version='1.0.0',
    description='CenterNet ("Objects as Points"): detection, pose and monocular 3D boxes from centre points',
    license='MIT',
    python_requires='>=3.10',
    install_requires=requirements(),
    extras_require={extra: requirements(extra) for extra in EXTRAS},
    package_dir={'centernet': 'src/lib'},
    packages=['centernet', *(f'centernet.{name}' for name in find_packages(ROOT / 'src/lib'))],
    package_data={'centernet': ['py.typed'], 'centernet.external': ['*.pyi']},
    ext_modules=cythonize(kernels(), build_dir='build/cython', language_level=3),
    zip_safe=False,
)
