"""Problem 14: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(14)

# a plain solution, lists of tensors per layer, to be spoilt
PLAIN = """
import torch


class LayerCache:
    def __init__(self, keys, values):
        self.keys = keys
        self.values = values
        self.length = 0

    def append(self, k, v):
        B, H, P, D = self.keys.shape
        T = k.shape[2] if k.dim() == 4 else -1
        if tuple(k.shape) != (B, H, T, D):
            raise ValueError(f"keys {tuple(k.shape)}, expected {(B, H, T, D)}")
        if tuple(v.shape) != (B, H, T, D):
            raise ValueError(f"values {tuple(v.shape)}, expected {(B, H, T, D)}")
        start, end = self.length, self.length + T
        if end > P:
            raise ValueError(f"no room: {start} + {T} > {P}")
        self.keys[:, :, start:end] = k.detach()
        self.values[:, :, start:end] = v.detach()
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    def __init__(self, config, batch_size=1, max_length=None, device=None, dtype=None):
        if max_length is None:
            max_length = config.n_positions
        if batch_size < 1 or max_length < 1:
            raise ValueError(f"batch_size {batch_size} and max_length {max_length} must be at least 1")
        if max_length > config.n_positions:
            raise ValueError(f"max_length {max_length} > n_positions {config.n_positions}")
        self.max_length = max_length
        shape = (batch_size, config.n_head, max_length, config.n_embd // config.n_head)
        self.layers = []
        for _ in range(config.n_layer):
            keys = torch.zeros(shape, device=device, dtype=dtype)
            values = torch.zeros(shape, device=device, dtype=dtype)
            self.layers.append(LayerCache(keys, values))

    @property
    def length(self):
        return min(layer.length for layer in self.layers)

    @property
    def nbytes(self):
        total = 0
        for layer in self.layers:
            for t in (layer.keys, layer.values):
                total += t.numel() * t.element_size()
        return total

    def truncate(self, length):
        if length < 0 or length > self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
        for layer in self.layers:
            layer.length = length

    def reset(self):
        for layer in self.layers:
            layer.length = 0


def cached_logits(model, cache):
    def next_logits(ids):
        if ids.shape[1] > cache.max_length:
            ids = ids[:, -cache.max_length:]
            cache.reset()
        new = ids[:, cache.length:]
        with torch.no_grad():
            logits = model(new, cache, last_only=True)
        return logits[:, -1, :]

    return next_logits
"""
K_CHECK = """        if tuple(k.shape) != (B, H, T, D):
            raise ValueError(f"keys {tuple(k.shape)}, expected {(B, H, T, D)}")
"""
V_CHECK = """        if tuple(v.shape) != (B, H, T, D):
            raise ValueError(f"values {tuple(v.shape)}, expected {(B, H, T, D)}")
"""
ROOM = """        if end > P:
            raise ValueError(f"no room: {start} + {T} > {P}")
"""
STORE = """        self.keys[:, :, start:end] = k.detach()
        self.values[:, :, start:end] = v.detach()
        self.length = end
"""
RETURN = "        return self.keys[:, :, :end], self.values[:, :, :end]\n"
BODY = ROOM + STORE + RETURN
SIZES = """        if batch_size < 1 or max_length < 1:
            raise ValueError(f"batch_size {batch_size} and max_length {max_length} must be at least 1")
"""
LIMIT = """        if max_length > config.n_positions:
            raise ValueError(f"max_length {max_length} > n_positions {config.n_positions}")
"""
SHAPE = "(batch_size, config.n_head, max_length, config.n_embd // config.n_head)"
MAKE = """        for _ in range(config.n_layer):
            keys = torch.zeros(shape, device=device, dtype=dtype)
            values = torch.zeros(shape, device=device, dtype=dtype)
            self.layers.append(LayerCache(keys, values))
"""
LENGTH = "return min(layer.length for layer in self.layers)"
BYTES = "total += t.numel() * t.element_size()"
NBYTES = """        total = 0
        for layer in self.layers:
            for t in (layer.keys, layer.values):
                total += t.numel() * t.element_size()
        return total
"""
TRUNCATE_CHECK = """        if length < 0 or length > self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
"""
SHORTEN = (
    TRUNCATE_CHECK
    + """        for layer in self.layers:
            layer.length = length
"""
)
RESET = """        for layer in self.layers:
            layer.length = 0
"""
WINDOW = """        if ids.shape[1] > cache.max_length:
            ids = ids[:, -cache.max_length:]
            cache.reset()
"""
NEW = "        new = ids[:, cache.length:]\n"
READ = """        with torch.no_grad():
            logits = model(new, cache, last_only=True)
        return logits[:, -1, :]
"""


def wrong(mistake, title, *edits, also=""):
    bank.wrong_edit(mistake, title, *edits, base=PLAIN, also=also)


def right(title, *edits):
    bank.right_edit(title, *edits, base=PLAIN)


# ── one layer
wrong(
    "keys-and-values-swapped",
    "returned the other way round",
    (RETURN, "        return self.values[:, :, :end], self.keys[:, :, :end]\n"),
)
wrong(
    "keys-and-values-swapped",
    "stored the other way round",
    ("start:end] = k.detach()", "start:end] = v.detach()"),
    ("self.values[:, :, start:end] = v.detach()", "self.values[:, :, start:end] = k.detach()"),
)
wrong("whole-buffer-returned", "all places", (RETURN, "        return self.keys, self.values\n"))
wrong(
    "only-the-new-returned",
    "the new places",
    (RETURN, "        return self.keys[:, :, start:end], self.values[:, :, start:end]\n"),
)
wrong("only-the-new-returned", "k and v", (RETURN, "        return k, v\n"))
wrong(
    "only-the-old-returned",
    "the old places",
    (RETURN, "        return self.keys[:, :, :start], self.values[:, :, :start]\n"),
)
wrong(
    "overwrites-the-beginning",
    "always at 0",
    (
        STORE,
        """        self.keys[:, :, :T] = k.detach()
        self.values[:, :, :T] = v.detach()
        self.length = end
""",
    ),
)
wrong(
    "newest-in-front",
    "rolled",
    (
        STORE,
        """        self.keys[:, :, T:end] = self.keys[:, :, :start].clone()
        self.values[:, :, T:end] = self.values[:, :, :start].clone()
        self.keys[:, :, :T] = k.detach()
        self.values[:, :, :T] = v.detach()
        self.length = end
""",
    ),
)
wrong("length-not-advanced", "length forgotten", ("        self.length = end\n", ""))
wrong(
    "length-of-the-last-piece",
    "length replaced",
    ("        self.length = end\n", "        self.length = T\n"),
)
wrong(
    "starts-full",
    "as long as the memory",
    ("self.length = 0\n\n    def append", "self.length = keys.shape[2]\n\n    def append"),
    also="overflow-unnoticed",
)
wrong(
    "grown-by-cat",
    "cat of what is stored",
    (
        BODY,
        """        if end > P:
            raise ValueError(f"no room: {start} + {T} > {P}")
        self.keys = torch.cat([self.keys[:, :, :start], k.detach(), self.keys[:, :, end:]], 2)
        self.values = torch.cat([self.values[:, :, :start], v.detach(), self.values[:, :, end:]], 2)
        self.length = end
"""
        + RETURN,
    ),
)
wrong(
    "grown-by-cat",
    "cat from nothing",
    (
        "        self.keys = keys\n        self.values = values\n",
        "        self.shape = keys.shape\n        self.keys = keys[:, :, :0]\n        self.values = values[:, :, :0]\n",
    ),
    ("B, H, P, D = self.keys.shape", "B, H, P, D = self.shape"),
    (
        STORE,
        """        self.keys = torch.cat([self.keys, k.detach()], dim=2)
        self.values = torch.cat([self.values, v.detach()], dim=2)
        self.length = end
""",
    ),
    also="truncate-loses wrong-memory-shape",
)
wrong(
    "copies-returned",
    "clones",
    (RETURN, "        return self.keys[:, :, :end].clone(), self.values[:, :, :end].clone()\n"),
)
wrong(
    "memory-copied",
    "clones in the constructor",
    (
        "self.keys = keys\n        self.values = values",
        "self.keys = keys.clone()\n        self.values = values.clone()",
    ),
)
wrong(
    "overflow-unnoticed",
    "cut off in silence",
    (
        ROOM,
        "        end = min(end, P)\n        k, v = k[:, :, : end - start], v[:, :, : end - start]\n",
    ),
)
wrong(
    "overflow-unnoticed",
    "the window slides",
    (
        ROOM,
        """        if end > P:
            k, v = k[:, :, -P:], v[:, :, -P:]
            T = k.shape[2]
            keep = P - T
            self.keys[:, :, :keep] = self.keys[:, :, start - keep : start].clone()
            self.values[:, :, :keep] = self.values[:, :, start - keep : start].clone()
            start, end = keep, P
""",
    ),
)
wrong("half-written", "length first", (ROOM, "        self.length = end\n" + ROOM))
wrong(
    "half-written",
    "keys before the values are looked at",
    (
        V_CHECK + "        start, end = self.length, self.length + T\n" + BODY,
        """        start, end = self.length, self.length + T
        if end > P:
            raise ValueError(f"no room: {start} + {T} > {P}")
        self.keys[:, :, start:end] = k.detach()
"""
        + V_CHECK
        + """        self.values[:, :, start:end] = v.detach()
        self.length = end
"""
        + RETURN,
    ),
)
wrong(
    "half-written",
    "as much as fits, then the error",
    (
        ROOM,
        """        if end > P:
            self.keys[:, :, start:] = k[:, :, : P - start].detach()
            raise ValueError(f"no room: {start} + {T} > {P}")
""",
    ),
)
wrong("refuses-the-last-place", ">=", ("if end > P:", "if end >= P:"))
wrong("wrong-error-type", "PyTorch's own error", (ROOM, ""), also="half-written")
wrong(
    "wrong-error-type",
    "an assert",
    (ROOM, "        assert end <= P, f'no room: {start} + {T} > {P}'\n"),
)
wrong(
    "unhelpful-error",
    "which room is not said",
    (ROOM, "        if end > P:\n            raise ValueError('the cache is full')\n"),
)
wrong(
    "broadcasts",
    "shapes not looked at",
    (K_CHECK + V_CHECK, ""),
    also="values-not-checked wrong-error-type",
)
wrong(
    "values-not-checked",
    "only the keys",
    (V_CHECK, ""),
    also="wrong-error-type broadcasts half-written",
)
wrong("keeps-a-graph", "not detached", ("= k.detach()", "= k"), ("= v.detach()", "= v"))
wrong("keeps-a-graph", "values not detached", ("= v.detach()", "= v"))
# ── all layers
wrong(
    "layers-share-memory",
    "one pair for all",
    (
        MAKE,
        """        keys = torch.zeros(shape, device=device, dtype=dtype)
        values = torch.zeros(shape, device=device, dtype=dtype)
        for _ in range(config.n_layer):
            self.layers.append(LayerCache(keys, values))
""",
    ),
)
wrong(
    "layers-share-memory",
    "one layer n times",
    (
        MAKE,
        """        keys = torch.zeros(shape, device=device, dtype=dtype)
        values = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = [LayerCache(keys, values)] * config.n_layer
""",
    ),
)
wrong(
    "keys-share-with-values",
    "one tensor for both",
    ("LayerCache(keys, values))", "LayerCache(keys, keys))"),
)
wrong(
    "wrong-layer-count", "as many as heads", ("range(config.n_layer)", "range(config.n_layer + 1)")
)
wrong(
    "wrong-memory-shape",
    "H and P exchanged",
    (SHAPE, "(batch_size, max_length, config.n_head, config.n_embd // config.n_head)"),
)
wrong(
    "wrong-memory-shape",
    "all of C per head",
    (SHAPE, "(batch_size, config.n_head, max_length, config.n_embd)"),
)
wrong(
    "wrong-memory-shape",
    "nothing at first",
    (
        MAKE,
        """        for _ in range(config.n_layer):
            self.layers.append(LayerCache(None, None))
""",
    ),
)
wrong(
    "ignores-max-length",
    "always n_positions",
    (SHAPE, "(batch_size, config.n_head, config.n_positions, config.n_embd // config.n_head)"),
)
wrong(
    "ignores-batch-size",
    "always one",
    (SHAPE, "(1, config.n_head, max_length, config.n_embd // config.n_head)"),
)
wrong(
    "ignores-dtype",
    "always float32",
    (
        "keys = torch.zeros(shape, device=device, dtype=dtype)",
        "keys = torch.zeros(shape, device=device)",
    ),
)
wrong(
    "ignores-device",
    "always the CPU",
    (
        "values = torch.zeros(shape, device=device, dtype=dtype)",
        "values = torch.zeros(shape, dtype=dtype)",
    ),
)
wrong(
    "caches-share",
    "layers on the class",
    ("class KVCache:\n", "class KVCache:\n    layers = []\n\n"),
    ("        self.layers = []\n", ""),
    also="wrong-layer-count",
)
wrong(
    "size-not-checked",
    "sizes not looked at",
    (SIZES, ""),
    also="wrong-error-type zero-taken-for-default",
)
wrong(
    "zero-taken-for-default",
    "or",
    (
        "        if max_length is None:\n            max_length = config.n_positions\n",
        "        max_length = max_length or config.n_positions\n",
    ),
)
wrong("too-long-accepted", "no limit", (LIMIT, ""))
wrong(
    "length-is-a-method",
    "no @property",
    ("    @property\n    def length", "    def length"),
    ("length > self.length:", "length > self.length():"),
    ("ids[:, cache.length:]", "ids[:, cache.length():]"),
)
wrong(
    "nbytes-is-a-method",
    "nbytes without @property",
    ("    @property\n    def nbytes", "    def nbytes"),
)
wrong(
    "own-length",
    "a number of its own",
    (LENGTH, "return self._length"),
    ("        self.layers = []\n", "        self.layers = []\n        self._length = 0\n"),
)
wrong("length-of-one-layer", "the first layer's", (LENGTH, "return self.layers[0].length"))
wrong("length-of-one-layer", "the last layer's", (LENGTH, "return self.layers[-1].length"))
wrong("longest-layer-counts", "max", (LENGTH, LENGTH.replace("min", "max")))
wrong("length-added-up", "sum", (LENGTH, LENGTH.replace("min", "sum")))
wrong(
    "nbytes-without-values",
    "keys alone",
    ("for t in (layer.keys, layer.values):", "for t in (layer.keys,):"),
)
wrong("nbytes-counts-numbers", "numbers", (BYTES, "total += t.numel()"))
wrong("nbytes-assumes-float32", "4 each", (BYTES, "total += t.numel() * 4"))
wrong(
    "nbytes-of-one-layer",
    "one layer",
    (
        "for layer in self.layers:\n            for t",
        "for layer in self.layers[:1]:\n            for t",
    ),
)
wrong(
    "nbytes-of-what-is-stored",
    "what is stored",
    (BYTES, "total += t[:, :, : layer.length].numel() * t.element_size()"),
)
wrong(
    "truncates-one-object",
    "the first layer alone",
    (SHORTEN, TRUNCATE_CHECK + "        self.layers[0].length = length\n"),
)
wrong(
    "truncates-one-object",
    "the cache's own number",
    (SHORTEN, TRUNCATE_CHECK + "        self._cut = length\n"),
    (
        LENGTH,
        "return min(getattr(self, '_cut', 10**9), *(layer.length for layer in self.layers), 10**9)",
    ),
    also="truncate-lengthens",
)
wrong("truncate-lengthens", "not looked at", (TRUNCATE_CHECK, ""))
wrong(
    "truncate-lengthens",
    "negative",
    ("if length < 0 or length > self.length:", "if length > self.length:"),
)
wrong(
    "truncate-moves-memory",
    "new memory",
    (
        SHORTEN,
        TRUNCATE_CHECK
        + """        for layer in self.layers:
            layer.keys = layer.keys[:, :, :length].clone()
            layer.values = layer.values[:, :, :length].clone()
            layer.length = length
""",
    ),
)
wrong(
    "truncate-loses",
    "erases everything",
    (
        SHORTEN,
        TRUNCATE_CHECK
        + """        for layer in self.layers:
            layer.keys.zero_()
            layer.values.zero_()
            layer.length = length
""",
    ),
)
wrong(
    "truncate-drops-that-many",
    "drops n",
    (
        "            layer.length = length\n\n",
        "            layer.length = layer.length - length\n\n",
    ),
)
wrong(
    "truncate-moves-memory",
    "reset allocates",
    (
        RESET,
        """        for layer in self.layers:
            layer.keys = torch.zeros_like(layer.keys)
            layer.values = torch.zeros_like(layer.values)
            layer.length = 0
""",
    ),
)
wrong(
    "reset-keeps",
    "zeros, but the length stays",
    (
        RESET,
        """        for layer in self.layers:
            layer.keys.zero_()
            layer.values.zero_()
""",
    ),
)
wrong("reset-keeps", "the first layer alone", (RESET, "        self.layers[0].length = 0\n"))
# ── reading each token once
wrong("prompt-fed-again", "everything each time", (NEW, "        new = ids\n"))
wrong(
    "starts-over-each-time",
    "reset before each",
    (WINDOW, "        cache.reset()\n        ids = ids[:, -cache.max_length:]\n"),
)
wrong(
    "cache-not-passed",
    "no cache",
    ("model(new, cache, last_only=True)", "model(ids, last_only=True)"),
)
wrong("only-the-last-fed", "always one", (NEW, "        new = ids[:, -1:]\n"))
wrong(
    "only-the-last-fed",
    "the prompt, then one",
    (NEW, "        new = ids if cache.length == 0 else ids[:, -1:]\n"),
    also="counts-by-itself",
)
wrong(
    "one-token-skipped",
    "one too few",
    (
        NEW,
        "        new = ids[:, cache.length + 1 :] if cache.length else ids\n        new = new if new.shape[1] else ids[:, -1:]\n",
    ),
)
wrong(
    "counts-by-itself",
    "a variable of its own",
    (
        "    def next_logits(ids):\n",
        "    read = 0\n\n    def next_logits(ids):\n        nonlocal read\n",
    ),
    (NEW, "        new = ids[:, read:]\n        read = ids.shape[1]\n"),
    also="window-too-short wrong-window",
)
wrong(
    "only-the-last-fed",
    "the first call",
    (
        "    def next_logits(ids):\n",
        "    first = True\n\n    def next_logits(ids):\n        nonlocal first\n",
    ),
    (NEW, "        new = ids if first else ids[:, -1:]\n        first = False\n"),
    also="counts-by-itself prompt-fed-again window-too-short",
)
wrong("wrong-logits-shape", "(B, 1, V)", ("return logits[:, -1, :]", "return logits"))
wrong("wrong-logits-shape", "(V,)", ("return logits[:, -1, :]", "return logits[0, -1]"))
wrong(
    "wrong-position",
    "the first position",
    (
        READ,
        "        with torch.no_grad():\n            logits = model(new, cache)\n        return logits[:, 0, :]\n",
    ),
)
wrong("window-not-reset", "no window", (WINDOW, ""), also="too-long-refused")
wrong(
    "too-long-refused",
    "an error for long texts",
    (
        WINDOW,
        """        if ids.shape[1] > cache.max_length:
            raise ValueError(f"{ids.shape[1]} tokens > {cache.max_length}")
""",
    ),
)
wrong(
    "window-not-reset",
    "no reset",
    ("            cache.reset()\n", ""),
    (NEW, "        new = ids[:, cache.length:] if cache.length < ids.shape[1] else ids[:, -1:]\n"),
)
wrong(
    "keeps-the-beginning",
    "the first P",
    ("ids[:, -cache.max_length:]", "ids[:, : cache.max_length]"),
)
wrong(
    "window-too-short",
    "half of it",
    ("ids[:, -cache.max_length:]", "ids[:, -(cache.max_length // 2):]"),
)
wrong(
    "window-too-short",
    "only the newest",
    ("            cache.reset()\n", "            cache.reset()\n            ids = ids[:, -1:]\n"),
)
wrong(
    "starts-over-too-early",
    ">=",
    ("if ids.shape[1] > cache.max_length:", "if ids.shape[1] >= cache.max_length:"),
)
wrong("not-a-function", "no return", ("    return next_logits\n", ""))

# ── right ones
right("lists of tensors, plain")
right(
    "narrow and copy_",
    (
        STORE,
        """        with torch.no_grad():
            self.keys.narrow(2, start, T).copy_(k)
            self.values.narrow(2, start, T).copy_(v)
        self.length += T
""",
    ),
    (RETURN, "        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)\n"),
)
right(
    "index_copy_",
    (
        STORE,
        """        where = torch.arange(start, end, device=self.keys.device)
        self.keys.index_copy_(2, where, k.detach())
        self.values.index_copy_(2, where, v.detach())
        self.length = end
""",
    ),
)
right(
    "one buffer for all",
    (
        MAKE,
        """        self.buffer = torch.zeros((config.n_layer, 2, *shape), device=device, dtype=dtype)
        for i in range(config.n_layer):
            self.layers.append(LayerCache(self.buffer[i][0], self.buffer[i][1]))
""",
    ),
    (NBYTES, "        return self.buffer.nbytes\n"),
)
right(
    "a buffer with the places first",
    (
        MAKE,
        """        b, h, p, d = shape
        block = torch.empty((2 * config.n_layer, p, b, h, d), device=device, dtype=dtype)
        for i in range(config.n_layer):
            keys = block[2 * i].permute(1, 2, 0, 3)
            values = block[2 * i + 1].permute(1, 2, 0, 3)
            self.layers.append(LayerCache(keys, values))
""",
    ),
)
right(
    "empty memory",
    ("keys = torch.zeros(", "keys = torch.empty("),
    ("values = torch.zeros(", "values = torch.empty("),
)
right(
    "modules with buffers",
    (
        "class LayerCache:\n    def __init__(self, keys, values):\n        self.keys = keys\n        self.values = values\n",
        """class LayerCache(torch.nn.Module):
    def __init__(self, keys, values):
        super().__init__()
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("values", values, persistent=False)
""",
    ),
    (
        "class KVCache:\n    def __init__(self, config, batch_size=1, max_length=None, device=None, dtype=None):\n",
        """class KVCache(torch.nn.Module):
    def __init__(self, config, batch_size=1, max_length=None, device=None, dtype=None):
        super().__init__()
""",
    ),
    ("        self.layers = []\n", "        self.layers = torch.nn.ModuleList()\n"),
)
right(
    "checks by torch.broadcast and slots",
    (
        K_CHECK + V_CHECK,
        """        for what in (k, v):
            if what.dim() != 4:
                raise ValueError(f"four axes, not {what.dim()}")
            for axis in (0, 1, 3):
                if what.shape[axis] != self.keys.shape[axis]:
                    raise ValueError(f"axis {axis}: {what.shape[axis]} != {self.keys.shape[axis]}")
        if k.shape[2] != v.shape[2]:
            raise ValueError(f"{k.shape[2]} keys and {v.shape[2]} values")
""",
    ),
)
right(
    "nbytes by arithmetic",
    (
        NBYTES,
        """        layer = self.layers[0]
        return 2 * len(self.layers) * layer.keys.numel() * layer.keys.element_size()
""",
    ),
)
right(
    "nbytes as an attribute",
    ("    @property\n    def nbytes(self):\n" + NBYTES + "\n", ""),
    (
        MAKE,
        MAKE
        + "        item = self.layers[0].keys.element_size()\n        C = config.n_embd\n        self.nbytes = 2 * config.n_layer * batch_size * max_length * C * item\n",
    ),
)
right("reset by truncate", (RESET, "        self.truncate(0)\n"))
right(
    "lengths by sorting, layers in a tuple",
    (LENGTH, "return sorted([layer.length for layer in self.layers])[0]"),
    (MAKE, MAKE + "        self.layers = tuple(self.layers)\n"),
)
right(
    "a class with __call__",
    (
        "def cached_logits(model, cache):\n    def next_logits(ids):\n",
        "class Reading:\n    def __init__(self, model, cache):\n        self.model, self.cache = model, cache\n\n    def __call__(self, ids):\n        model, cache = self.model, self.cache\n",
    ),
    (
        "    return next_logits\n",
        "\ndef cached_logits(model, cache):\n    return Reading(model, cache)\n",
    ),
)
right(
    "a lambda's worth, everything by keywords, all positions",
    (
        READ,
        """        out = model(new, cache=cache)
        return out[:, -1].detach()
""",
    ),
)
right(
    "a prompt in pieces",
    (
        READ,
        """        with torch.no_grad():
            for part in new.split(2, dim=1):
                logits = model(part, cache, last_only=True)
        return logits[:, -1, :]
""",
    ),
)
right(
    "at least one token, layers brought into step",
    (
        NEW,
        """        cache.truncate(min(cache.length, ids.shape[1] - 1))
        new = ids[:, cache.length :]
""",
    ),
)
bank.right_edit("the solution")
bank.right_edit(
    "the solution, layer by layer",
    (
        "self.layers = [LayerCache(keys, values) for keys, values in self.buffer]",
        "self.layers = []\n        for i in range(config.n_layer):\n            self.layers.append(LayerCache(self.buffer[i, 0], self.buffer[i, 1]))",
    ),
)
