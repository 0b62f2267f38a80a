"""Our int8 operators in OpenVINO's models: what they take the place of, what they leave, that the answer stays."""

import importlib
import os
import re
import signal
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

openvino = pytest.importorskip('openvino', reason='the extra [int8] is not installed')

from lib.exports.own_operators import use_own_operators  # noqa: E402
from lib.models import openvino_operators  # noqa: E402
from lib.models.exported import OpenVinoFile, open_exported  # noqa: E402
from lib.utils.errors import UserError  # noqa: E402

operators: Any = importlib.import_module('openvino.opset13')
OWN = {'DeformableConvolutionInt8', 'UpsampledSumInt8'}


def rounded(values, low, high, levels=256, *out):
    """A FakeQuantize; `out` are other limits of what it gives."""
    limits = [np.float32(limit) for limit in (low, high, *(out or (low, high)))]
    return operators.fake_quantize(values, *limits, levels)


def per_channel(values):
    """A FakeQuantize of 4 channels, each with a range of its own."""
    low, high = np.zeros((1, 4, 1, 1), np.float32), np.float32([5, 10, 20, 30]).reshape(1, 4, 1, 1)
    return operators.fake_quantize(values, low, high, low, high, 256)


def looking_model(
    rounds=(-1, 4.1),  # 50 steps below 0
    kernel=(3, 3),
    groups=1,
    relu=True,
    end=lambda out: [out],
    parts=(18, 9),
    of_another=False,
    **changes,
):
    """A deformable convolution 8 -> 4 of maps [1, 8, 9, 9], which are rounded for the convolution that says where it
    looks, with a bias."""
    rng = np.random.default_rng(0)
    given = operators.parameter([1, 8, 9, 9], np.float32)
    seen = operators.negative(given) if of_another else given
    seen = rounded(seen, *rounds) if rounds else seen
    geometry = {name: [1, 1] for name in ('strides', 'pads_begin', 'pads_end', 'dilations')}
    geometry |= {name: changes.pop(name) for name in geometry if name in changes}
    weight = rng.normal(size=(sum(parts), 8, *kernel)).astype(np.float32) / 10
    split = operators.variadic_split(operators.convolution(seen, weight, **geometry), np.int64(1), np.array(parts))
    offset, mask = sorted(split.outputs(), key=lambda part: -part.get_partial_shape()[1].get_length())
    weight = rng.normal(size=(4, 8 // groups, *kernel)).astype(np.float32)
    mask = operators.sigmoid(mask)
    changes = {'bilinear_interpolation_pad': True, **changes}
    out = operators.deformable_convolution(given, offset, weight, **geometry, mask=mask, group=groups, **changes)
    out = operators.add(out, rng.normal(size=(1, 4, 1, 1)).astype(np.float32))
    return openvino.Model(end(operators.relu(out) if relu else out), [given])


def summing_model(low=(-1, 4.1), other=(-1, 4.1), total=(-2, 8), kernel=4, end=None, spread=False, **changes):
    """Maps [1, 6, 5, 5] made larger, plus others, rounded."""
    geometry = {'strides': [2, 2], 'pads_begin': [1, 1], 'pads_end': [1, 1], **changes}
    more = geometry.get('output_padding', [0, 0])[0] - 2 * geometry['pads_begin'][0]
    side = 4 * geometry['strides'][0] + kernel + more
    maps = [operators.parameter([1, 6, 5, 5], np.float32), operators.parameter([1, 6, side, side], np.float32)]
    weight = np.random.default_rng(0).random((6, 1, 1, kernel, kernel), np.float32) / 4
    up = operators.group_convolution_backprop_data(rounded(maps[0], *low) if low else maps[0], weight, **geometry)
    added = rounded(operators.reduce_max(maps[1], np.array([1]), True) if spread else maps[1], *other)
    out = operators.add(added, up)
    return openvino.Model(end(out) if end else [rounded(out, *total)], maps)


def answers(model) -> list[np.ndarray]:
    """What a model answers to random maps."""
    rng = np.random.default_rng(1)
    given = [rng.uniform(-1, 4, list(each.get_partial_shape().to_shape())).astype(np.float32) for each in model.inputs]
    return list(openvino.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})(given).values())


