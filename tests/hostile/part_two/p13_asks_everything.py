# asks the judge for every object it may have, by every name and in every way
import sys

worker = sys.modules.get("judged_worker")
NAMES = (
    "want",
    "expected",
    "seen",
    "calls",
    "__globals__",
    "__self__",
    "__func__",
    "__code__",
    "__class__",
    "_want",
    "func",
)

if worker:
    plain = worker.Worker._do

    def _do(self, message, parts):
        for gid in range(1, 40):
            for what in (
                "get",
                "call",
                "set",
                "__getitem__",
                "__iter__",
                "__enter__",
                "__exit__",
                "__reduce__",
                "__del__",
            ):
                for name in NAMES if what in ("get", "set") else (None,):
                    try:
                        got = self.of_given(gid, what, name)
                    except Exception:
                        continue
                    if what == "get":
                        raise RuntimeError(f"BOX OPEN: {name} of {gid} is {got}")
        return plain(self, message, parts)

    worker.Worker._do = _do
