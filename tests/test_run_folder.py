"""The folder of a run: it is never replaced without being asked for."""

import pytest
import torch

from lib.models.model import save_model
from lib.opts import opts
from lib.utils.errors import UserError
from lib.utils.run_folder import clear_folder, refuse_used_folder


def tiny(toy, exp_dir, *args):
    options = ['--arch', 'res_18', '--head_conv', '0', '--pretrained', 'none', '--gpus', '-1', '--num_workers', '0']
    options += ['--batch_size', '2', '--input_res', '32', '--num_iters', '1', '--val_intervals', '0']
    return ['ctdet', '--dataset', toy, '--exp_dir', str(exp_dir), '--exp_id', 'run', *options, *args]


def test_a_second_run_of_a_name_is_refused(toy, scripts, tmp_path):
    """Without --resume or --overwrite nothing of the first run changes; with --overwrite its records start anew."""
    main, run = scripts('main').main, tmp_path / 'ctdet' / 'run'
    main(tiny(toy, tmp_path, '--num_epochs', '2', '--save_all'))
    (run / 'notes.md').write_text('mine')
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert {'model_1.pth', 'model_2.pth', 'model_best.pth', 'model_last.pth', 'log.txt'} <= before.keys()
    with pytest.raises(UserError, match=r'--resume.*--exp_id.*--overwrite'):
        main(tiny(toy, tmp_path, '--num_epochs', '1'))
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before

    main(tiny(toy, tmp_path, '--num_epochs', '1', '--overwrite'))
    assert not (run / 'model_2.pth').exists() and (run / 'notes.md').read_text() == 'mine'
    assert (run / 'log.txt').read_text().count('done: ') == 1
    assert len(list((run / 'logs').iterdir())) == 1  # one run's TensorBoard events


def test_a_run_without_a_checkpoint_does_not_block(tmp_path):
    """What a run leaves that ended before its first checkpoint is cleared; other files stay."""
    (tmp_path / 'log.txt').write_text('started')
    (tmp_path / 'model_theirs.pth').write_text('mine')
    refuse_used_folder(str(tmp_path))
    clear_folder(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ['model_theirs.pth']
    refuse_used_folder(str(tmp_path / 'missing'))


def test_overwrite_and_resume_exclude_each_other(scripts):
    """One starts over, the other goes on."""
    with pytest.raises(UserError, match='--overwrite.*--resume'):
        scripts('main').main(['ctdet', '--overwrite', '--resume', '--gpus', '-1'])


def test_runs_without_a_name_get_one_each(tmp_path, capsys):
    """A run that the user did not name never meets an earlier one; --resume goes on with the latest."""

    def parsed(*args):
        return opts().parse(['ctdet', '--gpus', '-1', '--exp_dir', str(tmp_path), *args])

    assert parsed().exp_id == 'default'
    for name, following in (('default', 'default_2'), ('default_2', 'default_3')):
        (tmp_path / 'ctdet' / name).mkdir(parents=True)
        save_model(tmp_path / 'ctdet' / name / 'model_last.pth', 1, torch.nn.Linear(1, 1))
        capsys.readouterr()
        opt = parsed()
        assert (opt.exp_id, opt.save_dir) == (following, str(tmp_path / 'ctdet' / following))
        said = capsys.readouterr().out
        assert all(word in said for word in (following, '--exp_id', '--resume', '--overwrite'))
        assert parsed('--resume').load_model == str(tmp_path / 'ctdet' / name / 'model_last.pth')
    assert parsed('--overwrite').exp_id == 'default'
    assert parsed('--exp_id', 'default').exp_id == 'default'  # named: refused when it is about to train
