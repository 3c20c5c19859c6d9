"""Problem 18: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(18)
wrong, right = bank.wrong_edit, bank.right_edit

REFUSE = "    if len(batch) % size:\n"
PART = "return batch[rank * share : (rank + 1) * share]"
ALL = "for tensor in [*module.parameters(), *module.buffers()]:"
SEND = "comm.broadcast(sent)"
PUT = "        tensor.detach().copy_(sent)\n"
DISTINCT = "return list({id(p): p for p in parameters if p.requires_grad}.values())"
CLOSE = "if not found or filled >= bucket_bytes or kind != (p.dtype, p.device):"
GRADS = "grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]"
FLAT = "flat = torch.cat([grad.detach().flatten() for grad in grads]) / comm.size"
WAIT = "    handle.wait()\n"
SPLIT = "for p, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):"
NONE = """        if p.grad is None:
            p.grad = torch.empty_like(p)
        p.grad.copy_(mean.view_as(p))"""
START = "        broadcast_parameters(module, comm)\n"
BACKWARDS = "_buckets(_distinct(module.parameters())[::-1], bucket_bytes)"
OFF = """        if not self._sync:
            return
"""
LAUNCH = """        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._sent.append(_send(self._buckets[len(self._sent)], self.comm))
"""
CALL = "return self.module(*args, **kwargs)"
ASK = "return getattr(self.module, name)"
QUIET = "before, self._sync = self._sync, False"
FINALLY = """        try:
            yield
        finally:
            self._sync = before
"""
REST = """        for bucket in self._buckets[len(self._sent) :]:
            self._sent.append(_send(bucket, self.comm))
"""
RECEIVED = "            _receive(bucket, flat, handle)\n        self._start_over()"

wrong("same-shard", "the first part for all", (PART, "return batch[:share]"))
wrong("same-shard", "the last part for all", (PART, "return batch[-share:]"))
wrong(
    "shards-overlap", "parts begin one example apart", (PART, "return batch[rank : rank + share]")
)
wrong("shard-size-wrong", "the whole batch but the rank's own", (PART, "return batch[rank:]"))
wrong("remainder-accepted", "the rest dropped", (REFUSE, "    if size < 1:\n"))
wrong("remainder-accepted", "only too few refused", (REFUSE, "    if len(batch) < size:\n"))
wrong("nothing-broadcast", "nothing", (ALL, "for tensor in []:"), also="wrapper-without-broadcast")
wrong("broadcast-from-itself", "each from itself", (SEND, "comm.broadcast(sent, comm.rank)"))
wrong("broadcast-wrong-source", "from the last", (SEND, "comm.broadcast(sent, comm.size - 1)"))
wrong("buffers-not-broadcast", "parameters alone", (ALL, "for tensor in module.parameters():"))
wrong(
    "frozen-not-broadcast",
    "the trained alone",
    (
        ALL,
        "for tensor in [*(p for p in module.parameters() if p.requires_grad), *module.buffers()]:",
    ),
)
wrong("sum-for-mean", "a sum", (FLAT, FLAT.replace(" / comm.size", "")))
wrong(
    "divided-twice",
    "divided again",
    (WAIT, WAIT + "    flat /= 1.0 * _SIZE[0]\n"),
    (
        "    return flat, comm.all_reduce(flat)",
        "    _SIZE[0] = comm.size\n    return flat, comm.all_reduce(flat)",
    ),
    ("BUCKET_BYTES = 25 * 2**20\n", "BUCKET_BYTES = 25 * 2**20\n_SIZE = [1]\n"),
)
wrong("not-waited-for", "no wait", (WAIT, ""))
wrong("not-averaged", "never put back", (NONE, "        pass"))
wrong(
    "wrong-gradient",
    "cut apart from the back",
    (
        SPLIT,
        "for p, mean in zip(bucket[::-1], flat.split([p.numel() for p in bucket[::-1]]), strict=True):",
    ),
)
wrong(
    "tied-twice",
    "a parameter each time it comes",
    (
        DISTINCT,
        "return [p for p in parameters if p.requires_grad]",
    ),
)
wrong(
    "frozen-sent",
    "frozen ones, too",
    (
        DISTINCT,
        "return list({id(p): p for p in parameters}.values())",
    ),
    ("                p.register_post", "                p.requires_grad and p.register_post"),
)
wrong(
    "missing-gradient-skipped",
    "those that have one",
    (
        "buckets = _buckets(_distinct(parameters), bucket_bytes)",
        "buckets = _buckets([p for p in _distinct(parameters) if p.grad is not None], bucket_bytes)",
    ),
)
wrong(
    "gradient-stays-none",
    "None stays None",
    (
        NONE,
        """        if p.grad is not None:
            p.grad.copy_(mean.view_as(p))""",
    ),
)
wrong("one-message-each", "a message each", (CLOSE, "if True:"), also="bucket-bytes-ignored")
wrong("bucket-bytes-ignored", "one for all", (CLOSE, "if not found:"))
wrong(
    "parameters-averaged",
    "the weights",
    (
        NONE,
        NONE + "\n        with torch.no_grad():\n            p += 0.1 * mean.view_as(p)",
    ),
)
wrong("wrapper-without-broadcast", "not when made", (START, ""))
wrong(
    "first-layers-first",
    "from the front",
    (
        BACKWARDS,
        "_buckets(_distinct(module.parameters()), bucket_bytes)",
    ),
    also="not-during-backward",
)
wrong("not-during-backward", "all in finish", (LAUNCH, ""))
wrong(
    "sent-as-they-fill",
    "each when it is full",
    (
        LAUNCH,
        """        i = self._bucket_of[id(p)]
        if not self._missing[i]:
            self._early[i] = _send(self._buckets[i], self.comm)
