# raises an error whose class has a name from elsewhere
raise type("\x1b[31m$\\frac{$" + "x" * 100_000, (Exception,), {})("x")
