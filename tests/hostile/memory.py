# asks for ten gigabytes, a tenth of one at a time
hoard = [bytearray(100_000_000) for _ in range(100)]
