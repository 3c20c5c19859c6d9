# makes namespaces of its own
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000) == 0 or libc.unshare(0x40000000) == 0:
    raise ValueError("BOX OPEN: unshare")
