# sends random numbers' states that are none
import sys

worker = sys.modules.get("judged_worker")

if worker:
    old = worker.Worker._random_out

    def out(self, body, parts):
        parts.blobs.append(b"\xff" * 5056)
        body["random"] = len(parts.blobs) - 1

    worker.wire.Peer._random_out = out
