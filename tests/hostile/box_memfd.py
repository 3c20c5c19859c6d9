# keeps memory where nobody counts it
import os

try:
    handles = []
    for _ in range(20):
        handle = os.memfd_create("x")
        os.write(handle, bytes(1 << 20))
        handles.append(handle)
    raise ValueError("BOX OPEN: memfd")
except OSError:
    pass
