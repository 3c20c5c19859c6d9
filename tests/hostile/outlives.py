# leaves a process of its own session behind, for half a minute at most
import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for _ in range(300):
            time.sleep(0.1)
    os._exit(0)
