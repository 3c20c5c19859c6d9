# raises the names of mistakes, and of none
raise ValueError(" ".join(f"[mistake-{i}]" for i in range(5000)) + " [../../x] [<img src=x>]")
