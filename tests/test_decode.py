"""Decoders against slow readable forms and hand-made maps."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from lib.models import decode
from lib.models.utils import flip_lr, flip_lr_off, flip_tensor, transpose_and_gather_feat

C, J, H, W = 3, 5, 11, 14


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def decoder_cases(batch=2):
    """Name of each decoder -> its tensor arguments and its other arguments."""
    heat, unit = rand(batch, C, H, W, seed=1), {'reg': rand(batch, 2, H, W, seed=2)}
    wh, wide = 8 * rand(batch, 2, H, W, seed=3), 8 * rand(batch, 2 * C, H, W, seed=3)
    kps = 6 * rand(batch, 2 * J, H, W, seed=4) - 3
    joints = {'hm_hp': rand(batch, J, H, W, seed=5), 'hp_offset': rand(batch, 2, H, W, seed=6)}
    rot, depth, dim = (rand(batch, d, H, W, seed=d) for d in (8, 1, 3))
    # Each side's points are likelier towards that side, or few fours of random points would be possible.
    down, right = (torch.linspace(0, 1, H)[:, None].expand(H, W), torch.linspace(0, 1, W).expand(H, W))
    sides = {
        f'{side}_heat': rand(batch, C, H, W, seed=7 + i) * lean**2
        for i, (side, lean) in enumerate({'t': 1 - down, 'l': 1 - right, 'b': down, 'r': right}.items())
    }
    regrs = {f'{side}_regr': rand(batch, 2, H, W, seed=12 + i) for i, side in enumerate('tlbr')}
    one = {name: heat[:, :1] for name, heat in sides.items()}
    exct = {'K': 9, 'num_dets': 12, 'scores_thresh': 0.6, 'center_thresh': 0.2}
    return {
        'ctdet': (decode.ctdet_decode, {'heat': heat, 'wh': wh, **unit}, {'K': 9}),
        'catspec': (decode.ctdet_decode, {'heat': heat, 'wh': wide}, {'K': 9, 'cat_spec_wh': True}),
        'multi_pose': (
            decode.multi_pose_decode,
            {'heat': heat[:, :1], 'wh': wh, 'kps': kps, **unit, **joints},
            {'K': 9},
        ),
        'ddd': (
            decode.ddd_decode,
            {'heat': heat, 'rot': rot, 'depth': depth, 'dim': dim, 'wh': wh, **unit},
            {'K': 9},
        ),
        'exct': (
            decode.exct_decode,
            {**sides, 'ct_heat': heat, **regrs},
            {**exct, 'num_dets': 100, 'aggr_weight': 0.02},
        ),
        'agnex': (decode.agnex_ct_decode, {**one, 'ct_heat': heat, **regrs}, exct),
    }


every_decoder = pytest.mark.parametrize('name', list(decoder_cases()))


@every_decoder
def test_inputs_are_not_changed(name):
    """The same maps are decoded twice (debug views, flip tests), so decoding must not write into them."""
    decoder, maps, options = decoder_cases()[name]
    before = {key: value.clone() for key, value in maps.items()}
    decoder(**maps, **options)
    assert all(torch.equal(maps[key], before[key]) for key in maps)


@every_decoder
def test_images_of_a_batch_do_not_mix(name):
    """A batch of three gives what three batches of one give."""
    decoder, maps, options = decoder_cases(batch=3)[name]
    together = decoder(**maps, **options)
    single = [decoder(**{k: v[i : i + 1] for k, v in maps.items()}, **options) for i in range(3)]
    assert torch.equal(together, torch.cat(single))
    assert not torch.equal(together[0], together[1])


@every_decoder
def test_half_precision_maps_give_float32_rows(name):
    """Coordinates beyond a few dozen need float32 even where the network ran in half precision."""
    decoder, maps, options = decoder_cases()[name]
    rows = decoder(**{k: v.half() for k, v in maps.items()}, **options)
    expected = decoder(**{k: v.half().float() for k, v in maps.items()}, **options)
    assert rows.dtype == torch.float32
    assert torch.allclose(rows, expected, atol=1e-6)


@every_decoder
def test_more_detections_than_cells(name):
    """A small map answers with as many rows as it has cells instead of failing."""
    decoder, maps, options = decoder_cases()[name]
    tiny = {key: value[..., :2, :2] for key, value in maps.items()}
    rows = decoder(**tiny, **{**options, 'K': 1000})
    cells = 4 * tiny['heat'].shape[1] if 'heat' in tiny else options['num_dets']
    assert rows.shape[:2] == (2, cells)


@every_decoder
def test_maps_that_carry_a_gradient_and_channels_last(name):
    """Trainers' debug views pass training outputs; networks may run in channels_last."""
    decoder, maps, options = decoder_cases()[name]
    expected = decoder(**maps, **options)
    other = {k: v.to(memory_format=torch.channels_last).requires_grad_() for k, v in maps.items()}
    rows = decoder(**other, **options)
    assert torch.equal(rows, expected) and not rows.requires_grad


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (6, 1), (9, 12)])
def test_keep_peaks_is_max_pooling(shape):
    """The kernel equals the 3x3 pooling of the paper, which other types take: plateaus, borders, any strides."""
    heat = (8 * rand(2, 3, *shape)).round() / 8
    pooled = F.max_pool2d(heat, 3, stride=1, padding=1)
    assert torch.equal(decode.keep_peaks(heat), heat * (pooled == heat))
    assert torch.equal(decode.keep_peaks(heat.double()), (heat * (pooled == heat)).double())
    assert torch.equal(decode.keep_peaks(heat.mT.contiguous().mT), heat * (pooled == heat))
    assert torch.equal(decode.keep_peaks(heat[0, 0]), (heat * (pooled == heat))[0, 0])


