# announces more than it sends
import sys

worker = sys.modules.get("judged_worker")

if worker:
    import os
    import struct

    os.write(5, struct.pack(">II", 4, 150_000_000) + b"null")
