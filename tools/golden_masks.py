#!/usr/bin/env python3
"""Writes tests/golden/masks.json: outlines, runs and overlaps of masks as pycocotools has them.

Run it where pycocotools is installed, after adding a case:

    python3 tools/golden_masks.py
    python3 tools/golden_masks.py --kit DIR     # also the digests of the real masks in DIR/data/coco_eval
    python3 tools/golden_masks.py --seed 5 --times 200 --out FILE     # many more cases, to try once

Without --kit the digests of the present file are kept.
"""
import argparse, hashlib, json, os, random, struct
from collections import defaultdict
from importlib.metadata import version

import numpy as np
import pycocotools.mask as api

OUT = os.path.join(os.path.dirname(__file__), '..', 'tests', 'golden', 'masks.json')


def facts(rle):
    """A mask as tests compare it: text, area, box."""
    text = rle['counts'] if isinstance(rle['counts'], str) else rle['counts'].decode()
    return dict(counts=text, area=int(api.area(rle)), bbox=api.toBbox(rle).tolist())


def outline(rng, h, w):
    """A polygon of one of many kinds."""
    kind = rng.randrange(12)
    digits = rng.choice([0, 1, 2, 2, 2, 15])
    n = rng.choice([3, 3, 4, 5, 8, 15])
    if kind < 4:      # anywhere, crossing itself
        xs, ys = (0, w), (0, h)
    elif kind == 4:   # tiny
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        xs, ys = (x, x + .5), (y, y + .5)
    elif kind == 5:   # far outside on all sides
        xs, ys = (-20 * w, 20 * w), (-20 * h, 20 * h)
    elif kind == 6:   # a little outside
        xs, ys = (-.3 * w - 1, 1.3 * w + 1), (-.3 * h - 1, 1.3 * h + 1)
    elif kind == 7:   # not in the image at all
        xs, ys = (w + 1, 3 * w + 5), (0, h)
    elif kind == 8:   # flat
        y = rng.uniform(0, h)
        xs, ys = (0, w), (y, y)
    elif kind == 9:   # thin
        x = rng.uniform(0, w)
        xs, ys = (x, x + .3), (0, h)
    elif kind == 10:  # a point
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        xs, ys = (x, x), (y, y)
    else:             # huge
        xs, ys = (-3e5, 3e5), (-3e5, 3e5)
    points = [[round(rng.uniform(*xs), digits), round(rng.uniform(*ys), digits)] for _ in range(n)]
    if rng.random() < .2:  # a point given twice
        points.insert(rng.randrange(n), points[rng.randrange(n)])
    if rng.random() < .1:  # there and back again
        points += points[::-1]
    if rng.random() < .1:  # on the middles of pixels, where the rounding is decided
        points = [[int(x) + .5, int(y) + .5] for x, y in points]
    return [v for p in points for v in p]


def size(rng):
    return rng.choice([(1, 1), (1, 17), (13, 1), (7, 5), (20, 30), (48, 64), (100, 75), (480, 640)])


