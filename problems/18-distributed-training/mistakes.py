"""The known mistakes of problem 18, by id."""

from learn_gpt2.checking.catalog import Catalog

KNOWN = Catalog()

KNOWN.add(
    "same-shard",
    1,
    "Every rank gets the same examples, so that N ranks compute one gradient N times. Each example "
    "goes to exactly one rank.",
)
KNOWN.add(
    "shards-overlap",
    1,
    "Some examples go to several ranks, and others to none. Each goes to exactly one.",
)
KNOWN.add(
    "shard-size-wrong",
    1,
    "A rank's part must have B / size examples.",
)
KNOWN.add(
    "remainder-accepted",
    1,
    "A batch that does not divide among the ranks is accepted. Parts of different sizes have means "
    "of different weight: raise a ValueError.",
)
KNOWN.add(
    "nothing-broadcast",
    2,
    "The ranks still have different parameters. All of them get those of rank 0.",
)
KNOWN.add(
    "broadcast-from-itself",
    2,
    "Every rank broadcasts from a source of its own. The source is rank 0, on all ranks.",
)
KNOWN.add(
    "broadcast-wrong-source",
    2,
    "All ranks have the same parameters now, but not those of rank 0.",
)
KNOWN.add(
    "buffers-not-broadcast",
    2,
    "The parameters are alike on all ranks, and the buffers are not: a module's `buffers()` go to "
    "all ranks as well.",
)
KNOWN.add(
    "frozen-not-broadcast",
    2,
    "A frozen parameter still differs from rank to rank. It is not trained, and it is part of the "
    "model: all ranks need rank 0's.",
)
KNOWN.add(
    "not-averaged",
    4,
    "Every rank keeps its own gradient: nothing of the others' has come in.",
)
KNOWN.add(
    "sum-for-mean",
    4,
    "The gradients are summed over the ranks. Divide by comm.size: the gradient of a mean is the "
    "mean of the gradients.",
)
KNOWN.add(
    "divided-twice",
    4,
    "The gradients are divided by comm.size twice. Once is enough, before or after the sum.",
)
KNOWN.add(
    "not-waited-for",
    4,
    "A gradient is read before its sum has arrived: all_reduce only starts it, and its numbers mean "
    "nothing before `wait()`.",
)
KNOWN.add(
    "wrong-gradient",
    4,
    "A gradient is not the mean over ranks. Is the flat tensor cut apart in the order in which it "
    "was put together?",
)
KNOWN.add(
    "parameters-averaged",
    4,
    "The parameters were changed. What travels are gradients: averaging the weights after the "
    "optimizer is another algorithm, and with Adam another result.",
)
KNOWN.add(
    "tied-twice",
    3,
    "A parameter that comes twice is sent twice. Tied layers share one tensor, which has one "
    "gradient: count each once.",
)
KNOWN.add(
    "frozen-sent",
    3,
    "A frozen parameter's gradient is sent, or made. It has none: leave it alone.",
)
KNOWN.add(
    "missing-gradient-skipped",
    3,
    "A parameter that has a gradient on one rank and none on another is skipped where there is "
    "none. The ranks then send different messages, and wait forever or add what does not belong "
    "together. It travels as zeros.",
)
KNOWN.add(
    "gradient-stays-none",
    3,
    "A parameter without a gradient still has none afterwards. Every rank has the mean then, also "
    "where its own part was zero.",
)
KNOWN.add(
    "one-message-each",
    3,
    "Each parameter travels in a message of its own, whatever bucket_bytes says. Put them into flat "
    "buckets: every message costs the network's delay.",
)
KNOWN.add(
    "bucket-bytes-ignored",
    3,
    "bucket_bytes has no effect on how many messages there are.",
)
KNOWN.add(
    "hang",
    3,
    "A rank waits for a message that another rank never sends. With real processes, nothing would "
    "ever happen again.",
)
KNOWN.add(
    "messages-mixed-up",
    6,
    "The ranks send different messages at the same place, so that gradients are added which don't "
    "belong together. Every rank sends the same, in the same order.",
)
KNOWN.add(
    "sent-as-they-fill",
    6,
    "Buckets leave in the order in which they fill, and that differs from rank to rank. A full "
    "bucket waits until all buckets before it have left.",
)
KNOWN.add(
    "not-during-backward",
    5,
    "Nothing is sent during the backward pass. A bucket leaves as soon as it is full, while earlier "
    "layers are still being computed.",
)
KNOWN.add(
    "first-layers-first",
    5,
    "The first layers' bucket comes first. The backward pass computes the last layers' gradients "
    "first, so theirs is the bucket that can leave first.",
)
KNOWN.add(
    "wrapper-without-broadcast",
    5,
    "DataParallel does not give all ranks the weights of rank 0 when it is made. Replicas that "
    "start apart stay apart.",
)
KNOWN.add(
    "call-not-the-module",
    7,
    "Calling it must give what the module gives, with all arguments handed on.",
)
KNOWN.add(
    "mode-not-the-module",
    7,
    "train(), eval() and `training` must be the module's: dropout asks the module and not you.",
)
KNOWN.add(
    "parameters-not-the-module",
    7,
    "parameters() and named_parameters() must be the module's own, under its own names.",
)
KNOWN.add(
    "no-sync-ignored",
    8,
    "Messages are sent inside no_sync(). There, gradients are only added up on each rank.",
)
KNOWN.add(
    "no-sync-stays",
    8,
    "After no_sync() nothing is averaged any more. It ends with its block.",
)
KNOWN.add(
    "no-sync-stays-after-error",
    8,
    "After an exception inside no_sync() it is still in force: put the flag back in a `finally`.",
)
KNOWN.add(
    "accumulated-lost",
    8,
    "What was added up inside no_sync() is not part of the mean. The whole of `.grad` travels.",
)
KNOWN.add(
    "never-filled-not-sent",
    9,
    "A bucket that did not fill on this rank is never sent, and another rank waits for it. finish() "
    "sends all that have not left.",
)
KNOWN.add(
    "second-step-wrong",
    9,
    "The first step is right and the second is not. After finish() everything begins again: nothing "
    "has left, and all buckets are empty.",
)
