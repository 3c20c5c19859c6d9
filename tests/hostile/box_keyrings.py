# reads the system's keyrings
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
found = []
for ring in (-3, -4, -5):
    buffer = ctypes.create_string_buffer(4096)
    if libc.syscall(250, 11, ring, buffer, 4096, 0) > 0:
        found.append(buffer.raw[:64])
if any(any(f) for f in found):
    raise ValueError(f"BOX OPEN: keys {found}")