""",
    ),
    (
        "        self._sent: list[tuple] = []",
        "        self._sent: list[tuple] = []\n        self._early = {}",
    ),
    (
        REST,
        """        for i, bucket in enumerate(self._buckets):
            self._sent.append(self._early.get(i) or _send(bucket, self.comm))
""",
    ),
)
wrong("call-not-the-module", "positional arguments alone", (CALL, "return self.module(*args)"))
wrong(
    "mode-not-the-module",
    "a mode of its own",
    ("        self._sync = True\n", "        self._sync = True\n        self.training = True\n"),
)
wrong("no-sync-ignored", "always", (OFF, ""))
wrong("no-sync-ignored", "the flag left as it is", (QUIET, "before = self._sync"))
wrong("no-sync-stays", "never back on", (FINALLY, "        yield\n"))
wrong(
    "no-sync-stays-after-error",
    "no finally",
    (FINALLY, "        yield\n        self._sync = before\n"),
)
wrong(
    "never-filled-not-sent",
    "the rest not sent",
    (REST, ""),
    ("zip(self._buckets, self._sent, strict=True)", "zip(self._buckets, self._sent)"),
)
wrong(
    "second-step-wrong",
    "nothing begins again",
    (RECEIVED, "            _receive(bucket, flat, handle)"),
    also="error",
)

right("every size-th", (PART, "return batch[rank::size]"))
right("chunks", (PART, "return batch.chunk(size)[rank]"))
right(
    "divided after",
    (FLAT, FLAT.replace(" / comm.size", "")),
    (WAIT, WAIT + "    flat /= handle.size\n"),
    (
        "    return flat, comm.all_reduce(flat)",
        "    return flat, _Sum(comm.all_reduce(flat), comm.size)",
    ),
    (
        "BUCKET_BYTES = 25 * 2**20\n",
        """BUCKET_BYTES = 25 * 2**20


class _Sum:
    def __init__(self, handle, size):
        self.wait, self.size = handle.wait, size

""",
    ),
)
right("a new gradient", (NONE, "        p.grad = mean.view_as(p).clone()"))
right(
    "closes before",
    (
        CLOSE,
        "if not found or filled + p.numel() * p.element_size() > bucket_bytes or kind != (p.dtype, p.device):",
    ),
)
right(
    "one after the other",
    (
        """    sent = [_send(bucket, comm) for bucket in buckets]
    for bucket, (flat, handle) in zip(buckets, sent, strict=True):
        _receive(bucket, flat, handle)
""",
        """    for bucket in buckets:
        flat, handle = _send(bucket, comm)
        _receive(bucket, flat, handle)
""",
    ),
)
right(
    "data",
    (
        """        sent = tensor.detach().contiguous()
        comm.broadcast(sent)
        tensor.detach().copy_(sent)
""",
        "        comm.broadcast(tensor.data, source=0)\n",
    ),
)
right(
    "torch's own flattening",
    (FLAT, "flat = torch._utils._flatten_dense_tensors([g.detach() for g in grads]) / comm.size"),
)

right("sent where it lies", (PUT, ""))