def assert_stays(make, replaced: int) -> Any:
    """So many steps are replaced, and what a model answers is nearly the same, or the same; returns the model."""
    wanted, model = answers(make()), make()
    assert use_own_operators(model) == replaced
    kinds = [step.get_type_name() for step in model.get_ordered_ops()]
    assert sum(kind in OWN for kind in kinds) == replaced
    for found, want in zip(answers(model), wanted, strict=True):
        assert found.shape == want.shape and abs(want).max() > 1
        assert abs(found - want).max() <= (0.03 if replaced else 1e-6) * abs(want).max()
    return model


@pytest.mark.parametrize(
    'change',
    [
        {},
        {'relu': False},
        {'rounds': (-2, 4.375)},
        {'strides': [2, 2], 'pads_begin': [0, 0], 'pads_end': [0, 0]},
        {'dilations': [2, 2], 'pads_begin': [2, 2], 'pads_end': [2, 2]},
        {'deformable_group': 2, 'parts': (36, 18)},
        {'end': lambda out: [rounded(out, 0, 40)]},
        {'end': lambda out: [rounded(out, -20, 31)]},
        {'relu': False, 'end': lambda out: [rounded(out, -20, 31)]},
        {'end': lambda out: [rounded(out, 0, 20), out]},
        {'end': lambda out: [rounded(out, 0, 20), operators.add(rounded(out, 0, 20), np.float32(1))]},
        {'end': lambda out: [rounded(out, 0, 20), operators.add(rounded(out, 0, 10), np.float32(1))]},
        {'end': lambda out: [rounded(out, 0, 20, 255)]},
        {'end': lambda out: [rounded(out, 0, 20, 256, 0, 40)]},
        {'end': lambda out: [per_channel(out)]},
        {'relu': False, 'end': lambda out: [operators.relu(operators.add(out, np.float32(3))), out]},
    ],
)
def test_deformable_convolutions_are_replaced(change):
    """Whatever reads them: the answer stays within the rounding to bytes."""
    assert_stays(lambda: looking_model(**change), 1)


@pytest.mark.parametrize(
    'change',
    [
        {'rounds': None},
        {'rounds': (-1, 4.105)},
        {'rounds': (-1, 4.1, 255)},
        {'rounds': (-1, 4.1, 256, -2, 8.2)},
        {'of_another': True},
        {'bilinear_interpolation_pad': False},
        {'groups': 2},
        {'strides': [1, 2]},
        {'dilations': [1, 2]},
        {'pads_begin': [1, 0], 'pads_end': [1, 0]},
        {'pads_end': [0, 0]},
        {'kernel': (3, 1), 'parts': (6, 3)},
        {'parts': (9, 18)},
    ],
)
def test_other_deformable_convolutions_stay(change):
    """In float: those whose map is not in bytes where the offsets are made, and those that ours does not compute."""
    assert_stays(lambda: looking_model(**change), 0)


def test_a_map_with_negative_values_is_read_in_bytes():
    """0 is another byte than 0 then, which cells outside the map have."""
    model = assert_stays(looking_model, 1)
    (own,) = [step for step in model.get_ordered_ops() if step.get_type_name() in OWN]
    assert (own.attributes['zero'], own.attributes['to_bytes'], own.attributes['relu']) == (50, 0, 1)


@pytest.mark.parametrize(
    'change',
    [
        {},
        {'other': (0, 4)},
        {'total': (0, 8)},
        {'strides': [3, 3], 'kernel': 5},
        {'strides': [1, 1], 'kernel': 2, 'pads_begin': [0, 0], 'pads_end': [0, 0]},
        {
            'end': lambda out: [
                operators.relu(rounded(out, -2, 8)),
                operators.multiply(rounded(out, -2, 8), np.float32(2)),
            ]
        },
    ],
)
def test_upsampled_sums_are_replaced(change):
    """The answer stays, for the sum is exact before it is rounded."""
    assert_stays(lambda: summing_model(**change), 1)


@pytest.mark.parametrize('changes', [{'stride': 3}, {'stride': 1}, {'padding': 0}])
def test_sums_of_maps_of_other_sizes_are_refused(changes):
    """Before anything runs: OpenVINO would lose what the kernel says of them."""
    shapes = [([1, 5, 5, 6], 'uint8'), ([1, 10, 10, 6], 'uint8'), ([4, 4, 6], 'float32'), *2 * [([1], 'float32')]]
    inputs = [operators.parameter(shape, np.dtype(kind)).output(0) for shape, kind in shapes]
    right = {'stride': 2, 'padding': 1, 'zero': 0}
    openvino_operators.upsampled_sum()(inputs, **right)
    with pytest.raises(ValueError, match='expected a map of'):
        openvino_operators.upsampled_sum()(inputs, **{**right, **changes})


