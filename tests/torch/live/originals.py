#!/usr/bin/env python3
"""Networks of timm and torchvision with random weights, saved as people save them, and what they give.

    python3 originals.py large|mobile|small|detector|peer OUT

Run by main.rs beside it, which says what each file is for. Needs torch, torchvision, timm, safetensors and Pillow.
Everything follows from fixed seeds. Batch norm gets the statistics of a batch, so that activations stay of order 1
through all cells and no statistic is 0 or 1.
"""
import json, math, os, sys

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from timm.layers.padding import pad_same
from timm.layers.pool2d_same import AvgPool2dSame
from timm.models import nasnet
from torch import nn

torch.set_num_threads(1)


def stream(seed):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def randomize(model, seed):
    """Kernels keep the size of what they read; gains, shifts and biases are all different."""
    g = stream(seed)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            w = module.weight
            w.copy_(torch.randn(w.shape, generator=g) * math.sqrt(2 / w[0].numel()))
            if module.bias is not None:
                module.bias.copy_(torch.randn(module.bias.shape, generator=g) * .1)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(.5 + torch.rand(module.weight.shape, generator=g))
            module.bias.copy_(.2 * torch.randn(module.bias.shape, generator=g))


@torch.no_grad()
def calibrate(model, batch):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.
    model.train()(batch)
    for norm, momentum in zip(norms, usual):
        norm.momentum = momentum
        norm.running_var += .01
    model.eval()


class ExactAverage(nn.Module):
    """TensorFlow's SAME average pool: each mean is over the pixels that there are."""

    def __init__(self, kernel, stride):
        super().__init__()
        self.window = kernel, stride

    def forward(self, x):
        there = torch.ones_like(x[:1, :1])
        total, share = (F.avg_pool2d(pad_same(t, *self.window), *self.window) for t in (x, there))
        return total / share


def with_exact_averages(module):
    for name, child in list(module.named_children()):
        if isinstance(child, AvgPool2dSame):
            setattr(module, name, ExactAverage(child.kernel_size, child.stride))
        else:
            with_exact_averages(child)
    return module


