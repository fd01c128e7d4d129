#!/usr/bin/env python3
"""Images/s of the training loader beside the usual PyTorch pipeline on the same images and cores.

The other side is a Dataset that opens files with Pillow, a DataLoader with one worker process a core, and torchvision's
GeneralizedRCNNTransform (normalise, resize, pad to multiples of 32). Both sides mirror every other image, shuffle, and
make batches of the same size; both are held to the same cores. Rounds alternate between the two; a round's figure is
its median epoch without the first one, the result the median over rounds.

    python3 -m venv peer && peer/bin/pip install torch==2.11.0 torchvision==0.26.0 numpy pillow
    peer/bin/python tools/bench/loader.py DATA... [--sizes 800x1333 320x640] [--cores 2] [--rounds 3] [--epochs 3]

DATA is a data set in COCO form: annotations/train.json and images/.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--sizes", nargs="+", default=["800x1333", "320x640"], help="short side x limit of the long side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        print(json.dumps(torch_rates(args)))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.cores])
    program = build()
    print("data        size      detect images/s  PyTorch images/s  ratio  detect MiB after each epoch")
    for data in args.data:
        for size in args.sizes:
            rates, memory = {"ours": [], "theirs": []}, []
            for _ in range(args.rounds):
                line = ours(program, data, size, args)
                rates["ours"].append(line["images_per_s"])
                memory = [round(mib) for mib in line["resident_mib"]]
                rates["theirs"].append(theirs(data, size, args))
            a, b = (statistics.median(rates[side]) for side in ("ours", "theirs"))
            print(f"{pathlib.Path(data).name:10}  {size:8}  {a:15.1f}  {b:16.1f}  {a / b:5.2f}  {memory}", flush=True)


def build():
    """The bench program, built as `cargo bench` builds it."""
    command = ["cargo", "bench", "--package", "detect", "--bench", "loader", "--no-run", "--message-format", "json"]
    lines = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE).stdout.splitlines()
    made = [line for line in map(json.loads, lines) if line.get("executable") and line["target"]["name"] == "loader"]
    return made[-1]["executable"]


def ours(program, data, size, args):
    short, long = size.split("x")
    command = [program, data, "--size", short, "--max-size", long, "--batch", args.batch, "--threads", args.cores,
               "--epochs", args.epochs]
    return json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout)


def theirs(data, size, args):
    """The same with PyTorch, in a process of its own: this file with --theirs."""
    command = [sys.executable, __file__, data, "--theirs", "--sizes", size, "--batch", args.batch, "--cores", args.cores,
               "--epochs", args.epochs]
    return json.loads(subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE).stdout)


def torch_rates(args):
    import numpy
    import torch
    from PIL import Image
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, folder):
            truth = json.loads((folder / "annotations/train.json").read_text())
            self.files = [folder / "images" / image["file_name"] for image in truth["images"]]
            boxes = {}
            for a in truth["annotations"]:
                if not a.get("iscrowd"):
                    boxes.setdefault(a["image_id"], []).append((a["bbox"], a["category_id"]))
            self.truth = [boxes.get(image["id"], []) for image in truth["images"]]

        def __len__(self):
            return len(self.files)

        def __getitem__(self, i):
            pixels = numpy.array(Image.open(self.files[i]).convert("RGB"))
            x = torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)
            height, width = x.shape[1:]
            b = torch.tensor([box for box, _ in self.truth[i]], dtype=torch.float32).reshape(-1, 4)
            b[:, 2:] += b[:, :2]
            b[:, 0::2].clamp_(0, width), b[:, 1::2].clamp_(0, height)
            labels = torch.tensor([label for _, label in self.truth[i]], dtype=torch.int64)
            kept = (b[:, 2] - b[:, 0] >= 1) & (b[:, 3] - b[:, 1] >= 1)
            b, labels = b[kept], labels[kept]
            if torch.rand(1).item() < 0.5:
                x = x.flip(-1)
                b = torch.stack([width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]], 1)
            return x, {"boxes": b, "labels": labels}

    torch.set_num_threads(1)
    short, long = map(int, args.sizes[0].split("x"))
    transform = GeneralizedRCNNTransform(short, long, [0.5] * 3, [0.5] * 3)
    loader = torch.utils.data.DataLoader(
        Pictures(pathlib.Path(args.data[0])), args.batch, shuffle=True, num_workers=args.cores,
        collate_fn=lambda items: tuple(zip(*items)), persistent_workers=True)
    rates = []
    for _ in range(args.epochs):
        start, images = time.perf_counter(), 0
        for pictures, targets in loader:
            batch, _ = transform(list(pictures), list(targets))
            images += batch.tensors.shape[0]
        rates.append(images / (time.perf_counter() - start))
    return statistics.median(rates[1:])


if __name__ == "__main__":
    main()
