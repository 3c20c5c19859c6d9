# never ends, and catches whatever would stop it
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
