# writes to the tests, to the solutions, to another student's file, to the report and to /tmp
import os
from pathlib import Path

targets = [Path(p) for p in "@TARGETS@".split(os.pathsep)]
for target in targets:
    for attempt in (lambda t: t.write_text("owned"), os.unlink, lambda t: t.mkdir()):
        try:  # noqa: SIM105
            attempt(target)
        except OSError:
            pass
