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


def torchvision_steps(data, threads, steps, batch=4):
    import numpy
    import torch
    from PIL import Image
    from timm.models.nasnet import NASNetALarge
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    class Trunk(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = NASNetALarge(num_classes=0, stem_size=16, num_features=384)
            self.body.prune_intermediate_layers([3])
            self.out_channels = 192

        def forward(self, images):
            return self.body.forward_intermediates(images, indices=[3], intermediates_only=True, stop_early=True)[0]

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    data = pathlib.Path(data)
    truth = json.loads((data / "annotations/train.json").read_text())
    labels = {c: i + 1 for i, c in enumerate(sorted(c["id"] for c in truth["categories"]))}
    boxes = {}
    for a in truth["annotations"]:
        if not a.get("iscrowd"):
            boxes.setdefault(a["image_id"], []).append((a["bbox"], labels[a["category_id"]]))
    pictures = [image for image in truth["images"] if image["id"] in boxes]
    trunk = Trunk()
    model = FasterRCNN(
        trunk, rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2), box_head=TwoMLPHead(192 * 49, 256),
        box_predictor=FastRCNNPredictor(256, len(labels) + 1), rpn_pre_nms_top_n_train=1000,
        rpn_post_nms_top_n_train=500, min_size=320, max_size=640, image_mean=[0.5] * 3, image_std=[0.5] * 3).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)
    seconds = []
    for step in range(steps):
        images, targets = [], []
        for i in range(batch):
            picture = pictures[(step * batch + i) % len(pictures)]
            pixels = numpy.array(Image.open(data / "images" / picture["file_name"]).convert("RGB"))
            images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
            own = boxes[picture["id"]]
            corners = torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _ in own], dtype=torch.float32)
            targets.append({"boxes": corners, "labels": torch.tensor([label for _, label in own])})
        start = time.perf_counter()
        loss = sum(model(images, targets).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
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