class CadeneMobile(nn.Module):
    """4@1056 of timm's cells under the names of Cadene's file. The cell behind a reduction reads the last cell of
    the stage before it."""
    STAGES = (0, 1, 2, 3), (6, 7, 8, 9), (12, 13, 14, 15)

    def __init__(self, features=1056, stem=32, classes=1000):
        super().__init__()
        width, same = features // 24, dict(pad_type='same')
        self.conv0 = nasnet.ConvNormAct(3, stem, kernel_size=3, stride=2, padding=0, apply_act=False,
                                        norm_layer=lambda n, **_: nn.BatchNorm2d(n, eps=1e-3))
        self.cell_stem_0 = nasnet.CellStem0(stem, num_channels=width // 4, **same)
        self.cell_stem_1 = nasnet.CellStem1(stem, num_channels=width // 2, **same)
        previous, current = width, 2 * width
        for stage, numbers in enumerate(self.STAGES):
            w = width << stage
            if stage:
                kind = (nasnet.ReductionCell0, nasnet.ReductionCell1)[stage - 1]
                self.add_module(f'reduction_cell_{stage - 1}', kind(previous, w, current, w, **same))
                previous, current = current, 4 * w
            for i, number in enumerate(numbers):
                kind, fit = (nasnet.NormalCell, w) if i else (nasnet.FirstCell, w // 2)
                self.add_module(f'cell_{number}', kind(previous, fit, current, w, **same))
                previous, current = current, 6 * w
        self.last_linear = nn.Linear(features, classes)

    def forward(self, x):
        stem = self.conv0(x)
        previous = self.cell_stem_0(stem)
        current = self.cell_stem_1(stem, previous)
        for stage, numbers in enumerate(self.STAGES):
            if stage:
                previous, current = current, self.get_submodule(f'reduction_cell_{stage - 1}')(current, previous)
            for number in numbers:
                previous, current = current, self.get_submodule(f'cell_{number}')(current, previous)
        return self.last_linear(F.relu(current).mean((2, 3)))


@torch.no_grad()
def outputs(model, x):
    """Every cell before its ReLU, which timm applies in place to the last one, and the logits."""
    found, hooks = {'input': x}, []
    for name, cell in model.named_children():
        if name == 'conv0' or 'cell_' in name:
            keep = lambda module, args, out, name=name: found.__setitem__(name, out.clone())
            hooks.append(cell.register_forward_hook(keep))
    found['logits'] = model(x)
    for hook in hooks:
        hook.remove()
    return found


def save(name, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, os.path.join(OUT, name))


def without_counters(state):
    """As files from before PyTorch counted batches."""
    return {k: v for k, v in state.items() if not k.endswith('num_batches_tracked')}


def picture(seed, height, width):
    """Soft patches of colour under some noise."""
    g = stream(seed)
    coarse = F.interpolate(torch.rand(1, 3, 7, 9, generator=g), (height, width), mode='bicubic')[0]
    x = 255 * (coarse + .1 * torch.randn(3, height, width, generator=g)).clamp(0, 1)
    return x.round().to(torch.uint8)


def normalized(seed, height, width, count=1):
    """Other pictures, as a network wants them."""
    return torch.stack([picture(seed + i, height, width) for i in range(count)]).float().div(127.5).sub(1)


def save_pictures(sizes, seed):
    paths = []
    for i, size in enumerate(sizes):
        paths.append(os.path.join(OUT, f'picture_{i}.png'))
        Image.fromarray(picture(seed + i, *size).permute(1, 2, 0).numpy()).save(paths[-1])
    return paths


@torch.no_grad()
def on_pictures(model, transform):
    """One at a time, opened and prepared as timm does it."""
    paths = save_pictures([(517, 703), (451, 389), (211, 333)], 40)
    prepared = torch.stack([transform(Image.open(path).convert('RGB')) for path in paths])
    logits = torch.cat([model(x[None]) for x in prepared])
    save('pictures.safetensors', {'input': prepared, 'logits': logits, 'probabilities': logits.softmax(1)})


def large():
    """nasnetalarge, and the same weights as Cadene has them: a row for the background, pools as TensorFlow's."""
    from timm.data import create_transform, resolve_model_data_config
    model = nasnet.nasnetalarge(pretrained=False)
    randomize(model, 1)
    calibrate(model, normalized(100, 224, 224, 4))
    with torch.no_grad():
        model.last_linear.weight *= .5  # so that several classes are likely
    state = model.state_dict()
    save('timm.safetensors', state)
    torch.save(state, os.path.join(OUT, 'timm.pth'))
    torch.save(state, os.path.join(OUT, 'timm_legacy.pth'), _use_new_zipfile_serialization=False)
    x = normalized(110, 331, 331)
    save('timm_outputs.safetensors', outputs(model, x))
    on_pictures(model, create_transform(**resolve_model_data_config(model), is_training=False))

    background = nn.Linear(4032, 1001)
    with torch.no_grad():
        background.weight.copy_(torch.cat([torch.randn(1, 4032, generator=stream(4)) * .02, model.last_linear.weight]))
        background.bias.copy_(torch.cat([torch.tensor([.3]), model.last_linear.bias]))
    model.last_linear = background
    with_exact_averages(model)
    torch.save(without_counters(model.state_dict()), os.path.join(OUT, 'cadene.pth'), _use_new_zipfile_serialization=False)
    save('cadene_outputs.safetensors', outputs(model, x))


def mobile():
    model = with_exact_averages(CadeneMobile())
    randomize(model, 5)
    calibrate(model, normalized(120, 224, 224, 2))
    torch.save(without_counters(model.state_dict()), os.path.join(OUT, 'cadene.pth'), _use_new_zipfile_serialization=False)
    save('outputs.safetensors', outputs(model, normalized(130, 224, 224)))


def small():
    from timm.data import create_transform
    model = nasnet.NASNetALarge(num_classes=7, stem_size=8, num_features=96)
    randomize(model, 8)
    calibrate(model, normalized(140, 95, 95, 8))
    save('timm.safetensors', model.state_dict())
    half = (.5,) * 3
    on_pictures(model, create_transform((3, 95, 95), is_training=False, interpolation='bicubic', mean=half, std=half,
                                        crop_pct=.911))
    save('outputs.safetensors', outputs(model, normalized(150, 97, 130, 2)))


class Trunk(nn.Module):
    """The last map of stride 16, after ReLU."""

    def __init__(self, stem, features, pruned):
        super().__init__()
        self.body = nasnet.NASNetALarge(num_classes=0, stem_size=stem, num_features=features)
        if pruned:
            self.body.prune_intermediate_layers([3])
        self.out_channels = features // 2

    def forward(self, x):
        return self.body.forward_intermediates(x, indices=[3], intermediates_only=True, stop_early=True)[0]


class Margins:
    """How near each decision of a detector is to another outcome; the least counts."""

    def __init__(self):
        self.least = {}

    def note(self, what, values):
        if len(values):
            self.least[what] = min(self.least.get(what, math.inf), float(values.min()))

    def cut(self, what, scores, count):
        """`count` of `scores` go on."""
        if len(scores) > count:
            best = scores.sort(descending=True)[0]
            self.note(what, best[count - 1:count] - best[count:count + 1])

    def watch(self, model):
        from torchvision.ops import boxes as ops
        usual = ops.batched_nms

        def nms(boxes, scores, groups, threshold):
            kept = usual(boxes, scores, groups, threshold)
            stage = f'nms {threshold}'
            later = (groups[kept][:, None] == groups[None]) & (scores[kept][:, None] > scores[None])
            overlap = ops.box_iou(boxes[kept], boxes)
            self.note(f'{stage} overlap', (overlap - threshold).abs()[later])
            # Of two that overlap, the better one wins.
            gaps = (scores[kept][:, None] - scores[None]).abs()
            gaps[torch.arange(len(kept)), kept] = math.inf
            same = groups[kept][:, None] == groups[None]
            self.note(f'{stage} order', gaps[same & (overlap > threshold - 1e-4)])
            self.cut(f'{stage} cut', scores[kept], model.rpn.post_nms_top_n() if threshold == model.rpn.nms_thresh
                     else model.roi_heads.detections_per_img)
            return kept

        ops.batched_nms = nms
        model.rpn.head.register_forward_hook(
            lambda module, args, out: self.cut('best anchors', out[0][0].flatten(), model.rpn.pre_nms_top_n()))
        model.roi_heads.box_predictor.register_forward_hook(
            lambda module, args, out: self.note('floor', (out[0].softmax(1)[:, 1:].flatten() - model.roi_heads.score_thresh).abs()))


def detector(features=96, stem=8, rep=32, classes=3, anchors=(32, 64, 128, 256), ratios=(.5, 1., 2.), crop=7,
             short=320, long=640, size=(320, 505), margin=2e-5, pruned=False, seed=20):
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign
    trunk = Trunk(stem, features, pruned)
    model = FasterRCNN(
        trunk, rpn_anchor_generator=AnchorGenerator((anchors,), (ratios,)), box_roi_pool=MultiScaleRoIAlign(['0'], crop, 2),
        box_head=TwoMLPHead(trunk.out_channels * crop * crop, rep), box_predictor=FastRCNNPredictor(rep, classes + 1),
        rpn_pre_nms_top_n_test=1000, rpn_post_nms_top_n_test=300, min_size=short, max_size=long, image_mean=[.5] * 3,
        image_std=[.5] * 3)
    path, = save_pictures([size], seed)
    x = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1).float().div(255)
    margins = Margins()
    margins.watch(model)
    # A seed with which no decision is near to another outcome.
    for attempt in range(300):
        randomize(model, seed + 1000 + attempt)
        calibrate(trunk, F.interpolate(2 * x[None] - 1, size=(short, long), mode='bilinear'))
        with torch.no_grad():
            for layer, gain in [(model.rpn.head.bbox_pred, .3), (model.roi_heads.box_predictor.bbox_pred, .7)]:
                layer.weight *= gain
        margins.least = {}
        with torch.no_grad():
            found = model.eval()([x])[0]
        scores = found['scores']
        if min(margins.least.values()) > margin and len(scores) > 20 and scores.max() - scores.min() > .3 \
                and len(found['labels'].unique()) == classes:
            break
    else:
        sys.exit(f'no seed is far from every other outcome: {margins.least}')
    state = model.state_dict()
    torch.save(state, os.path.join(OUT, 'detector.pth'))
    save('detections.safetensors', found)
    with torch.no_grad():
        cells = outputs(trunk.body, model.transform([x])[0].tensors)
    behind = 'reduction_cell_1', *(f'cell_{i}' for i in range(12, 18)), 'logits'
    save('cells.safetensors', {name: cell for name, cell in cells.items() if name not in behind})
    wrong = dict(state)
    del wrong['rpn.head.bbox_pred.bias']
    wrong['backbone.body.cell_3.conv_1x1.bn.weight'] = torch.ones(3)
    wrong['roi_heads.mask_head.weight'] = torch.ones(2, 2)
    torch.save(wrong, os.path.join(OUT, 'wrong.pth'))
    print(json.dumps(dict(attempts=attempt + 1, found=len(scores), margins=margins.least)))


def peer():
    """Everything that a state dict may have otherwise, cut as timm cuts it, and an image that is resized: 20 layers
    make ten to thirty times as much of the resize's rounding, so decisions have to be as much clearer."""
    detector(features=192, stem=10, rep=24, classes=2, anchors=(24, 96), ratios=(.5, 2.), crop=5, short=256, long=448,
             size=(211, 333), margin=2e-4, pruned=True, seed=30)


CASE, OUT = sys.argv[1:]
dict(large=large, mobile=mobile, small=small, detector=detector, peer=peer)[CASE]()
