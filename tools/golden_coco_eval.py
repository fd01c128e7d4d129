#!/usr/bin/env python3
"""Writes tests/golden/coco_eval.json: small box sets and what pycocotools says of them.

Run it where pycocotools is installed, after adding a case: python3 tools/golden_coco_eval.py
Each case is about one oddity of pycocotools that an evaluator gets wrong easily.
"""
import contextlib, copy, io, json, os, random, tempfile
from importlib.metadata import version

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAN = float('nan')
OUT = os.path.join(os.path.dirname(__file__), '..', 'tests', 'golden', 'coco_eval.json')


def truth(id, image, category, bbox, area=None, crowd=0):
    return dict(id=id, image_id=image, category_id=category, bbox=bbox, iscrowd=crowd,
                area=bbox[2] * bbox[3] if area is None else area)


def found(image, category, bbox, score):
    return dict(image_id=image, category_id=category, bbox=bbox, score=score)


def file(annotations, images=(1, 2, 3), categories=(1, 2)):
    return dict(images=[dict(id=i) for i in images], annotations=annotations,
                categories=[dict(id=c, name=f'class {c}') for c in categories])


def cases():
    truths = [truth(1, 1, 1, [10, 10, 50, 60]), truth(2, 2, 1, [30, 40, 20, 20]), truth(3, 3, 2, [5, 5, 120, 100])]
    dets = [found(1, 1, [12, 10, 50, 60], .9), found(2, 1, [30, 44, 20, 20], .8), found(3, 2, [0, 5, 120, 100], .7),
            found(2, 2, [1, 1, 30, 30], .95)]
    yield 'plain', file(truths), dets
    yield 'one hit: precision is one unit short of 1', file(truths[:1], [1], [1]), dets[:1]
    yield 'id 0 reads as unmatched', file([dict(truths[0], id=0)] + truths[1:]), dets
    yield 'crowd with id 0', file([truth(0, 1, 1, [0, 0, 300, 300], crowd=1)] + truths[1:]), dets
    yield 'two annotations with one id, one image', file([truths[0], dict(truths[0], bbox=[100, 100, 50, 60]), truths[2]]), dets
    yield 'two annotations with one id, two images', file([truths[0], dict(truths[1], id=1), truths[2]]), dets
    yield 'NaN in boxes matches', file(truths + [truth(4, 2, 2, [NAN, 10, 50, 60], 3000)]), dets + [found(1, 1, [300, NAN, 5, 5], .99)]
    yield 'NaN score goes last', file(truths), [dict(dets[0], score=NAN), found(1, 1, [200, 200, 9, 9], .1)] + dets[1:]
    yield 'boxes whose areas underflow', file([truth(1, 1, 1, [0, 0, 1e-200, 1e-200])]), [found(1, 1, [0, 0, 1e-200, 1e-200], .5)]
    yield 'areas on the edges of the ranges', file([truth(i + 1, 1, 1, [40 * i, 0, 32, 32], a) for i, a in enumerate([1024, 1024.0000000001, 9216, 9216.000000001, 1e10, 1e10 + 1, NAN])]), \
        [found(1, 1, [40 * i + 1, 0, 32, 32], .9 - .1 * i) for i in range(7)]
    yield 'IoU on each threshold', file([truth(i + 1, i + 1, 1, [0, 0, 100, 100]) for i in range(10)], range(1, 11)), \
        [found(i + 1, 1, [0, 0, 100, 50 + 5 * i], .9 - .01 * i) for i in range(10)]
    yield 'recalls on the sampling points', file([truth(i + 1, 1 + i % 10, 1, [50 * (i // 10), 0, 40, 40]) for i in range(100)], range(1, 11)), \
        [found(1 + i % 10, 1, [50 * (i // 10), 0 if i % 3 else 60, 40, 40], (i * 37 % 100) / 100) for i in range(100)]
    yield 'equal scores', file(truths + [truth(4, 1, 1, [15, 10, 50, 60])]), [found(i, 1, [10 + d, 10, 50, 60], .5) for i in (3, 1, 2) for d in (9, 2, 4)]
    yield 'a crowd takes any number, a real box wins over it', file(truths + [truth(4, 1, 1, [0, 0, 200, 200], 30000, 1)]), \
        dets + [found(1, 1, [100 + i, 100, 20, 20], .6 + .01 * i) for i in range(8)]
    yield 'iscrowd 2', file(truths + [truth(4, 1, 1, [0, 0, 200, 200], 30000, 2)]), dets + [found(1, 1, [100, 100, 20, 20], .96)]
    yield 'negative sides, unlisted category, truth on unlisted image', file(truths + [truth(9, 77, 1, [1, 1, 9, 9])]), \
        dets + [found(1, 1, [60, 10, -50, 60], .97), found(1, 9, [1, 1, 9, 9], .98)]
    yield 'no truth at all', file([]), dets
    yield 'images out of order, listed twice', file(truths, [3, 1, 2, 2], [2, 1, 1]), dets
    names = {1: 'b', 2: 'a10', 3: 'a9'}
    yield 'ids that are texts', file([dict(t, image_id=names[t['image_id']], category_id=f"c{t['category_id']}") for t in truths], names.values(), ['c2', 'c1']), \
        [dict(d, image_id=names[d['image_id']], category_id=f"c{d['category_id']}") for d in dets]
    big = {1: -5, 2: 2 ** 53, 3: 2 ** 53 + 1}
    yield 'ids beyond 2^53, below 0 and as fractions', file([dict(t, id=t['id'] + 2 ** 60, image_id=big[t['image_id']]) for t in truths], big.values()), \
        [dict(d, image_id=big[d['image_id']], category_id=float(d['category_id'])) for d in dets]
    rng = random.Random(7)
    box = lambda: [4 * rng.randrange(20), 4 * rng.randrange(20), 4 * rng.randrange(1, 20), 4 * rng.randrange(1, 20)]
    yield 'more than 100 of one category on an image', file([truth(i + 1, 1, 1, box()) for i in range(20)]), \
        [found(1, 1, box(), rng.randrange(40) / 40) for _ in range(130)]
    yield 'crowded', file([truth(i + 1, rng.randrange(1, 4), rng.randrange(1, 3), box(), crowd=int(rng.random() < .1)) for i in range(40)]), \
        [found(rng.randrange(1, 4), rng.randrange(1, 3), box(), rng.randrange(30) / 30) for _ in range(120)]


def pycocotools(gt, dt):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = [os.path.join(folder, n) for n in ('gt.json', 'dt.json')]
        for path, value in zip(paths, (gt, dt)):
            with open(path, 'w') as f:
                json.dump(value, f)
        truth = COCO(paths[0])
        run = COCOeval(truth, truth.loadRes(paths[1]), 'bbox')
        run.evaluate(); run.accumulate(); run.summarize()
    category = lambda k: [x for x in run.eval['precision'][:, :, k, 0, -1].ravel().tolist() if x > -1]
    means = [sum(v) / len(v) if v else -1.0 for v in map(category, range(len(run.params.catIds)))]
    return dict(stats=[float(x) for x in run.stats], ap_by_category=means)


if __name__ == '__main__':
    # The files are kept as text, since NaN is no JSON to most readers.
    written = [dict(name=name, annotations=json.dumps(gt), results=json.dumps(dt), **pycocotools(copy.deepcopy(gt), copy.deepcopy(dt)))
               for name, gt, dt in cases()]
    with open(OUT, 'w') as f:
        json.dump(dict(made_by='tools/golden_coco_eval.py', pycocotools=version('pycocotools'), numpy=version('numpy'), cases=written), f, indent=1)
        f.write('\n')
    print(len(written), 'cases in', os.path.normpath(OUT))
