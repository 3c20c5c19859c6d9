# has a signature, names and docstrings that go on forever
import inspect

kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
many = [inspect.Parameter(f"p{i}" * 100, kind) for i in range(3000)]
ScaledDotProductAttention.forward.__signature__ = inspect.Signature(many)
ScaledDotProductAttention.__doc__ = "x" * 10_000_000
