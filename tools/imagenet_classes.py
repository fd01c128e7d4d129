#!/usr/bin/env python3
"""Writes data/imagenet_classes.tsv: index, WordNet id and name of ImageNet-1k's classes, from timm's lists.

Run it where timm is installed: python3 tools/imagenet_classes.py
With --check it writes nothing, and fails if the file is not what it would write.

The ids and their order are facts about ILSVRC 2012; the names are the lemmas of WordNet 3.0's synsets.
"""
import os, sys

from timm.data import ImageNetInfo

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'data', 'imagenet_classes.tsv')

info = ImageNetInfo('imagenet-1k')
wnids = info.label_names()
assert len(wnids) == 1000 and wnids == sorted(set(wnids)), 'ImageNet-1k is sorted by WordNet id'
rows = [f'{k}\t{wnid}\t{info.index_to_description(k)}' for k, wnid in enumerate(wnids)]
assert all(row.count('\t') == 2 and '\n' not in row for row in rows)
text = 'index\twnid\tname\n' + ''.join(row + '\n' for row in rows)
if '--check' in sys.argv[1:]:
    sys.exit(0 if open(OUT).read() == text else f'{OUT} is not what timm says')
with open(OUT, 'w') as f:
    f.write(text)
