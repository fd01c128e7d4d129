#!/usr/bin/env python3
"""Prints per-cell counts of timm's nasnetalarge in the form of tests/golden/nasnet/breakdown_large.tsv.

    python3 tools/golden_counts.py > large.tsv
    python3 tools/golden_counts.py --check tests/golden/nasnet/breakdown_large.tsv

Needs torch and timm; no weights are fetched or made. The network runs once on an image of 331 x 331 without data
(torch's meta device). Parameters are the trained ones of a module; multiply-adds those of its convolutions and linear
layers on one image. A cell's inputs are the modules that made the tensors it was called with.

timm has the large network alone. breakdown_mobile.tsv and breakdown_cifar.tsv were made by a counting model in PyTorch
that was written after TF-slim's code, apart from this program; on the large network it and timm agree to the last digit.
"""
import sys

import timm
import torch


def products(module, output):
    """Multiply-adds of a layer that made `output`."""
    if isinstance(module, torch.nn.Conv2d):
        height, width = module.kernel_size
        return output.numel() * module.in_channels // module.groups * height * width
    if isinstance(module, torch.nn.Linear):
        return module.in_features * module.out_features
    return 0


def rows():
    with torch.device('meta'):
        network = timm.create_model('nasnetalarge', num_classes=1000).eval()
        image = torch.empty(1, 3, 331, 331)
    parts = {name: part for name, part in network.named_children()
             if name in ('conv0', 'last_linear') or name.startswith(('cell_', 'reduction_cell_'))}
    made, inputs, counts = [], {}, dict.fromkeys(parts, 0)

    def counter(name):
        def count(module, _, output):
            counts[name] += products(module, output)
        return count

    def entered(name):
        def record(_, tensors):
            inputs[name] = [next(n for n, made_by in made if made_by is t) for t in tensors]
        return record

    def left(name):
        return lambda _module, _tensors, output: made.append((name, output))

    for name, part in parts.items():
        for module in part.modules():
            module.register_forward_hook(counter(name))
        if name not in ('conv0', 'last_linear'):
            part.register_forward_pre_hook(entered(name))
        part.register_forward_hook(left(name))
    with torch.no_grad():
        network(image)

    for name, output in made:
        parameters = sum(p.numel() for p in parts[name].parameters())
        if name == 'last_linear':
            yield 'fc', '-', '-', '-', parameters, counts[name]
        elif name == 'conv0':
            # The files give no multiply-adds of the stem convolution.
            yield name, '-', output.shape[1], output.shape[2], parameters, '-'
        else:
            read = inputs[name]
            if len(read) == 1:
                read.append('(same)')
            # timm hands its second stem cell the older map first.
            if name == 'cell_stem_1':
                read.reverse()
            yield name, ','.join(read), output.shape[1], output.shape[2], parameters, counts[name]


def main():
    head = 'module', 'input_from(cur,prev)', 'out_ch', 'out_size', 'params', 'macs'
    text = ''.join('\t'.join(map(str, row)) + '\n' for row in [head, *rows()])
    if sys.argv[1:2] == ['--check']:
        with open(sys.argv[2]) as file:
            if file.read() != text:
                sys.exit(f'{sys.argv[2]} differs from what timm {timm.__version__} has')
        print('equal', file=sys.stderr)
    else:
        sys.stdout.write(text)


if __name__ == '__main__':
    main()
