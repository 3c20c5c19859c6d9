# ends its whole group
import os
import signal

os.killpg(0, signal.SIGKILL)