def polygons(rng, times):
    for _ in range(90 * times):
        h, w = size(rng)
        polys = [outline(rng, h, w) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
        if sum(len(p) for p in polys) > 120:
            continue
        rles = api.frPyObjects(polys, h, w)
        yield dict(size=[h, w], polygons=polys, **facts(api.merge(rles)))


def boxes(rng, times):
    for _ in range(25 * times):
        h, w = size(rng)
        digits = rng.choice([0, 1, 2])
        value = lambda low, high: round(rng.uniform(low, high), digits)
        box = [value(-w / 4, w), value(-h / 4, h), value(-w / 4, w), value(-h / 4, h)]
        rle = api.frPyObjects(np.array([box], dtype=np.double), h, w)[0]
        yield dict(size=[h, w], box=box, **facts(rle))


def runs(rng, h, w):
    """Runs that fill h x w, some of them empty."""
    longest = rng.choice([1, 3, 40, h * w])
    left, counts = h * w, []
    while left > 0 and len(counts) < 30:
        n = min(left, rng.randrange(longest + 1))
        counts.append(n)
        left -= n
    return counts + [left] if left or rng.random() < .1 else counts


def lists(rng, times):
    for _ in range(45 * times):
        h, w = size(rng)
        counts = runs(rng, h, w)
        yield dict(size=[h, w], list=counts, **facts(api.frPyObjects(dict(size=[h, w], counts=counts), h, w)))


def some_mask(rng, h, w, empty_runs=True):
    if rng.random() < .3:
        counts = runs(rng, h, w)
        if empty_runs or 0 not in counts[1:]:
            return api.frPyObjects(dict(size=[h, w], counts=counts), h, w)
    return api.frPyObjects([outline(rng, h, w)], h, w)[0]


def text(rle):
    return rle['counts'].decode()


def merges(rng, times):
    for _ in range(20 * times):
        h, w = size(rng)
        # Where empty runs meet, pycocotools makes masks on which it hangs.
        masks = [some_mask(rng, h, w, False) for _ in range(rng.choice([1, 2, 2, 3, 5]))]
        if sum(len(m['counts']) for m in masks) > 300:
            continue
        yield dict(size=[h, w], masks=[text(m) for m in masks],
                   union=text(api.merge(masks)), intersection=text(api.merge(masks, True)))


def overlaps(rng, times):
    for _ in range(25 * times):
        h, w = size(rng)
        found = [some_mask(rng, h, w) for _ in range(rng.randrange(1, 5))]
        truths = [some_mask(rng, h, w) for _ in range(rng.randrange(1, 5))]
        if rng.random() < .5:
            truths[0] = found[0]
        if sum(len(m['counts']) for m in found + truths) > 500:
            continue
        crowd = [int(rng.random() < .4) for _ in truths]
        ious = api.iou(found, truths, crowd)
        yield dict(size=[h, w], detections=[text(m) for m in found], truths=[text(m) for m in truths],
                   crowd=crowd, ious=ious.ravel().tolist())


def kit(folder):
    """Digests over all real masks and overlaps; the test writes the same lines."""
    load = lambda name: json.load(open(os.path.join(folder, 'data', 'coco_eval', name)))
    bits = lambda x: struct.pack('>d', x).hex()
    truth, found = load('instances_val2014_100.json'), load('instances_val2014_fakesegm100_results.json')
    sizes = {i['id']: (i['height'], i['width']) for i in truth['images']}

    def mask(entry):  # as COCO.annToRLE does
        segm, (h, w) = entry['segmentation'], sizes[entry['image_id']]
        if isinstance(segm, list):
            return api.merge(api.frPyObjects(segm, h, w))
        return api.frPyObjects(segm, h, w) if isinstance(segm['counts'], list) else segm

    cells, lines = defaultdict(lambda: ([], [])), []
    for side, entries in enumerate([found, truth['annotations']]):
        for entry in entries:
            rle = mask(entry)
            cells[entry['image_id'], entry['category_id']][side].append((rle, entry.get('iscrowd', 0)))
            f = facts(rle)
            lines.append(' '.join([f['counts'], str(f['area'])] + [bits(x) for x in f['bbox']]) + '\n')
    rows = []
    for (image, category), (dets, gts) in sorted(cells.items()):
        if dets and gts:
            ious = api.iou([d for d, _ in dets], [g for g, _ in gts], [c for _, c in gts])
            rows.append(' '.join([str(image), str(category)] + [bits(x) for x in ious.ravel()]) + '\n')
    digest = lambda lines: hashlib.sha256(''.join(lines).encode()).hexdigest()
    return dict(masks=len(lines), mask_lines=digest(lines), cells=len(rows), iou_lines=digest(rows))


def main():
    args = argparse.ArgumentParser()
    args.add_argument('--seed', type=int, default=1)
    args.add_argument('--times', type=int, default=1)
    args.add_argument('--out', default=OUT)
    args.add_argument('--kit')
    args = args.parse_args()
    rng = random.Random(args.seed)
    golden = dict(tool=f'pycocotools {version("pycocotools")}')
    for make in (polygons, boxes, lists, merges, overlaps):
        golden[make.__name__] = list(make(rng, args.times))
    golden['kit'] = kit(args.kit) if args.kit else json.load(open(OUT))['kit']
    with open(args.out, 'w') as f:
        f.write('{\n')
        f.write(',\n'.join(f'{json.dumps(key)}: ' + ('[\n' + ',\n'.join(map(json.dumps, value)) + '\n]'
                           if isinstance(value, list) else json.dumps(value)) for key, value in golden.items()))
        f.write('\n}\n')


if __name__ == '__main__':
    main()
