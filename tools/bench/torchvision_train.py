#!/usr/bin/env python3
"""torchvision's Faster R-CNN on timm's NASNet-A 6@384: the network and the work of configs/peer_c4.toml, to set beside `detect train`.

    python3 -m venv peer && peer/bin/pip install torch==2.11.0 torchvision==0.26.0 timm==1.0.31 numpy pillow pycocotools==2.0.11
    peer/bin/python tools/bench/torchvision_train.py DATA --epochs 16 --eval-every 4 --seed 1 --threads 1 --log peer.jsonl

DATA is a data set in COCO form: annotations/train.json, annotations/val.json and images/. The log has lines of the kinds
`step` and `eval` as in a run's metrics.jsonl, with `train_seconds` spent on steps alone; tools/bench/curves.py draws both.
The same on our side: `detect train --config peer_c4 --data DATA --epochs 16 --set train.seed=1 --threads 1`. Each epoch ends with a
checkpoint beside the log, from which the same command with `--resume` goes on.
"""
import argparse
import contextlib
import io
import json
import math
import pathlib
import time

import numpy
import torch
from PIL import Image
from timm.models.nasnet import NASNetALarge
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

BATCH, RATE, WARM_UP = 4, 0.01, 100
NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"]


class Trunk(torch.nn.Module):
    """The network up to its last cell of stride 16, after ReLU."""

    def __init__(self):
        super().__init__()
        self.body = NASNetALarge(num_classes=0, stem_size=16, num_features=384)
        self.body.prune_intermediate_layers([3])
        self.out_channels = 192

    def forward(self, images):
        return self.body.forward_intermediates(images, indices=[3], intermediates_only=True, stop_early=True)[0]


class Split:
    """Images and boxes of a split, crowds left out."""

    def __init__(self, data, name):
        self.folder = pathlib.Path(data)
        self.file = self.folder / f"annotations/{name}.json"
        truth = json.loads(self.file.read_text())
        self.categories = sorted(category["id"] for category in truth["categories"])
        self.images = truth["images"]
        self.boxes = {image["id"]: [] for image in self.images}
        for a in truth["annotations"]:
            x, y, w, h = a["bbox"]
            if not a.get("iscrowd") and w >= 1 and h >= 1:
                self.boxes[a["image_id"]].append(([x, y, x + w, y + h], self.categories.index(a["category_id"]) + 1))

    def sample(self, place, mirrored=False):
        """Pixels from 0 to 1, `[3, H, W]`, and the target that torchvision wants."""
        image = self.images[place]
        pixels = numpy.array(Image.open(self.folder / "images" / image["file_name"]).convert("RGB"))
        pixels = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        own = self.boxes[image["id"]]
        corners = torch.tensor([corners for corners, _ in own], dtype=torch.float32).reshape(-1, 4)
        if mirrored:
            width = pixels.shape[2]
            pixels = pixels.flip(2)
            corners = torch.stack([width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]], 1)
        return pixels, {"boxes": corners, "labels": torch.tensor([label for _, label in own], dtype=torch.int64)}


def detector(categories, short_side=320):
    """The detector with random weights, and its optimizer."""
    model = FasterRCNN(
        Trunk(), rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2), box_head=TwoMLPHead(192 * 49, 256),
        box_predictor=FastRCNNPredictor(256, categories + 1), rpn_pre_nms_top_n_train=1000,
        rpn_post_nms_top_n_train=500, rpn_pre_nms_top_n_test=1000, rpn_post_nms_top_n_test=300,
        min_size=short_side, max_size=2 * short_side, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return model, torch.optim.SGD(model.parameters(), RATE, 0.9, weight_decay=1e-4)


def step(model, optimizer, samples):
    """Forward, backward and update; gives the loss, a tensor."""
    images, targets = zip(*samples)
    loss = sum(model(list(images), list(targets)).values())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def evaluate(model, split):
    """COCO's numbers by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = []
    for place, image in enumerate(split.images):
        result = model([split.sample(place)[0]])[0]
        for (x1, y1, x2, y2), score, label in zip(*(result[key].tolist() for key in ("boxes", "scores", "labels"))):
            found.append({"image_id": image["id"], "category_id": split.categories[label - 1],
                          "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
    if not found:
        return dict.fromkeys(NUMBERS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(split.file))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NUMBERS, map(float, evaluation.stats)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--eval-every", type=int, default=4, help="epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short-side", type=int, default=320, help="of an image, resized; pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint beside the log, where there is one")
    parser.add_argument("--log", type=pathlib.Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    train, val = Split(args.data, "train"), Split(args.data, "val")
    model, optimizer = detector(len(train.categories), args.short_side)
    steps = args.epochs * math.ceil(len(train.images) / BATCH)
    first, done, seconds, kept = 0, 0, 0.0, []
    checkpoint = args.log.with_suffix(".pt")
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["generator"])
        first, done, seconds = state["epoch"], state["done"], state["seconds"]
        kept = [line for line in map(json.loads, args.log.read_text().splitlines()) if line["step"] <= done]
    else:
        checkpoint.unlink(missing_ok=True)  # another run's
    with args.log.open("w") as log:
        def write(line):
            print(json.dumps(line), file=log, flush=True)

        for line in kept:
            write(line)
        for epoch in range(first, args.epochs):
            model.train()
            for places in torch.randperm(len(train.images)).split(BATCH):
                start = time.perf_counter()
                for group in optimizer.param_groups:
                    group["lr"] = RATE * min(1, (done + 1) / WARM_UP) * (1 + math.cos(math.pi * done / steps)) / 2
                samples = [train.sample(place, torch.rand(1).item() < 0.5) for place in places.tolist()]
                loss = step(model, optimizer, samples).item()
                took = time.perf_counter() - start
                done, seconds = done + 1, seconds + took
                write({"kind": "step", "step": done, "loss": loss, "step_s": took})
                if not math.isfinite(loss):
                    raise SystemExit(f"the loss of step {done} is not finite")
            if (epoch + 1) % args.eval_every == 0 or epoch + 1 == args.epochs:
                model.eval()
                line = {"kind": "eval", "step": done, **evaluate(model, val), "train_seconds": seconds}
                write(line)
                print(f"step {done} of {steps}, {seconds / 60:.1f} minutes: AP {line['AP']:.4f}  AP50 {line['AP50']:.4f}", flush=True)
            beside = checkpoint.with_suffix(".new")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": torch.get_rng_state(),
                        "epoch": epoch + 1, "done": done, "seconds": seconds}, beside)
            beside.replace(checkpoint)


if __name__ == "__main__":
    main()
