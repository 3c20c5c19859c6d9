# claims to have changed tensors that it was not given
import sys

worker = sys.modules.get("judged_worker")

if worker:
    worker.Worker._do = lambda self, message, parts: {"value": None, "edited": [[0, 0], [7, 7]]}