@pytest.mark.parametrize(
    'change',
    [
        {'low': None},
        {'total': (-2, 8.01)},
        {'spread': True},
        {'kernel': 5},
        {'output_padding': [1, 1]},
        {'end': lambda out: [rounded(out, -2, 8), out]},
        {'end': lambda out: [rounded(out, -2, 8), operators.relu(out)]},
    ],
)
def test_other_sums_stay(change):
    """Those of maps or to maps that are not in bytes, of one map spread over the other, of other upsamplings."""
    assert_stays(lambda: summing_model(**change), 0)


@pytest.mark.parametrize('threads', [1, 3])
def test_constants_may_lie_at_any_address(threads, monkeypatch):
    """OpenVINO's cache keeps them wherever they end up; vector instructions take them where their size divides it."""
    monkeypatch.setattr(openvino_operators, 'LEAST_WORK', 1)
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 256, (1, side, side, 5), np.uint8) for side in (4, 8)]
    weight, one = rng.random((4, 4, 5), np.float32) / 4, np.ones(1, np.float32)
    room = np.zeros(weight.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(weight.shape)
    room[:] = weight
    assert weight.flags.aligned and not room.flags.aligned
    found = []
    for given in (weight, room):
        out = np.zeros((1, 8, 8, 5), np.uint8)
        operator = openvino_operators.upsampled_sum()(stride=2, padding=1, zero=0)
        operator.threads = threads
        operator.evaluate([SimpleNamespace(data=out)], [SimpleNamespace(data=a) for a in (*maps, given, one / 4, one)])
        found.append(out)
    assert found[0].std() > 10
    np.testing.assert_array_equal(*found)


def test_a_forked_process_computes_on(monkeypatch):
    """It has none of the threads of its parent, and starts its own."""
    monkeypatch.setattr(openvino_operators, 'LEAST_WORK', 1)
    maps = [np.zeros((1, side, side, 5), np.uint8) for side in (4, 8, 8)]
    operator = openvino_operators.upsampled_sum()(stride=2, padding=1, zero=0)
    operator.threads = 2
    values = [*maps[:2], np.ones((4, 4, 5), np.float32), np.ones(1, np.float32), np.ones(1, np.float32)]
    arguments = [[SimpleNamespace(data=maps[2])], [SimpleNamespace(data=value) for value in values]]
    for _ in range(10):  # until all threads are there
        operator.evaluate(*arguments)
    time.sleep(0.2)  # and wait for work
    child = os.fork()
    if not child:
        signal.alarm(20)  # which ends a child that waits for threads that are not there
        os._exit(0 if operator.evaluate(*arguments) and maps[2].all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ('changed', 'into', 'words'),
    [
        ('<data destination_type="u8"', '<data destination_type="i8"', r"found \['i8', 'f32', 'i8', 'f32', 'f32'\]$"),
        (' zero="50"', ' zero="300"', r'expected zero in range\(0, 256\) of DeformableConvolutionInt8, found 300$'),
        (' zero="50"', '', 'expected zero .* found -1$'),
        (' kernel="3"', ' kernel="0"', 'expected kernel .* found 0$'),
        (' kernel="3"', ' kernel="2"', r'expected weight \[1, 8, 16, 4\] and offsets of 4 taps'),
        (' kernel="3"', ' kernel="1"', r'expected weight \[1, 2, 16, 4\] and offsets of 1 taps'),
    ],
)
def test_files_whose_operators_are_others_are_refused(changed, into, words, tmp_path):
    """Those of other checkouts and damaged ones: one line, before anything runs."""
    model = looking_model()
    use_own_operators(model)
    file = tmp_path / 'model.xml'
    openvino.save_model(model, str(file))
    text = file.read_text()
    assert len(re.findall(changed, text)) == 1
    file.write_text(text.replace(changed, into))
    with pytest.raises(UserError, match=words):
        open_exported(file)


def test_what_fails_while_a_file_runs_is_one_line():
    """Whatever a runtime says of it."""
    opened = object.__new__(OpenVinoFile)
    opened.path, opened.dynamic_size = 'model.xml', False

    def fail(images):
        raise RuntimeError('Node x\nValueError: expected y\n\nAt:\n  ours.py(1): evaluate\n')

    opened.compile = lambda shape: fail
    with pytest.raises(UserError, match="'model.xml' is no file that OpenVINO can run: Node x ValueError: expected y$"):
        opened.call(np.zeros((1, 8, 9, 9), np.float32))
