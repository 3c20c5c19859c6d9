# raises an error that has no text
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


raise Mute
