# answers with lists in lists, deeper than Python goes
import sys

worker = sys.modules.get("judged_worker")

if worker:

    def _do(self, message, parts):
        value = []
        for _ in range(400):
            value = ["l", [value]]
        return {"value": value, "updates": [value], "loose": value}

    worker.Worker._do = _do
