# asks the judge instead of answering, again and again
import sys

worker = sys.modules.get("judged_worker")

if worker:

    def ask(self, message, parts):
        for i in range(100_000):
            self.line.send("given", {"gid": i, "what": "get", "name": "__class__"})
        return {}

    worker.Worker._do = ask
