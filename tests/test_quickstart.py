"""docs/quickstart.ipynb runs from its first cell to its last, with a few iterations of training."""

from pathlib import Path

import nbclient
import nbformat
from ipykernel.kernelspec import install

NOTEBOOK = Path(__file__).parents[1] / 'docs' / 'quickstart.ipynb'


def outputs_of(notebook):
    """Return the texts that the cells have printed, and the number of pictures that they show."""
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    return ''.join(output.get('text', '') for output in outputs), sum('data' in output for output in outputs)


def test_notebook_runs(tmp_path, monkeypatch):
    """It draws, trains, scores and detects by the installed package, and shows four pictures."""
    monkeypatch.setenv('QUICKSTART_ITERATIONS', '6')
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('--train 2000 --val 100', '--train 24 --val 4')
    nbclient.NotebookClient(notebook, timeout=300, kernel_name=kernel(tmp_path, monkeypatch)).execute()
    text, pictures = outputs_of(notebook)
    assert "'AP':" in text and 'AP50' in text
    assert pictures == 4


def kernel(folder, monkeypatch):
    """Register a kernel that runs this interpreter, whatever kernels the user has; return its name."""
    monkeypatch.setenv('JUPYTER_DATA_DIR', str(folder / 'jupyter'))
    install(user=True, kernel_name='this', prefix=None)
    return 'this'
