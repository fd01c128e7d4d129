#!/usr/bin/env python3
"""Makes tests/golden/analysis: a small made-up data set, and what independent programs say of it and of others.

    python3 tools/golden_tide.py tests/golden/analysis [DIR with data/coco_eval]

Needs numpy, pycocotools and tidecv (with --no-deps and opencv-python-headless, which is all of OpenCV that it uses).
TIDE's numbers are tidecv's. Counts, best thresholds, the confusion matrix and the bins are recounted here, from the
matches that pycocotools makes. Averages over draws of images are pycocotools' on a file in which each image stands as
often as it was drawn. The larger sets are read from DIR, and only results about them are written.
"""
import contextlib
import io
import json
import os
import sys

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tidecv import TIDE, Data

SIDES = [0, 16, 32, 64, 96, 128, 256, 512, float('inf')]
CROWDS = [0, 1, 2, 4, 8, 16]


def small(rng):
    """Truths and two results files with every kind of error. Scores are equal across images, not within one."""
    categories = [{'id': k, 'name': f'kind {k}'} for k in (1, 2, 3, 5, 8, 9)]  # 8 has no truth, 9 no detection
    images, truths, results = [{'id': i, 'width': 640, 'height': 480} for i in range(1, 41)], [], ([], [])

    def box():
        side = 8 * 60 ** rng.random()
        w, h = side * rng.uniform(.6, 1.6), side * rng.uniform(.6, 1.6)
        return [rng.uniform(0, 640 - min(w, 600)), rng.uniform(0, 480 - min(h, 460)), w, h]

    def near(bbox, by):
        x, y, w, h = bbox
        return [x + by * w * rng.normal(), y + by * h * rng.normal(), w * np.exp(by * rng.normal()),
                h * np.exp(by * rng.normal())]

    for image in images:
        scores = [list(rng.permutation(np.arange(1, 100)) / 100) for _ in results]
        for _ in range(int(rng.choice([0, 1, 2, 3, 6, 12, 18], p=[.1, .2, .2, .2, .15, .1, .05]))):
            kind, bbox, crowd = int(rng.choice([1, 2, 3, 5, 9], p=[.4, .2, .2, .15, .05])), box(), rng.random() < .08
            truths.append({'id': len(truths) + 1, 'image_id': image['id'], 'category_id': kind, 'bbox': bbox,
                           'area': bbox[2] * bbox[3] * .7, 'iscrowd': int(crowd)})
            for own, left, by in zip(results, scores, (.1, .14)):
                for _ in range(int(rng.choice([0, 1, 2, 3], p=[.15, .5, .25, .1])) + 3 * crowd):
                    named = kind if rng.random() < .8 else int(rng.choice([1, 2, 3, 5, 8]))
                    if left and named != 9:
                        own.append({'image_id': image['id'], 'category_id': named,
                                    'bbox': near(bbox, by), 'score': float(left.pop())})
        for own, left in zip(results, scores):
            for _ in range(int(rng.integers(0, 3))):
                if left:
                    own.append({'image_id': image['id'], 'category_id': int(rng.choice([1, 2, 3, 5, 8])), 'bbox': box(),
                                'score': float(left.pop()) / 2})
    for entry in [*truths, *results[0], *results[1]]:
        entry['bbox'] = [round(float(x), 2) for x in entry['bbox']]
        if 'area' in entry:
            entry['area'] = round(entry['area'], 2)
    return {'images': images, 'categories': categories, 'annotations': truths}, *results


def evaluated(gt, results):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = gt
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes([dict(r) for r in results]), 'bbox')
        run.evaluate()
        run.accumulate()
    return run


def by_tide(gt, results):
    truth, found = Data('truth', max_dets=100), Data('found', max_dets=100)
    for image in sorted(image['id'] for image in gt['images']):
        truth.add_image(image, str(image))
    for category in gt['categories']:
        truth.add_class(category['id'], category['name'])
    for a in gt['annotations']:
        add = truth.add_ignore_region if a['iscrowd'] else truth.add_ground_truth
        add(a['image_id'], a['category_id'], a['bbox'])
    for r in results:
        found.add_detection(r['image_id'], r['category_id'], r['score'], r['bbox'])
    run = TIDE(pos_threshold=.5, background_threshold=.1).evaluate(truth, found, mode=TIDE.BOX)
    main, special = run.fix_main_errors(), run.fix_special_errors()
    return {'ap': float(run.ap), 'gains': {e.short_name: float(v) for e, v in main.items()},
            'counts': {e.short_name: v for e, v in run.count_errors().items()},
            'special': {e.short_name: float(v) for e, v in special.items()}}


