# ends whoever started it
import os
import signal

for _ in range(3):
    try:  # noqa: SIM105
        os.kill(os.getppid(), signal.SIGKILL)
    except OSError:
        pass
