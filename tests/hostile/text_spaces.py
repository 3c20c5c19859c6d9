# raises a very long text of spaces
raise ValueError(" " * 900_000 + "x")
