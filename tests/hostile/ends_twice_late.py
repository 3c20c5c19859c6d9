# leaves from inside the machine's own code
import ctypes

ctypes.string_at(0)