def counted(run, gt, results):
    """Best thresholds, confusion and bins from the matches at IoU 0.5, in the area range of all sizes."""
    names = run.params.catIds
    rows, truths = [], []  # rows: category, image, score, hit, miss, truth's id, detection's id
    for cell in (e for e in run.evalImgs if e is not None and e['aRng'] == run.params.areaRng[0]):
        kind, image = names.index(cell['category_id']), cell['image_id']
        for d, score, match, out in zip(cell['dtIds'], cell['dtScores'], cell['dtMatches'][0], cell['dtIgnore'][0]):
            rows.append((kind, image, score, bool(match) and not out, not match and not out, int(match), d))
        truths += [(kind, image, g) for g, out in zip(cell['gtIds'], cell['gtIgnore']) if not out]

    def point(rows, count, score):
        tp, fp = (sum(r[i] for r in rows if r[2] >= score) for i in (3, 4))
        return {'score': score, 'tp': int(tp), 'fp': int(fp), 'fn': int(count - tp)}

    def best(rows, count):
        scores = sorted({r[2] for r in rows}, reverse=True)
        points = [p for p in (point(rows, count, s) for s in scores) if p['tp']]
        return max(points, key=lambda p: 2 * p['tp'] / (2 * p['tp'] + p['fp'] + p['fn'])) if points else None

    overall = best(rows, len(truths))
    kinds = range(len(names))
    per_category = [best([r for r in rows if r[0] == k], sum(t[0] == k for t in truths)) for k in kinds]
    at = overall['score']
    annotations = {a['id']: a for a in gt['annotations']}

    def confusion(score):
        matrix = np.zeros((len(names) + 1, len(names) + 1), int)
        kept = [r for r in rows if r[2] >= score]
        hit = {r[5] for r in kept if r[3]}
        for r in kept:
            matrix[r[0], r[0]] += r[3]
        for image in run.params.imgIds:
            free = sorted((t for t in truths if t[1] == image and t[2] not in hit),
                          key=lambda t: (t[0], run.cocoGt.getAnnIds(imgIds=[image]).index(t[2])))
            wrong = sorted((r for r in kept if r[1] == image and r[4]), key=lambda r: -r[2])
            for r in wrong:
                bbox = results[r[6] - 1]['bbox']
                over = [(mask.iou([bbox], [annotations[t[2]]['bbox']], [0])[0, 0], i) for i, t in enumerate(free)
                        if t[0] != r[0]]
                over = max(over, default=(0, 0))
                matrix[free.pop(over[1])[0] if over[0] >= .5 else -1, r[0]] += 1
            for t in free:
                matrix[t[0], -1] += 1
        return [[int(i), int(j), int(matrix[i, j])] for i, j in zip(*matrix.nonzero())]

    kept = [r for r in rows if r[2] >= at]

    def size(low, high):
        def inside(area):
            return low * low <= area < high * high
        hits = {r[5] for r in kept if r[3]}
        areas = [(annotations[t[2]]['area'], t[2] in hits) for t in truths]
        found = [(np.prod(results[r[6] - 1]['bbox'][2:]), r[3]) for r in kept if r[3] or r[4]]
        return [sum(inside(a) for a, _ in areas), sum(inside(a) and h for a, h in areas),
                int(sum(inside(a) for a, _ in found)), int(sum(inside(a) and h for a, h in found))]

    def crowd(low, high):
        on = {i for i in run.params.imgIds if low <= sum(t[1] == i for t in truths) < high}
        here = [r for r in kept if r[1] in on]
        return [len(on), sum(t[1] in on for t in truths), int(sum(r[3] for r in here)), int(sum(r[4] for r in here))]

    return {'overall': overall, 'per_category': per_category, 'confusion': confusion(at), 'confusion_all': confusion(0),
            'sizes': [size(*pair) for pair in zip(SIDES, SIDES[1:])],
            'crowds': [crowd(*pair) for pair in zip(CROWDS, [*CROWDS[1:], 10**9])]}


def drawn(gt, results, weights):
    """AP and AP50 of all and of each category where image i stands weights[i] times."""
    ids = sorted(image['id'] for image in gt['images'])
    new = {'images': [], 'categories': gt['categories'], 'annotations': []}
    found = []
    for image, weight in zip(ids, weights):
        for _ in range(weight):
            number = len(new['images']) + 1
            new['images'].append({'id': number})
            for a in gt['annotations']:
                if a['image_id'] == image:
                    new['annotations'].append({**a, 'image_id': number, 'id': len(new['annotations']) + 1})
            found += [{**r, 'image_id': number} for r in results if r['image_id'] == image]
    precision = evaluated(new, found).eval['precision'][:, :, :, 0, 2]

    def mean(x):
        return float(x[x > -1].mean()) if (x > -1).any() else -1
    return {'ap': mean(precision), 'ap50': mean(precision[0]),
            'per_category': [mean(precision[:, :, k]) for k in range(precision.shape[2])]}


def main():
    out, kit = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    rng = np.random.default_rng(7)
    gt, first, second = small(rng)
    sets = {'small': (gt, first)}
    if kit:
        for name, truth, found in (('val2014_100', 'instances_val2014_100', 'instances_val2014_fakebbox100_results'),
                                   ('mAP85', 'mAP85_gt', 'mAP85_dets')):
            paths = (os.path.join(kit, 'data', 'coco_eval', f + '.json') for f in (truth, found))
            sets[name] = tuple(json.load(open(path)) for path in paths)
    expected = {'sets': {}, 'draws': []}
    for name, (truth, found) in sets.items():
        expected['sets'][name] = {'tide': by_tide(truth, found),
                                  **counted(evaluated(truth, found), truth, found)}
    for _ in range(4):
        weights = np.bincount(rng.integers(0, len(gt['images']), len(gt['images'])), minlength=len(gt['images']))
        weights = [int(w) for w in weights]
        expected['draws'].append({'weights': weights, 'first': drawn(gt, first, weights),
                                  'second': drawn(gt, second, weights)})
    os.makedirs(out, exist_ok=True)
    for name, value in (('small_gt', gt), ('small_first', first), ('small_second', second), ('expected', expected)):
        with open(os.path.join(out, name + '.json'), 'w') as file:
            json.dump(value, file, separators=(',', ':'))
            file.write('\n')


if __name__ == '__main__':
    main()
