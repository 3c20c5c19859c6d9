# updates of every module that there may be, with modules of every kind
import sys

worker = sys.modules.get("judged_worker")

if worker:
    plain = worker.Worker.changes_out

    def changes_out(self, body, parts):
        plain(self, body, parts)
        told = {
            "cls": 1,
            "module": True,
            "training": True,
            "parameters": [],
            "buffers": [],
            "modules": [],
            "attributes": [["forward", None], ["__class__", 1]],
        }
        body["updates"] = [
            {"module": told | {"oid": oid}} for oid in (*list(self.objects)[:50], 7, (1 << 32) + 1)
        ]

    worker.Worker.changes_out = changes_out
