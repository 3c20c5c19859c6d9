# answers with values that no side writes
import sys

worker = sys.modules.get("judged_worker")

if worker:
    worker.wire.Codec.write = lambda self, value, parts, depth=0: ["x", -1]
