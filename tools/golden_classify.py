#!/usr/bin/env python3
"""Writes tests/golden/classify_{pil,tf}.json: small images and what the published preprocessings make of them.

    python3 tools/golden_classify.py pil     where torch, torchvision, timm and a Pillow before 13 are installed
    python3 tools/golden_classify.py tf      where TensorFlow is installed

`pil`: timm's own `create_transform`, torchvision's transforms on PIL images, torch's `interpolate`.
`tf`: `tf.image.central_crop` and `tf.compat.v1.image.resize_bilinear`, called as TF-slim's Inception preprocessing
calls them for evaluation. Images are made from a seed, by a formula that the test has too. Outputs are [H, W, 3]: the
SHA-256 of their little-endian 32-bit floats, and, where they are small, the numbers too: as floats, or for PIL the
8-bit samples in hexadecimal.

Pillow 13 shrinks tall images down first and across second, to be faster, which moves samples by one level; the published
figures are older, so what is asked for here is the order that all versions before had.
"""
import hashlib, json, os, sys
from importlib.metadata import version

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
WRITTEN_OUT = 500
# Landscape, portrait, smaller than the input, square, one pixel wide, one pixel high, of the very size.
SIZES = [(61, 97), (83, 40), (7, 9), (50, 50), (45, 1), (1, 45), (12, 12), (26, 30), (333, 500)]


def image(height, width, pattern, seed):
    """The top byte of a linear congruential generator, a sample a step."""
    samples, state = [], seed
    for _ in range(height * width * (1 if pattern == 'grey' else 3)):
        state = (state * 1664525 + 1013904223) % 2**32
        v = state >> 24
        samples.append((255 if v >= 128 else 0) if pattern == 'extreme' else v)
    if pattern == 'grey':
        return np.array(samples, np.uint8).reshape(height, width)
    return np.array(samples, np.uint8).reshape(height, width, 3)


def images(sizes=SIZES):
    for n, (height, width) in enumerate(sizes):
        for pattern in ['noise', 'extreme', 'grey'][: 3 if n < 2 else 1]:
            yield dict(height=height, width=width, pattern=pattern, seed=n + 1)


def form(side, crop, interpolation):
    return dict(image_size=dict(height=side, width=side), crop=crop, interpolation=interpolation, mean=[.5] * 3, std=[.5] * 3)


def case(published, preprocessing, source, out):
    out = np.ascontiguousarray(out, '<f4')
    size = preprocessing['image_size']
    assert out.shape == (size['height'], size['width'], 3), out.shape
    expected = dict(sha256=hashlib.sha256(out.tobytes()).hexdigest())
    if out.size <= WRITTEN_OUT and preprocessing['interpolation'].startswith('pil-'):
        expected['samples'] = np.rint((out * .5 + .5) * 255).astype(np.uint8).tobytes().hex()
    elif out.size <= WRITTEN_OUT:
        expected['values'] = [float(str(v)) for v in out.ravel()]  # the shortest text that names the float
    return dict(published=published, preprocessing=preprocessing, image=source, **expected)


def pil():
    import torch
    assert int(version('pillow').split('.')[0]) < 13, 'see above'
    from PIL import Image
    from timm.data import create_transform
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    def opened(source):
        return Image.fromarray(image(**source)).convert('RGB')  # as timm and torchvision open files

    def timm(side, pct=.911):
        return create_transform((3, side, side), is_training=False, interpolation='bicubic', mean=(.5,) * 3, std=(.5,) * 3, crop_pct=pct)

    def torchvision(side, short, mode=InterpolationMode.BILINEAR):
        return transforms.Compose([transforms.Resize(short, interpolation=mode), transforms.CenterCrop(side),
                                   transforms.ToTensor(), transforms.Normalize([.5] * 3, [.5] * 3)])

    def hwc(tensor):
        return tensor.permute(1, 2, 0).numpy()

    cases = []
    for published, side, short, mode, transform in [
        ('timm-large', 331, 363, 'pil-bicubic', timm(331)),
        ('cadene-large', 331, 354, 'pil-bilinear', torchvision(331, 354)),
        ('cadene-mobile', 224, 256, 'pil-bilinear', torchvision(224, 256)),
        (None, 12, 13, 'pil-bicubic', timm(12)),
        (None, 11, 14, 'pil-bilinear', torchvision(11, 14)),
        # The short side is shorter than the crop: black borders, of odd and even width.
        (None, 12, 9, 'pil-bicubic', torchvision(12, 9, InterpolationMode.BICUBIC)),
        (None, 12, 8, 'pil-bilinear', torchvision(12, 8)),
    ]:
        for source in images():
            cases.append(case(published, form(side, {'short-side': short}, mode), source, hwc(transform(opened(source)))))
    for source in images(SIZES[:7]):
        normal = transforms.Normalize([.5] * 3, [.5] * 3)(transforms.ToTensor()(opened(source)))
        out = torch.nn.functional.interpolate(normal[None], (8, 8), mode='bilinear', align_corners=False)[0]
        cases.append(case(None, form(8, 'squash', 'half-pixel-bilinear'), source, hwc(out)))
    return cases, {p: version(p) for p in ['torch', 'torchvision', 'timm', 'pillow']}


def tf():
    import tensorflow as tf

    cases = []
    for published, side, fraction, sizes in [
        ('tf-slim-large', 331, .875, SIZES), ('tf-slim-mobile', 224, .875, SIZES), (None, 8, .875, SIZES), (None, 7, .6, SIZES[:4]),
    ]:
        for source in images(sizes):
            pixels = image(**source)
            if pixels.ndim == 2:
                pixels = np.repeat(pixels[:, :, None], 3, 2)
            x = tf.image.convert_image_dtype(tf.constant(pixels), tf.float32)
            x = tf.image.central_crop(x, fraction)
            x = tf.compat.v1.image.resize_bilinear(x[None], [side, side], align_corners=False)[0]
            x = tf.multiply(tf.subtract(x, .5), 2.)
            cases.append(case(published, form(side, {'central': fraction}, 'legacy-bilinear'), source, x.numpy()))
    return cases, dict(tensorflow=tf.__version__)


part = sys.argv[1]
cases, versions = dict(pil=pil, tf=tf)[part]()
path = os.path.join(HERE, '..', 'tests', 'golden', f'classify_{part}.json')
with open(path, 'w') as f:
    f.write('{"versions": %s,\n"cases": [\n' % json.dumps(versions))
    f.write(',\n'.join(json.dumps(c, separators=(',', ':')) for c in cases) + '\n]}\n')
print(path, len(cases), 'cases', os.path.getsize(path), 'bytes')
