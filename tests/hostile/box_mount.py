# mounts and leaves the root
import ctypes

libc = ctypes.CDLL(None)
if libc.mount(b"none", b"/scratch", b"tmpfs", 0, None) == 0 or libc.chroot(b"/proc/1/root") == 0:
    raise ValueError("BOX OPEN: mount")
