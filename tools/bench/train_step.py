#!/usr/bin/env python3
"""Time of a training step: `detect train --config peer_c4` beside torchvision's Faster R-CNN on the same work.

Both sides train a NASNet-A 6@384 cut at stride 16, with a two-layer head, on the same images with the same batch,
anchors, sampling and optimiser (configs/peer_c4.toml says it all). Rounds alternate between the two; the figure is the
median over all steps but the first two of each round, forward, backward and update together, without reading images.

    python3 -m venv peer && peer/bin/pip install torch==2.11.0 torchvision==0.26.0 timm==1.0.31 numpy pillow
    peer/bin/python tools/bench/train_step.py DATA [--threads 1 2] [--rounds 3] [--steps 10]

DATA is a data set in COCO form: annotations/train.json and images/.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def ours(data, threads, steps):
    """Seconds of each step, from the run's own record."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [ROOT / "target/release/detect", "train", "--config", "peer_c4", "--data", data, "--out", run,
                   "--device", "cpu", "--threads", str(threads), "--steps", str(steps), "--set", "data.val=none"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        return [line["step_s"] for line in lines if line["kind"] == "step"]


def theirs(data, threads, steps):
    """The same with torchvision, in a process of its own: this file with --theirs."""
    command = [sys.executable, __file__, data, "--theirs", "--threads", str(threads), "--steps", str(steps)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def torchvision_steps(data, threads, steps):
    import torch
    from torchvision_train import BATCH, Split, detector, step

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    split = Split(data, "train")
    places = [place for place, image in enumerate(split.images) if split.boxes[image["id"]]]
    model, optimizer = detector(len(split.categories))
    model.train()
    seconds = []
    for number in range(steps):
        samples = [split.sample(places[(number * BATCH + i) % len(places)]) for i in range(BATCH)]
        start = time.perf_counter()
        step(model, optimizer, samples)
        seconds.append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        print(json.dumps(torchvision_steps(args.data, args.threads[0], args.steps)))
        return
    print("threads  detect s/step  torchvision s/step  ratio")
    for threads in args.threads:
        seconds = {ours: [], theirs: []}
        for _ in range(args.rounds):
            for side in (ours, theirs):
                seconds[side] += side(args.data, threads, args.steps)[2:]
        a, b = (statistics.median(seconds[side]) for side in (ours, theirs))
        print(f"{threads:7}  {a:13.2f}  {b:18.2f}  {a / b:5.2f}", flush=True)


if __name__ == "__main__":
    main()