def test_what_is_no_number_is_no_peak():
    """Not in float32, not in other types; its neighbours may be."""
    heat = torch.full((1, 1, 5, 5), torch.nan)
    assert not decode.keep_peaks(heat).any() and not decode.keep_peaks(heat.double()).any()
    heat[0, 0, 0, 0] = 0.5
    assert not decode.keep_peaks(heat)[0, 0, 1:].any()


def test_top_k_is_a_full_sort():
    """Looking at the best rows only finds the same cells as sorting the whole map."""
    heat = rand(2, C, H, W)
    peaks = decode.top_k(heat, 40)
    for image in range(2):
        order = heat[image].flatten().argsort(descending=True)[:40]
        assert torch.equal(peaks.scores[image], heat[image].flatten()[order])
        assert torch.equal(peaks.classes[image], order // (H * W))
        assert torch.equal(peaks.inds[image], order % (H * W))
        assert torch.equal(peaks.ys[image] * W + peaks.xs[image], (order % (H * W)).float())


def heats_to_search():
    """Logits of many kinds, [2, C, h, w] each, and a K; in most of them more than K peaks have a probability over 0."""
    for seed, (scale, bias, K) in enumerate([(1, -3, 100), (4, -6, 1), (12, -6, 9), (30, 0, 40), (100, 0, 5)] * 4):
        generator = torch.Generator().manual_seed(seed)
        c, h, w = torch.randint(1, 40, (3,), generator=generator).tolist()
        heat = scale * torch.randn(2, c, h, w, generator=generator) + bias
        heat = heat.bfloat16().float() if seed % 3 == 0 else heat  # many of which are equal
        heat = heat.contiguous(memory_format=torch.channels_last) if seed % 2 else heat
        yield heat, K
    yield torch.zeros(2, 3, 6, 7), 5  # one plateau
    yield torch.full((2, 3, 6, 7), -torch.inf), 5
    yield 40 + rand(2, 3, 6, 7), 5  # probabilities that are all 1
    # Two neighbours whose logits differ and whose probabilities do not, which are two peaks.
    pair = torch.full((2, 3, 6, 7), -5.0)
    pair[:, 1, 2, 3], pair[:, 1, 2, 4] = 12.0, 12.0001
    yield pair, 2


def test_best_peaks_are_those_of_the_whole_map(monkeypatch):
    """Searching logits or probabilities in one pass finds what keeping all peaks and sorting finds.

    Scores are equal to the last bit, and so are the cells but for some of the lowest score, of which any may be.
    """
    in_one_pass = []
    search = decode._best_cells

    def watched(*args):
        found = search(*args)
        in_one_pass.append(found is not None)
        return found

    monkeypatch.setattr(decode, '_best_cells', watched)
    for heat, K in heats_to_search():
        before = decode.top_k(decode.keep_peaks(heat.sigmoid()), K)
        for found in (decode.best_peaks(heat, K, logits=True), decode.best_peaks(heat.sigmoid(), K)):
            assert torch.equal(found.scores, before.scores)
            assert torch.equal(found.inds, (found.ys * heat.shape[3] + found.xs).long())
            for image in range(2):
                high = before.scores[image] > before.scores[image, -1]
                places = [peaks.classes[image] * 10**6 + peaks.inds[image] for peaks in (found, before)]
                assert set(places[0][high].tolist()) == set(places[1][high].tolist())
                picked = heat[image].sigmoid()[found.classes[image], found.ys[image].long(), found.xs[image].long()]
                assert torch.equal(picked[found.scores[image] > 0], found.scores[image][found.scores[image] > 0])
    assert 0.6 < sum(in_one_pass) / len(in_one_pass) < 1


def test_peaks_of_an_image_do_not_depend_on_the_others():
    """One of a batch may have too few peaks, or too many that are equal, for the one pass."""
    rich, poor, flat = rand(1, 2, 20, 20, seed=1), torch.zeros(1, 2, 20, 20), torch.full((1, 2, 20, 20), 0.5)
    poor[0, 1, 3:9:3, 4:9:2] = 0.7
    found = [decode._best_cells(image[0], 30, False) is not None for image in (rich, poor, flat)]
    assert found == [True, False, True]
    rounded = (rich * 4).round() / 4
    for maps in ((rich, poor), (poor, rounded, flat, rich), (poor, poor)):
        together = decode.best_peaks(torch.cat(maps), 30)
        for place, alone in enumerate(decode.best_peaks(image, 30) for image in maps):
            for mine, theirs in zip(together, alone, strict=True):
                assert torch.equal(mine[place], theirs[0])


def test_equal_peaks_come_by_class_and_cell():
    """In no matter which layout the maps are."""
    heat = torch.zeros(1, 4, 9, 9)
    places = [(c, y, x) for c in range(4) for y in (1, 4, 7) for x in (0, 4, 8)]
    for c, y, x in places:
        heat[0, c, y, x] = 0.5
    for maps in (heat, heat.contiguous(memory_format=torch.channels_last)):
        found = decode.best_peaks(maps, 20)
        cells = zip(found.classes[0].tolist(), found.ys[0].tolist(), found.xs[0].tolist(), strict=True)
        assert list(cells) == places[:20]


@pytest.mark.parametrize('cat_spec_wh', [False, True])
def test_logits_decode_to_the_same_rows(cat_spec_wh):
    """Where only the peaks are activated; what is traced, and other types, are activated whole."""
    heat, reg = 9 * rand(2, C, H, W, seed=1) - 7, rand(2, 2, H, W, seed=2)
    wh = 8 * rand(2, 2 * C if cat_spec_wh else 2, H, W, seed=3)
    expected = decode.ctdet_decode(heat.sigmoid(), wh, reg, cat_spec_wh, K=9)
    assert torch.equal(decode.ctdet_decode(heat, wh, reg, cat_spec_wh, K=9, logits=True), expected)
    rows = decode.ctdet_decode(heat.double(), wh, reg, cat_spec_wh, K=9, logits=True)
    torch.testing.assert_close(rows.float(), expected)


def maps_with(values, channels):
    """Zero map [1, channels, H, W] with values {(x, y): sequence of `channels` numbers}."""
    maps = torch.zeros(1, channels, H, W)
    for (x, y), value in values.items():
        maps[0, :, y, x] = torch.tensor(value)
    return maps


def test_ctdet_round_trip():
    """Targets of three objects come back as their boxes, scores and classes, best first."""
    boxes = torch.tensor([[1.5, 2.25, 6.0, 9.0], [7.25, 0.5, 11.5, 4.0], [8.0, 5.0, 13.5, 10.5]])
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    cells = [tuple(cell) for cell in centres.int().tolist()]
    classes, scores = [2, 0, 2], [0.7, 0.9, 0.8]
    one_hot = F.one_hot(torch.tensor(classes), C) * torch.tensor(scores)[:, None]  # [3, C]
    heat = maps_with(dict(zip(cells, one_hot.tolist(), strict=True)), C)
    wh = maps_with(dict(zip(cells, sizes.tolist(), strict=True)), 2)
    reg = maps_with(dict(zip(cells, (centres - centres.int()).tolist(), strict=True)), 2)
    rows = decode.ctdet_decode(heat, wh, reg, K=3)[0]
    best_first = [1, 2, 0]
    assert torch.allclose(rows[:, :4], boxes[best_first])
    assert torch.allclose(rows[:, 4], torch.tensor(scores)[best_first])
    assert rows[:, 5].tolist() == [0, 2, 2]
    middle = decode.ctdet_decode(heat, wh, None, K=3)[0, :, :4]
    assert torch.allclose((middle[:, :2] + middle[:, 2:]) / 2, centres[best_first].floor() + 0.5)


def test_category_specific_sizes():
    """Each detection reads the two size channels of its own class."""
    _, maps, _ = decoder_cases()['catspec']
    rows = decode.ctdet_decode(**maps, cat_spec_wh=True, K=9)
    for image, row in itertools.product(range(2), range(9)):
        x1, y1, x2, y2, _, k = rows[image, row].tolist()
        x, y, k = int((x1 + x2) / 2), int((y1 + y2) / 2), int(k)
        size = maps['wh'][image, 2 * k : 2 * k + 2, y, x]
        assert torch.allclose(size, torch.tensor([x2 - x1, y2 - y1]), atol=1e-5)


def slow_joints(image, row, maps, K):
    """Joints and their scores of one detection, the published rule spelt out. `row` is its box, x and y cell."""
    (x1, y1, x2, y2), x, y = row
    joints, scores = [], []
    for j in range(J):
        at = torch.stack([x + maps['kps'][image, 2 * j, y, x], y + maps['kps'][image, 2 * j + 1, y, x]])
        heat = maps['hm_hp'][image, j]
        pooled = F.max_pool2d(heat[None], 3, stride=1, padding=1)[0]
        cells = (heat * (pooled == heat)).flatten().argsort(descending=True)[:K].tolist()
        nearest = None
        for v, u in (divmod(cell, W) for cell in cells):
            if heat[v, u] <= 0.1 or pooled[v, u] != heat[v, u]:
                continue
            point = torch.tensor([u, v]) + (maps['hp_offset'][image, :, v, u] if 'hp_offset' in maps else 0.5)
            if nearest is None or (point - at).norm() < (nearest[0] - at).norm():
                nearest = point, heat[v, u]
        point, score = nearest
        inside = x1 <= point[0] <= x2 and y1 <= point[1] <= y2
        if inside and (point - at).norm() <= 0.3 * max(x2 - x1, y2 - y1):
            at = point
        else:
            u, v = at.floor().int().tolist()
            score = heat[v, u] if 0 <= u < W and 0 <= v < H else torch.zeros(())
        joints.append(at)
        scores.append(score)
    return torch.stack(joints), torch.stack(scores)


@pytest.mark.parametrize('offset', [True, False])
def test_multi_pose_snaps_as_the_rule_says(offset):
    """Joints, snapped or not, and their scores agree with the rule spelt out joint by joint."""
    _, maps, _ = decoder_cases()['multi_pose']
    if not offset:
        del maps['hp_offset']
    rows, scores = decode.multi_pose_decode(**maps, K=9, return_keypoint_scores=True)
    assert rows.shape == (2, 9, 4 + 1 + 2 * J + 1) and scores.shape == (2, 9, J)
    assert torch.equal(rows, decode.multi_pose_decode(**maps, K=9))
    boxes = decode.ctdet_decode(maps['heat'], maps['wh'], maps['reg'], K=9)
    assert torch.equal(rows[..., :5], boxes[..., :5]) and torch.equal(rows[..., -1], boxes[..., -1])
    bare = decode.multi_pose_decode(maps['heat'], maps['wh'], maps['kps'], maps['reg'], K=9)
    moved = (rows != bare)[..., 5:-1]
    assert 0.05 < moved.float().mean() < 0.95  # both branches are exercised
    peaks = decode.top_k(decode.keep_peaks(maps['heat']), 9)
    for image, k in itertools.product(range(2), range(9)):
        cell = int(peaks.xs[image, k]), int(peaks.ys[image, k])
        joints, expected = slow_joints(image, (boxes[image, k, :4], *cell), maps, 9)
        assert torch.allclose(rows[image, k, 5:-1].view(J, 2), joints, atol=1e-5)
        assert torch.allclose(scores[image, k], expected, atol=1e-6)


def test_multi_pose_without_joint_maps():
    """Joints then are the integer centre plus the regression; their score is the person's."""
    heat = maps_with({(4, 6): [0.9]}, 1)
    kps = maps_with({(4, 6): [-1.5, 2.25, 30.0, -20.0]}, 4)
    rows, scores = decode.multi_pose_decode(
        heat, torch.ones(1, 2, H, W), kps, torch.full((1, 2, H, W), 0.75), K=1, return_keypoint_scores=True
    )
    assert rows[0, 0, 5:9].tolist() == [2.5, 8.25, 34.0, -14.0]
    assert torch.allclose(scores, torch.full((1, 1, 2), 0.9))


def test_multi_pose_without_any_joint_peak():
    """Empty joint maps leave the joints as regressed, with no score."""
    _, maps, _ = decoder_cases()['multi_pose']
    empty = {**maps, 'hm_hp': torch.full_like(maps['hm_hp'], 0.05)}
    rows, scores = decode.multi_pose_decode(**empty, K=9, return_keypoint_scores=True)
    bare = decode.multi_pose_decode(maps['heat'], maps['wh'], maps['kps'], maps['reg'], K=9)
    assert torch.equal(rows, bare)
    assert ((scores == 0) | (scores == 0.05)).all()


def test_ddd_round_trip():
    """Every head's numbers land in their columns; the 2D size is left out where there is no such head."""
    heat = maps_with({(9, 3): [0.0, 0.9, 0.0]}, C)
    rot, dim = [0.1, 0.9, 0.5, -0.5, 0.8, 0.2, -0.25, 0.75], [1.5, 1.6, 4.0]
    maps = [maps_with({(9, 3): value}, len(value)) for value in (rot, [22.5], dim, [6.0, 4.0], [0.25, 0.5])]
    expected = [9.25, 3.5, 0.9, *rot, 22.5, *dim, 6.0, 4.0, 1.0]
    rows = decode.ddd_decode(heat, *maps, K=1)
    assert torch.allclose(rows, torch.tensor([[expected]]))
    bare = decode.ddd_decode(heat, *maps[:3], K=1)
    assert torch.allclose(bare, torch.tensor([[[9.5, 3.5, *expected[2:15], 1.0]]]))


def lattice(maps, agnostic, K, num_dets, scores_thresh, center_thresh, aggr_weight=0.0):
    """The published K^4 form for a batch of one, as sorted rows with positive scores."""
    sides = []
    for side in 'tlbr':
        heat = maps[f'{side}_heat']
        if aggr_weight:
            heat = slow_aggregation(heat, side in 'tb', aggr_weight)
        peaks = decode.top_k(decode.keep_peaks(heat).clamp(max=1), K)
        shifts = transpose_and_gather_feat(maps[f'{side}_regr'], peaks.inds)[0].tolist()
        fields = (peaks.xs, peaks.ys, peaks.scores, peaks.classes)
        sides.append(list(zip(*(field[0].tolist() for field in fields), shifts, strict=True)))
    ct_heat, rows = maps['ct_heat'][0], []
    for quad in itertools.product(*sides):
        x, y, score, label, shift = zip(*quad, strict=True)
        row, column = int((y[0] + y[2] + 0.5) / 2), int((x[1] + x[3] + 0.5) / 2)
        if agnostic:
            label = [int(ct_heat[:, row, column].argmax())] * 4
        centre = float(ct_heat[label[0], row, column])
        possible = y[0] == min(y) and x[1] == min(x) and y[2] == max(y) and x[3] == max(x)
        if possible and len(set(label)) == 1 and min(score) >= scores_thresh and centre >= center_thresh:
            points = [(u + a, v + b) for u, v, (a, b) in zip(x, y, shift, strict=True)]
            box = [points[1][0], points[0][1], points[3][0], points[2][1]]
            rows.append([*box, (sum(score) + 2 * centre) / 6, *itertools.chain(*points), label[0]])
    return torch.tensor(sorted(rows, key=lambda row: -row[4])[:num_dets])


def slow_aggregation(heat, along_rows, weight):
    """Edge aggregation cell by cell."""
    if not along_rows:
        return slow_aggregation(heat.transpose(2, 3), True, weight).transpose(2, 3)
    heat = heat.contiguous()
    result = heat.clone()
    for out, line in zip(result.flatten(0, 2), heat.flatten(0, 2), strict=True):
        for order in (range(len(line)), range(len(line) - 1, -1, -1)):
            run, last = 0.0, None
            for i in order:
                run = run if last is not None and line[i] >= line[last] else 0.0
                out[i] += weight * run
                run, last = run + line[i], i
    return result


@pytest.mark.parametrize('name', ['exct', 'agnex'])
def test_extreme_points_are_the_lattice(name, monkeypatch):
    """Ruling out pair by pair, in one piece or in many, gives the rows of the published K^4 lattice."""
    decoder, maps, options = decoder_cases(batch=1)[name]
    expected = lattice(maps, name == 'agnex', **options)
    assert len(expected) > 10 and len(expected[:, 13].unique()) > 1
    for limit in (1 << 20, 1):
        monkeypatch.setattr(decode, 'LATTICE_LIMIT', limit)
        rows = decoder(**maps, **options)[0]
        assert torch.allclose(rows[: len(expected)], expected, atol=1e-5)
        assert not rows[len(expected) :].any()


def test_memory_of_extreme_points_is_bounded(monkeypatch):
    """Where every one of the 40^4 fours is possible, no more than LATTICE_LIMIT of them are ranked together."""
    top_k, sizes = torch.Tensor.topk, []
    monkeypatch.setattr(torch.Tensor, 'topk', lambda self, k: sizes.append(self.numel()) or top_k(self, k))
    heats = [torch.zeros(1, 1, 128, 128) for _ in range(4)]
    for k in range(40):
        near, along = 10 + 2 * (k // 20), 40 + 2 * (k % 20)
        for heat, y, x in zip(heats, (near, along, 127 - near, along), (along, near, along, 127 - near), strict=True):
            heat[0, 0, y, x] = 0.5 + 0.01 * k
    rows = decode.exct_decode(*heats, torch.ones(1, 1, 128, 128))
    assert max(sizes) <= decode.LATTICE_LIMIT < 40**4 / 8
    assert sum(size for size in sizes if size > decode.LATTICE_LIMIT / 2) > 0.9 * 40**4
    scores = [0.5 + 0.01 * k for k in range(39, 30, -1)]
    best = sorted((sum(four) for four in itertools.product(scores, repeat=4)), reverse=True)[:100]
    torch.testing.assert_close(rows[0, :100, 4], (torch.tensor(best) + 2) / 6)
    assert (rows[0, :, 4] > 0).all()


@pytest.mark.parametrize('dim', [2, 3])
def test_edge_aggregation(dim):
    """Runs gather along the asked direction only, ties continue a run, a cell's own heat is not counted."""
    heat = (4 * rand(1, 2, H, W)).round() / 4
    assert torch.allclose(decode.aggregate_edges(heat, dim, 0.3), slow_aggregation(heat, dim == 3, 0.3), atol=1e-5)


def test_extreme_points_round_trip():
    """One object of each of two classes comes back from its four points and its centre."""
    points = {0: [(4, 1), (1, 3), (5, 7), (8, 4)], 2: [(10, 2), (9, 5), (11, 9), (13, 8)]}
    heats = [
        maps_with({p[side]: [float(k == k2) for k2 in range(C)] for k, p in points.items()}, C) for side in range(4)
    ]
    ct_heat = maps_with({(4, 4): [0.5, 0.0, 0.0], (11, 5): [0.0, 0.0, 0.8]}, C)
    rows = decode.exct_decode(*heats, ct_heat, num_dets=5)[0]
    assert torch.allclose(rows[:2, 4], torch.tensor([5.6 / 6, 5.0 / 6]))
    assert rows[:2, :4].tolist() == [[9.5, 2.5, 13.5, 9.5], [1.5, 1.5, 8.5, 7.5]]
    assert rows[1, 5:13].tolist() == [v + 0.5 for point in points[0] for v in point]
    assert rows[:2, 13].tolist() == [2, 0] and not rows[2:].any()


def test_aggregated_heat_stays_a_probability():
    """The ends of a row of 0.9 gather more than 1 in the top and bottom maps, and count as 1."""
    edge = torch.zeros(1, 1, H, W)
    edge[..., 4, 3:9] = 0.9
    rows = decode.exct_decode(edge, edge, edge, edge, torch.ones(1, 1, H, W), aggr_weight=0.5, num_dets=9)
    assert rows[..., 4].max().item() == pytest.approx((1 + 0.9 + 1 + 0.9 + 2) / 6)


def test_extreme_points_of_an_empty_picture():
    """Without a point over the threshold all rows are zero, and there are as many as asked."""
    rows = decode.exct_decode(*[torch.full((2, C, H, W), 0.01)] * 5, num_dets=7)
    assert rows.shape == (2, 7, 14) and not rows.any()


def test_gather_reads_cells():
    """[B, C, h, w] at y * w + x, for every channel."""
    feat, ind = rand(2, C, H, W), torch.tensor([[0, 5 * W + 3], [H * W - 1, W]])
    got = transpose_and_gather_feat(feat, ind)
    assert torch.equal(got[0, 1], feat[0, :, 5, 3]) and torch.equal(got[1, 0], feat[1, :, -1, -1])


def test_mirrored_maps():
    """Mirroring swaps the pairs, negates x offsets, leaves unpaired joints, and undoes itself."""
    maps, offsets, pairs = rand(2, J, H, W), rand(2, 2 * J, H, W), [[1, 2], [3, 4]]
    assert torch.equal(flip_tensor(maps)[..., 0], maps[..., -1])
    assert torch.equal(flip_lr(maps, pairs)[:, 1], flip_tensor(maps)[:, 2])
    assert torch.equal(flip_lr(maps, pairs)[:, 0], flip_tensor(maps)[:, 0])
    mirrored = flip_lr_off(offsets, pairs)
    assert torch.equal(mirrored[:, 6], -flip_tensor(offsets)[:, 8])
    assert torch.equal(mirrored[:, 7], flip_tensor(offsets)[:, 9])
    assert torch.equal(flip_lr(flip_lr(maps, pairs), pairs), maps)
    assert torch.equal(flip_lr_off(mirrored, pairs), offsets)
