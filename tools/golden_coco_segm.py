#!/usr/bin/env python3
"""Small sets with masks and what pycocotools makes of them, for tests/coco_segm.rs.

  tools/golden_coco_segm.py > tests/golden/coco_segm.json        the committed cases
  tools/golden_coco_segm.py --folders DIR --count 500            as folders, for tools/eval_parity.py --iou-type segm

Truths are polygons, lists of runs, compressed runs and crowds; detections have boxes, masks or both. Some
sets lack a field. The numbers are those of both IoU types; null where pycocotools raises. Needs numpy and
pycocotools.
"""
import argparse, contextlib, io, json, os, tempfile

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def polygon(rng, h, w):
    x, y = rng.uniform(-5, w), rng.uniform(-5, h)
    n, r = int(rng.integers(3, 9)), rng.uniform(2, 25)
    a = np.sort(rng.uniform(0, 2 * np.pi, n))
    return [float(v) for v in np.round(np.stack([x + r * np.cos(a), y + r * np.sin(a)], 1).ravel(), 2)]


def segmentation(rng, h, w, kind):
    polygons = [polygon(rng, h, w) for _ in range(rng.integers(1, 3))]
    if kind == 'polygons': return polygons
    rle = mask.merge(mask.frPyObjects(polygons, h, w))
    if kind == 'compressed': return dict(size=[h, w], counts=rle['counts'].decode())
    flat = mask.decode(rle).ravel(order='F')
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return dict(size=[h, w], counts=([0] if flat[0] else []) + counts)


def moved(rng, seg, h, w):
    """A mask near another one."""
    rle = mask.merge(mask.frPyObjects(seg, h, w)) if isinstance(seg, list) else seg if isinstance(seg['counts'], str) else mask.frPyObjects(seg, h, w)
    near = np.roll(mask.decode(rle), rng.integers(-2, 3, 2), (0, 1))
    rle = mask.encode(np.asfortranarray(near))
    return dict(size=[h, w], counts=rle['counts'].decode())


def one(rng):
    images = [dict(id=int(i), height=int(rng.integers(8, 60)), width=int(rng.integers(8, 60))) for i in rng.permutation(20)[:rng.integers(1, 5)]]
    categories = [dict(id=int(i)) for i in rng.permutation(9)[:rng.integers(1, 4)]]
    anns, dets = [], []
    with_boxes = rng.random() < 0.4
    for image in images:
        h, w = image['height'], image['width']
        for _ in range(rng.integers(0, 6)):
            seg = segmentation(rng, h, w, rng.choice(['polygons', 'polygons', 'counts', 'compressed']))
            cat = int(rng.choice([c['id'] for c in categories]))
            anns.append(dict(id=len(anns) + 1, image_id=image['id'], category_id=cat, segmentation=seg,
                             area=float(np.round(rng.uniform(1, 2000), 1)), iscrowd=int(rng.random() < 0.2)))
            if rng.random() < 0.98: anns[-1]['bbox'] = [float(v) for v in np.round([rng.uniform(0, w), rng.uniform(0, h), *rng.uniform(1, 30, 2)], 1)]
            for _ in range(rng.integers(0, 3)):
                det = dict(image_id=image['id'], category_id=cat if rng.random() < 0.8 else int(rng.choice([c['id'] for c in categories])),
                           score=float(rng.choice([0.1, 0.5, 0.5, 0.9, np.round(rng.random(), 3)])), segmentation=moved(rng, seg, h, w))
                if with_boxes:
                    det['bbox'] = [float(v) for v in np.round([rng.uniform(0, w), rng.uniform(0, h), *rng.uniform(1, 30, 2)], 1)]
                    if dets and rng.random() < 0.4: del det['segmentation']
                dets.append(det)
    order = rng.permutation(len(dets))
    dets = [dets[i] for i in order]
    if dets and rng.random() < 0.3:  # something odd
        entry, odd = dets[rng.integers(len(dets))], rng.integers(6)
        if odd == 0: entry.pop('segmentation', None)
        if odd == 1: entry['bbox'] = [1, 2, 3, 4]
        if odd == 2 and anns: anns[0].pop('segmentation')
        if odd == 3: images[0].pop('height')
        if odd == 4: entry['segmentation'] = [[1, 1, 9, 1, 9, 9.5]]
        if odd == 5: images.append(dict(images[0], height=images[0].get('height', 9) + 3))
    return dict(images=images, categories=categories, annotations=anns), dets


def stats(gt, dt, iou_type):
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        paths = [os.path.join(out, n) for n in ('gt.json', 'dt.json')]
        for path, value in zip(paths, (gt, dt)):
            with open(path, 'w') as f: json.dump(value, f)
        try:
            truth = COCO(paths[0])
            run = COCOeval(truth, truth.loadRes(paths[1]), iou_type)
            run.evaluate(); run.accumulate(); run.summarize()
        except Exception:
            return None
        return [float(v) for v in run.stats]


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--folders'), p.add_argument('--count', type=int, default=32), p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    sets = [one(np.random.default_rng([a.seed, i])) for i in range(a.count)]
    if a.folders:
        for i, pair in enumerate(sets):
            folder = os.path.join(a.folders, f'{i:04}')
            os.makedirs(folder, exist_ok=True)
            for name, value in zip(('gt', 'dt'), pair):
                with open(os.path.join(folder, name + '.json'), 'w') as f: json.dump(value, f)
    else:
        lines = [json.dumps(dict(annotations=gt, results=dt, segm=stats(gt, dt, 'segm'), bbox=stats(gt, dt, 'bbox'))) for gt, dt in sets]
        print('[\n' + ',\n'.join(lines) + '\n]')
