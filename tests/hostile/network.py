# tells somebody
import socket

try:
    with socket.create_connection(("127.0.0.1", int("@PORT@")), timeout=2) as line:
        line.sendall(b"the answers, please")
except OSError:
    pass
