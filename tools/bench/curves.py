#!/usr/bin/env python3
"""Draws AP over minutes of training: runs of `detect train` beside those of tools/bench/torchvision_train.py.

    peer/bin/pip install matplotlib
    peer/bin/python tools/bench/curves.py TITLE:LABEL=LOG... --out docs/curves.png

LOG is a run folder's metrics.jsonl or the other's log. Curves of the same TITLE share a panel; those of the same LABEL
share a colour. The time is that of steps alone: evaluations and pauses are left out.
"""
import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def curve(log):
    """Minutes and AP of each evaluation."""
    lines = map(json.loads, pathlib.Path(log).read_text().splitlines())
    points = [(line["train_seconds"] / 60, line["AP"]) for line in lines if line["kind"] == "eval"]
    return zip(*[(0, 0), *points])


def described(text):
    """Title, label and log of an argument."""
    curve, _, log = text.partition("=")
    title, _, label = curve.partition(":")
    if not (title and label and log):
        raise argparse.ArgumentTypeError(f"{text}: expected TITLE:LABEL=LOG")
    return title, label, log


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="+", type=described, metavar="TITLE:LABEL=LOG")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    titles = list(dict.fromkeys(title for title, _, _ in args.curves))
    labels = list(dict.fromkeys(label for _, label, _ in args.curves))
    figure, panels = plt.subplots(1, len(titles), figsize=(4 * len(titles), 3.2), squeeze=False, layout="constrained")
    for title, panel in zip(titles, panels[0]):
        for own, label, log in args.curves:
            if own == title:
                panel.plot(*curve(log), marker="o", markersize=3, color=f"C{labels.index(label)}", label=label)
        panel.set(title=title, xlabel="minutes of training", xlim=(0, None), ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right", fontsize=8)
    panels[0][0].set_ylabel("AP on the split val")
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
