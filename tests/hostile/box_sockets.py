# opens sockets of other kinds
import socket

for family in (40, 16, 17, 38):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
        raise ValueError(f"BOX OPEN: socket family {family}")
    except OSError:
        pass
