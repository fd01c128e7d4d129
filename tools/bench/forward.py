#!/usr/bin/env python3
"""Time of NASNet-A's forward pass on a CPU: `detect bench` beside ONNX Runtime, OpenVINO and PyTorch, in milliseconds.

Each round starts one process a side, which warms up and gives the median of its runs; rounds alternate between the
sides, and the result is the median over rounds. Nothing else should run meanwhile. The network of the other sides is
written out below in PyTorch and exported; weights are random everywhere, since they do not matter for time.

    python3 -m venv peer && peer/bin/pip install torch==2.11.0 numpy onnx onnxruntime==1.32.0 openvino==2026.4.1
    make && peer/bin/python tools/bench/forward.py [CASE...] [--threads 2] [--batch 1] [--precision float32] [--rounds 3] [--runs 9]

Cases are BACKBONE:SIZE; without one they are nasnet-a-4@1056:224, nasnet-a-4@1056:600 and nasnet-a-6@4032:331. Where
OpenVINO can't compile the network for the processor's widest vectors, it gets those of AVX2, and the table says so.
With `--precision bf16` all but ONNX Runtime, which has none on a CPU, compute products in bfloat16.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = ["nasnet-a-4@1056:224", "nasnet-a-4@1056:600", "nasnet-a-6@4032:331"]
PEERS = ["onnxruntime", "openvino", "torch"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        print(json.dumps(peer(args)))
        return
    print(f"{args.threads} threads, batch {args.batch}, {args.precision}; median ms of {args.rounds} rounds of {args.runs} runs")
    print(f"{'case':22} {'detect':>9}" + "".join(f"{p:>13}" for p in PEERS) + "   detect / best other")
    for case in args.cases:
        times, notes = {side: [] for side in ["detect", *PEERS]}, set()
        for _ in range(args.rounds):
            times["detect"].append(ours(case, args))
            for name in PEERS:
                line, note = theirs(case, name, args)
                times[name].append(line)
                notes.update(note)
        medians = {side: statistics.median(values) for side, values in times.items()}
        best = min(medians[name] for name in PEERS)
        print(f"{case:22} {medians['detect']:9.1f}" + "".join(f"{medians[p]:13.1f}" for p in PEERS)
              + f"   {medians['detect'] / best:.2f}" + "".join(f"   ({n})" for n in sorted(notes)), flush=True)


def ours(case, args):
    backbone, size = case.split(":")
    command = [ROOT / "target/release/detect", "bench", "--backbone", backbone, "--image-size", size, "--device", "cpu",
               "--threads", args.threads, "--batch", args.batch, "--precision", args.precision, "--runs", args.runs, "--json"]
    output = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(output.stdout)["median_ms"]


def theirs(case, name, args):
    """The same in a process of its own: this file with --peer."""
    command = [sys.executable, __file__, case, "--peer", name, "--threads", args.threads, "--batch", args.batch,
               "--precision", args.precision, "--runs", args.runs]
    for note, limit in [([], {}), ([f"{name} with AVX2"], {"ONEDNN_MAX_CPU_ISA": "AVX2"})]:
        found = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **limit})
        if found.returncode == 0:
            return json.loads(found.stdout.splitlines()[-1]), note
    sys.exit(f"{name}: {found.stderr}")


def peer(args):
    """Median time of one side."""
    import torch

    torch.set_num_threads(args.threads)
    backbone, size = args.cases[0].split(":")
    cells, features = map(int, backbone.removeprefix("nasnet-a-").split("@"))
    torch.manual_seed(0)
    image = torch.randn(args.batch, 3, int(size), int(size))
    if args.peer == "torch":
        network = network_of(cells, features).eval().to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)

        def run():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16"):
                network(image)
    else:
        path = pathlib.Path(tempfile.gettempdir()) / f"nasnet_{cells}_{features}_{size}_{args.batch}.onnx"
        if not path.exists():
            torch.onnx.export(network_of(cells, features).eval(), image, path, dynamo=False, opset_version=17,
                              input_names=["x"], output_names=["y"])
        pixels = image.numpy()
        if args.peer == "onnxruntime":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = args.threads
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            run = lambda: session.run(None, {"x": pixels})
        else:
            import openvino

            core = openvino.Core()
            # Left to itself, it computes in bfloat16 where the processor can.
            settings = {"INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY",
                        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bf16": "bf16"}[args.precision]}
            request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
            run = lambda: request.infer({0: pixels})
    times = []
    for _ in range(3 + args.runs):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def network_of(count, features):
    """NASNet-A with `count` cells a stage and `features` channels at its end (Zoph et al. 2018, figures 2 and 4)."""
    import torch
    from torch import nn
    from torch.nn import functional

    def padding(n, kernel, stride):
        total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
        return total // 2, total - total // 2

    def padded(x, kernel, stride):
        (top, bottom), (left, right) = (padding(int(n), kernel, stride) for n in x.shape[-2:])
        return functional.pad(x, (left, right, top, bottom)) if top or bottom or left or right else x

    def norm(channels):
        return nn.BatchNorm2d(channels, eps=1e-3)

    class Separable(nn.Module):
        def __init__(self, inputs, outputs, kernel, stride):
            super().__init__()
            self.kernel, self.strides = kernel, (stride, 1)
            channels = (inputs, outputs)
            self.depthwise = nn.ModuleList(
                nn.Conv2d(c, c, kernel, s, groups=c, bias=False) for c, s in zip(channels, self.strides))
            self.pointwise = nn.ModuleList(nn.Conv2d(c, outputs, 1, bias=False) for c in channels)
            self.norms = nn.ModuleList(norm(outputs) for _ in range(2))

        def forward(self, x):
            for depthwise, pointwise, after, stride in zip(self.depthwise, self.pointwise, self.norms, self.strides):
                x = after(pointwise(depthwise(padded(functional.relu(x), self.kernel, stride))))
            return x

    class Pool(nn.Module):
        def __init__(self, kind, stride):
            super().__init__()
            self.kind, self.stride = kind, stride

        def forward(self, x):
            # 3x3 pools with SAME padding: of 1, or where an even side is halved of 0 with a window over the end. Images are squares.
            over = bool(self.stride == 2 and int(x.shape[-1]) % 2 == 0)
            if self.kind == "max":
                return functional.max_pool2d(x, 3, self.stride, int(not over), ceil_mode=over)
            return functional.avg_pool2d(x, 3, self.stride, int(not over), ceil_mode=over, count_include_pad=False)

    class Fit(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(inputs, outputs, 1, bias=False), norm(outputs)

        def forward(self, x):
            return self.norm(self.convolution(functional.relu(x)))

    class Factorized(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
            self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
            self.norm = norm(outputs)

        def forward(self, x):
            x = functional.relu(x)
            height, width = map(int, x.shape[-2:])
            odd = functional.pad(x, (0, width % 2, 0, height % 2))[:, :, 1::2, 1::2]
            return self.norm(torch.cat([self.even(x[:, :, ::2, ::2]), self.odd(odd)], 1))

    # Each row of a cell adds two of these; H is 0, P is 1, the rows are 2 and on.
    normal = [("5", 0, "3", 1), ("5", 1, "3", 1), ("avg", 0, "id", 1), ("avg", 1, "avg", 1), ("3", 0, "id", 0)]
    reduction = [("5", 0, "7", 1), ("max", 0, "7", 1), ("avg", 0, "5", 1), ("id", 3, "avg", 2), ("3", 2, "max", 0)]

    class Cell(nn.Module):
        def __init__(self, current, previous, width, halves, fit):
            super().__init__()
            self.fit_current, self.fit_previous = Fit(current, width), fit
            self.rows, self.joined = (reduction, [3, 4, 5, 6]) if halves else (normal, [1, 2, 3, 4, 5, 6])

            def operation(kind, state):
                stride = 2 if halves and state < 2 else 1
                if kind == "id":
                    return nn.Identity()
                if kind in ("avg", "max"):
                    return Pool(kind, stride)
                inputs = previous if state == 1 and isinstance(fit, nn.Identity) else width
                return Separable(inputs, width, int(kind), stride)

            self.operations = nn.ModuleList(
                nn.ModuleList([operation(a, i), operation(b, j)]) for a, i, b, j in self.rows)

        def forward(self, current, previous):
            states = [self.fit_current(current), self.fit_previous(previous)]
            for (_, i, _, j), (left, right) in zip(self.rows, self.operations):
                states.append(left(states[i]) + right(states[j]))
            return torch.cat([states[s] for s in self.joined], 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            large = (count, features) == (6, 4032)
            filters, stem = features // 24, 96 if large else 32
            self.stem, self.stem_norm = nn.Conv2d(3, stem, 3, 2, bias=False), norm(stem)
            # Channels and halvings of the maps before and now; which map a cell reads as P.
            maps, self.reads, self.cells = [(stem, 0)], [], nn.ModuleList()
            plan = [(filters // 4, True), (filters // 2, True)]
            for stage in range(3):
                plan += [(filters << stage, True)] * (stage > 0) + [(filters << stage, False)] * count
            skip = None
            for number, (width, halves) in enumerate(plan):
                current, previous = len(maps) - 1, max(len(maps) - 2, 0)
                if skip is not None:
                    previous, skip = skip, None
                if halves and number > 1 and large:
                    skip = previous
                (inputs, halvings), (before, before_halvings) = maps[current], maps[previous]
                if number == 0:
                    fit = nn.Identity()
                else:
                    fit = (Factorized if before_halvings < halvings else Fit)(before, width)
                self.cells.append(Cell(inputs, before, width, halves, fit))
                self.reads.append((current, previous))
                maps.append((width * (4 if halves else 6), halvings + halves))
            self.classifier = nn.Linear(features, 1000)

        def forward(self, x):
            maps = [self.stem_norm(self.stem(x))]
            for cell, (current, previous) in zip(self.cells, self.reads):
                maps.append(cell(maps[current], maps[previous]))
            return self.classifier(functional.relu(maps[-1]).mean([2, 3]))

    return Network()


if __name__ == "__main__":
    main()
