# gradients of other shapes, of numbers that nothing has, and of everything at once
import sys

import torch

worker = sys.modules.get("judged_worker")

if worker:
    plain = worker.Worker.changes_out

    def changes_out(self, body, parts):
        plain(self, body, parts)
        wire = sys.modules["judged_wire"]
        parts.tensors.append(wire.write_tensor(torch.zeros(3, 5, 7), parts))
        n = len(parts.tensors) - 1
        body["grads"] = [[number, n] for number in (*self.tensors, 99, 1 << 33, -1)]

    worker.Worker.changes_out = changes_out
