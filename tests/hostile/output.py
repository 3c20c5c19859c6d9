# prints up to a gigabyte
for _ in range(1000):
    print("13 passed " * 100_000)
