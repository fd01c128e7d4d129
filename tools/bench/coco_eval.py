#!/usr/bin/env python3
"""Time and memory of `detect eval` beside other COCO evaluators: whole processes, from files to the twelve numbers.

    tools/bench/coco_eval.py FOLDER [--detect target/release/detect] [--threads 2] [--runs 9]

FOLDER holds gt.json and dt.json. The peers are those of the following that are found: `coco-eval` (cargo install
hotcoco-cli --version 1.3.1), `vernier` (cargo install vernier-cli --version 0.6.0), in PATH or in --peers, and
ultrafast-pycocotools 0.1.14 in the Python that runs this. Each round runs every program once, so that a busy machine
slows all of them; the table gives medians, and below it the ratios to the fastest peer of each column.
"""
import argparse, os, shutil, statistics, subprocess, sys, tempfile, time

ULTRAFAST = '''
import sys
from ultrafast_pycocotools import COCO, COCOeval
gt = COCO(sys.argv[1]); run = COCOeval(gt, gt.loadRes(sys.argv[2]), 'bbox')
run.evaluate(); run.accumulate(); run.summarize()
'''


def programs(options):
    gt, dt = (os.path.join(options.folder, n) for n in ('gt.json', 'dt.json'))
    path = os.pathsep.join([options.peers or '', os.environ['PATH']])
    found = {'detect': [options.detect, 'eval', '--annotations', gt, '--predictions', dt]}
    if hotcoco := shutil.which('coco-eval', path=path):
        found['hotcoco'] = [hotcoco, 'eval', '--gt', gt, '--dt', dt]
    if vernier := shutil.which('vernier', path=path):
        found['vernier'] = [vernier, 'eval', '--gt', gt, '--dt', dt, '--iou-type', 'bbox']
    if subprocess.run([sys.executable, '-c', 'import ultrafast_pycocotools'], stderr=subprocess.DEVNULL).returncode == 0:
        found['ultrafast'] = [sys.executable, '-c', ULTRAFAST, gt, dt]
    return found


def measure(command, threads):
    """Seconds on the clock, seconds of processor, MiB at most."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            out.seek(0)
            sys.exit(f'{command[0]} ended with {process.returncode}:\n{out.read().decode(errors="replace")}')
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder')
    p.add_argument('--detect', default='target/release/detect')
    p.add_argument('--peers', help='folder of coco-eval and vernier')
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--runs', type=int, default=9)
    options = p.parse_args()
    # As many processors as threads, so that no program uses more.
    cores = sorted(os.sched_getaffinity(0))[:options.threads]
    os.sched_setaffinity(0, cores)
    commands = programs(options)
    runs = {name: [] for name in commands}
    for command in commands.values():
        measure(command, options.threads)  # files into the cache, programs too
    for _ in range(options.runs):
        for name, command in commands.items():
            runs[name].append(measure(command, options.threads))
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in runs.items()}
    print(f'{"":<10} {"wall s":>8} {"CPU s":>8} {"MiB":>8}    median of {options.runs}, {len(cores)} cores')
    for name, (wall, cpu, memory) in medians.items():
        print(f'{name:<10} {wall:>8.3f} {cpu:>8.3f} {memory:>8.1f}')
    peers = {name: row for name, row in medians.items() if name != 'detect'}
    if peers:
        fastest = min(peers, key=lambda name: peers[name][0])
        ours, row = medians['detect'], peers[fastest]
        print(f'against {fastest}, the fastest: wall {ours[0] / row[0]:.2f}, CPU {ours[1] / row[1]:.2f}, memory {ours[2] / row[2]:.2f}')
    if 'hotcoco' in peers:
        print(f'memory against hotcoco: {medians["detect"][2] / peers["hotcoco"][2]:.2f}')
