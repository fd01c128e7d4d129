#!/usr/bin/env python3
"""Compares `detect eval` with pycocotools, bit for bit: the twelve numbers and all three arrays.

  tools/eval_parity.py --detect target/release/detect FOLDER...

Each FOLDER holds gt.json and dt.json, or folders that do. Where pycocotools raises, `detect` must end with
exit 3 and a message; where it answers, every bit must agree (NaN equals NaN, 0 equals -0). Options behind --
go to `detect eval`, and change pycocotools' parameters in the same way. Needs numpy and pycocotools.
"""
import argparse, contextlib, io, json, os, subprocess, sys, tempfile

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def pycocotools(gt, dt, options):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(gt)
        run = COCOeval(truth, truth.loadRes(dt), options.iou_type)
        p = run.params
        if options.class_agnostic: p.useCats = 0
        if options.max_detections: p.maxDets = [int(x) for x in options.max_detections.split(',')]
        if options.iou_thresholds: p.iouThrs = np.array([float(x) for x in options.iou_thresholds.split(',')])
        if options.area_ranges:
            ranges = [x.split(':') for x in options.area_ranges.split(',')]
            p.areaRngLbl = [r[0] for r in ranges]
            p.areaRng = [[float(r[1]), float(r[2])] for r in ranges]
        if options.images: p.imgIds = json.loads(f'[{options.images}]')
        if options.categories: p.catIds = json.loads(f'[{options.categories}]')
        run.evaluate(); run.accumulate()
        arrays = {k: run.eval[k] for k in ('precision', 'recall', 'scores')}
        if any(v for k, v in vars(options).items() if k not in ('detect', 'folders', 'iou_type', 'class_agnostic', 'images', 'categories')):
            return arrays
        run.summarize()
    return dict(arrays, stats=np.array(run.stats, float))


def differs(a, b):
    a, b = (np.ascontiguousarray(x, dtype=np.float64) for x in (a, b))
    if a.shape != b.shape: return f'shape {a.shape} against {b.shape}'
    bad = (a.view(np.uint64) != b.view(np.uint64)) & ~(np.isnan(a) & np.isnan(b)) & ~((a == 0) & (b == 0))
    return f'{bad.sum()} of {a.size} differ' if bad.any() else None


def compare(folder, options):
    """None where both agree, else what does not."""
    gt, dt = (os.path.join(folder, n) for n in ('gt.json', 'dt.json'))
    try: want = pycocotools(gt, dt, options)
    except Exception as error: want = error
    with tempfile.TemporaryDirectory() as out:
        arrays = os.path.join(out, 'a.npz')
        command = [options.detect, 'eval', '--annotations', gt, '--predictions', dt, '--json', '--arrays', arrays]
        for name in ('iou_thresholds', 'area_ranges', 'max_detections', 'images', 'categories'):
            if getattr(options, name): command += ['--' + name.replace('_', '-') + '=' + getattr(options, name)]
        command += ['--iou-type', options.iou_type]
        if options.class_agnostic: command.append('--class-agnostic')
        run = subprocess.run(command, capture_output=True, text=True)
        if isinstance(want, Exception):
            if run.returncode == 3 and run.stderr.startswith('error: '): return 'raised', None
            return 'raised', f'pycocotools raises {want!r}; detect: exit {run.returncode}: {run.stderr.strip()}'
        if run.returncode != 0: return 'answered', f'exit {run.returncode}: {run.stderr.strip()}'
        got = dict(np.load(arrays))
        got['stats'] = json.loads(run.stdout)['stats']
    wrong = {k: differs(got[k], v) for k, v in want.items()}
    return 'answered', '; '.join(f'{k}: {v}' for k, v in wrong.items() if v) or None


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folders', nargs='+')
    p.add_argument('--detect', default='target/release/detect')
    p.add_argument('--iou-type', choices=('bbox', 'segm'), default='bbox')
    p.add_argument('--class-agnostic', action='store_true')
    for name in ('iou-thresholds', 'area-ranges', 'max-detections', 'images', 'categories'): p.add_argument('--' + name)
    options = p.parse_args()
    folders = []
    for top in options.folders:
        folders += sorted(path for path, _, files in os.walk(top) if 'gt.json' in files)
    counts, failed = dict(answered=0, raised=0), 0
    for folder in folders:
        kind, problem = compare(folder, options)
        counts[kind] += 1
        if problem:
            failed += 1
            print(f'{folder}: {problem}')
    print(f'{counts["answered"]} sets answered, {counts["raised"]} refused by both sides; {failed} of {len(folders)} differ')
    sys.exit(bool(failed) or not folders)
