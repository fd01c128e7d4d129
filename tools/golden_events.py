"""Writes tests/golden/events/tensorboard.bin with tensorboard's own messages and its own writer of records.

    python tools/golden_events.py

Needs tensorboard (2.15 wrote what is committed). It reads tests/golden/events/metrics.jsonl, which was
written by hand, and says for itself which number of a line goes under which name.
"""

import json
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

STATS = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
FOLDER = Path(__file__).parent.parent / "tests" / "golden" / "events"


def scalars(line):
    group = {"step": "train", "eval": "eval"}.get(line["kind"])
    if group is None:
        return
    numbers = {k: v for k, v in line.items() if k not in ("step", "time") and type(v) in (int, float)}
    numbers.update({k: v for k, v in zip(STATS, line.get("stats", [])) if k not in numbers})
    for name, number in numbers.items():
        yield f"{group}/{name}", number


def main():
    lines = [json.loads(line) for line in (FOLDER / "metrics.jsonl").read_text().splitlines()]
    time = lines[0]["time"]
    events = [
        Event(wall_time=time, file_version="brain.Event:2"),
        Event(wall_time=time, session_log=SessionLog(status=SessionLog.START)),
    ]
    for line in lines:
        time = line.get("time", time)
        values = [Summary.Value(tag=tag, simple_value=number) for tag, number in scalars(line)]
        if values:
            events.append(Event(wall_time=time, step=line["step"], summary=Summary(value=values)))
    with (FOLDER / "tensorboard.bin").open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


if __name__ == "__main__":
    main()
