"""What TensorBoard reads in a run folder, as JSON: {tag: [[step, wall time, value], ...]}.

    python tests/watch/events.py RUN

Ends with 3 where tensorboard is not installed.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    sys.exit(3)

accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
accumulator.Reload()
tags = accumulator.Tags()["scalars"]
print(json.dumps({tag: [[e.step, e.wall_time, e.value] for e in accumulator.Scalars(tag)] for tag in tags}))
