# raises what plots take for mathematics
raise ValueError("$\\frac{$ [$\\frac{$] \\begin{x}")
