# raises a text that no file can hold
raise ValueError("half a pair: \ud800, and its end \udfff")
