# asks for ten gigabytes in forward
hoard = [bytearray(100_000_000) for _ in range(100)]
