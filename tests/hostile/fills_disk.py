# writes files of 100 MB, up to a gigabyte
for i in range(10):
    with open(f"big{i}", "wb") as file:
        file.write(bytes(100_000_000))
