"""A model made ready for inference: for one forward pass at a time (`Inference`), or until it is
undone (`prepare`).

Whatever pieces the model is made of, its modules, parameters and code are left alone: a layer gets
a `forward` of its own on top, and loses it again. Decoding one sequence reads every weight once per
token, so what counts is how fast a layer reads its weight, and how many bytes it has.

Shapes: M rows (B·T), K a linear layer's inputs, N its outputs.
"""

from __future__ import annotations

import functools
import platform
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.inference.cache_rows import block_of
from gpt2.inference.fused import fusible

if TYPE_CHECKING:
    from gpt2.cache import KVCache

SLICES = 16  # more than a machine of this kind has threads, so that they finish at about one time
FEWEST_THREADS = 2  # that slices are for
WORTH_SLICING = 2**18  # numbers in a weight; below, the calls cost what the threads save


class Inference:
    """`with Inference(model): …` runs in eval mode, without gradients, with PyTorch's fused
    attention and with linear layers that read their weights on all cores. Make it once, enter it
    for each pass.

    Between passes the model is as it was found, to whoever looks at it while tokens stream.
    """

    def __init__(self, model: nn.Module):
        self.modules = list(model.modules())
        self.slices = [Slices(module) for module in self.modules if _can_slice(module)]
        self.fused = fusible(model)
        self._entered: list[tuple[Any, ...]] = []

    def __enter__(self) -> None:
        training = [module for module in self.modules if module.training]
        # a forward of the module's own (someone else's patch) is left alone
        sliced = [slices for slices in self.slices if "forward" not in slices.module.__dict__]
        fused = [f for f in self.fused if "forward" not in f.attention.__dict__]
        no_grad = torch.no_grad()
        no_grad.__enter__()
        self._entered.append((training, sliced, fused, no_grad))
        for module in training:
            module.training = False
        for slices in sliced:
            slices.module.__dict__["forward"] = slices
        for kernel in fused:
            kernel.attention.__dict__["forward"] = kernel

    def __exit__(self, *error: object) -> None:
        training, sliced, fused, no_grad = self._entered.pop()
        for kernel in fused:
            kernel.attention.__dict__.pop("forward", None)
        for slices in sliced:
            slices.module.__dict__.pop("forward", None)
        for module in training:
            module.training = True
        no_grad.__exit__(*error)


def _can_slice(module: nn.Module) -> bool:
    """Is it PyTorch's own linear layer, float32 on the CPU, and large?"""
    if type(module) is not nn.Linear or torch.get_num_threads() < FEWEST_THREADS:
        return False
    weight = module.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and weight.numel() >= WORTH_SLICING
    )


class Slices:
    """A linear layer's forward, for a single row a batch of products with slices of the weight.

    PyTorch's product of a matrix and a vector runs on one thread, and reading the weight is all it
    does; a batch of products runs on all. The slices are views, made once: nothing is copied, and
    a weight that changes in place changes here.
    """

    def __init__(self, module: nn.Linear):
        self.module = module
        self._cut(module.weight, module.bias)

    def _cut(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.cut_from = _places(weight, bias)
        self.N, self.K = weight.shape
        rows = self.N // SLICES  # per slice; what is left over is one more product
        self.even = rows * SLICES
        weight = weight.detach()
        self.matrices = weight[: self.even].view(SLICES, rows, self.K).transpose(1, 2)
        self.left = weight[self.even :]
        self.biases = self.left_bias = None
        if bias is not None:
            self.biases = bias.detach()[: self.even].view(SLICES, 1, rows)
            self.left_bias = bias.detach()[self.even :]

    def __call__(self, x: Tensor) -> Tensor:
        """x (…, K) → (…, N)."""
        weight, bias = self.module.weight, self.module.bias
        if x.dtype != weight.dtype or torch.is_grad_enabled():
            return F.linear(x, weight, bias)
        if x.numel() != self.K or x.size(-1) != self.K:
            return many_rows(x, weight, bias)
        return self._one_row(x.reshape(1, self.K), weight, bias).view(*x.shape[:-1], self.N)

    def rows(self, x: Tensor) -> Tensor:
        """x (M, K) → (M, N), both float32, without gradients and by the parameters cut last."""
        if len(x) > 1:
            return many_rows(x, self.weight, self.bias)
        return self._one_row(x, self.weight, self.bias)

    def _one_row(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (1, K) → (1, N)."""
        if _places(weight, bias) != self.cut_from:  # other data, by `weight.data = …`
            self._cut(weight, bias)
        vectors = x.expand(SLICES, 1, self.K)
        if self.biases is None:
            y = torch.bmm(vectors, self.matrices)
        else:
            y = torch.baddbmm(self.biases, vectors, self.matrices)
        y = y.view(1, self.even)
        if self.even == self.N:
            return y
        return torch.cat([y, F.linear(x, self.left, self.left_bias)], 1)


def _places(weight: Tensor, bias: Tensor | None) -> tuple[int, int]:
    """Where the numbers are."""
    return weight.data_ptr(), 0 if bias is None else bias.data_ptr()


def many_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer for more than one row, float32 on the CPU: (…, K) → (…, N).

    By oneDNN where the processor is not Intel's: PyTorch's default there is Intel's MKL, which
    was slower for 2 to 512 rows on the AMD machine this was tried on.
    """
    if not torch.is_grad_enabled() and _prefer_onednn():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


@functools.cache
def _prefer_onednn() -> bool:
    """Is this an AMD processor, with a PyTorch that has MKL and oneDNN, whose operator works?"""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    info = Path("/proc/cpuinfo")
    name = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    if "AuthenticAMD" not in name + platform.processor():
        return False
    x, weight = torch.eye(3, 5), torch.eye(4, 5)
    try:
        y = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):  # no public operator: it may change
        return False
    return torch.equal(y, F.linear(x, weight))


# ------------------------------------------------------------------------- weights of fewer bytes

FEW_ROWS = 16  # beyond, a product is bound by arithmetic, and the plain layer is the fastest
Kernel = Callable[[Tensor], Tensor]  # few float32 rows (M, K) → (M, N)


class Half16:
    """float16 weights and float32 rows: half the bytes, and rounding of the weights alone.

    By FBGEMM where PyTorch has it (x86), else rows are rounded too. ValueError for a weight that
    float16 cannot hold.
    """

    def __init__(self, module: nn.Linear):
        weight, bias = module.weight.detach(), module.bias
        if weight.abs().max() > torch.finfo(torch.float16).max:
            raise ValueError(
                f"a weight of {weight.abs().max():.3g} is too large for float16 "
                "(at most 65504); bfloat16 holds it"
            )
        self.bias = None if bias is None else bias.detach()
        self.nbytes = 2 * weight.numel()
        try:
            self.packed = torch.ops.quantized.linear_prepack_fp16(weight, self.bias)
            self.packed_linear = _packed_fp16_linear()
        except (AttributeError, RuntimeError):  # no FBGEMM in this build
            self.packed = None
            self.weight = weight.half()

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is not None:
            return self.packed_linear(x, self.packed)
        y = F.linear(x.half(), self.weight).float()
        return y if self.bias is None else y + self.bias


@functools.cache
def _packed_fp16_linear() -> Callable[[Tensor, torch.ScriptObject], Tensor]:
    """FBGEMM's product of float32 rows (M, K) with a packed weight → (M, N).

    By TorchScript where PyTorch still has it: a call takes 16 µs, and 50 through `torch.ops`, where
    the packed weight is converted for each; a step has 49.
    """
    program = """
def linear(rows, weight: __torch__.torch.classes.quantized.LinearPackedParamsBase):
    return torch.ops.quantized.linear_dynamic_fp16(rows, weight)
"""
    try:
        return torch.jit.CompilationUnit(program).linear
    except (AttributeError, RuntimeError):
        return torch.ops.quantized.linear_dynamic_fp16


class BFloat16:
    """bfloat16 weights and rows, float32 bias: half the bytes and float32's range.

    One row: PyTorch's own kernel, twice as fast as oneDNN's on the machine this was tried on; more
    rows: oneDNN's.
    """

    def __init__(self, module: nn.Linear):
        self.weight = module.weight.detach().bfloat16()
        self.bias = None if module.bias is None else module.bias.detach()
        self.nbytes = 2 * self.weight.numel()

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        onednn = torch._C._get_mkldnn_enabled()
        if len(x) == 1 and onednn:
            torch._C._set_mkldnn_enabled(False)
            try:
                y = F.linear(rows, self.weight)
            finally:
                torch._C._set_mkldnn_enabled(True)
        else:
            y = F.linear(rows, self.weight)
        y = y.float()  # before the bias: a sum of two types takes three times as long
        return y if self.bias is None else y.add_(self.bias)


class Int8:
    """A product with the integers of an 8-bit QuantizedLinear and its scales, by PyTorch's kernel:
    bfloat16 rows, a quarter of the bytes. ValueError for a layer that the kernel can't take.

    The kernel's result is bfloat16, and the logits of GPT-2 have a large part in common, which
    would cost it its digits. So what a tall weight (the head) makes of the direction of its mean row is
    taken out of the rows first, and added in float32: the same sum in another order.
    """

    def __init__(self, layer: nn.Module):
        q, scale = layer.qweight.contiguous(), layer.scale.float()
        N, K = q.shape
        if q.dtype != torch.int8 or scale.shape != (N, 1):
            raise ValueError(f"no kernel for {q.dtype} with scales {tuple(scale.shape)}")
        # PyTorch's kernel reads rows in pieces of 16 and past the end of one that is not a multiple
        self.padding = -K % 32
        self.weight = F.pad(q, (0, self.padding))
        self.ones = torch.ones(N, dtype=torch.bfloat16)  # its own scales are bfloat16, too coarse
        self.scale = scale[:, 0].contiguous()
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.nbytes = self.weight.numel()
        self.direction = self.along = None
        if N >= 8 * K:
            mean = torch.zeros(K)
            for rows, scales in zip(q.split(4096), scale.split(4096), strict=True):
                mean += (rows.float() * scales).sum(0)
            self.direction = mean / mean.norm().clamp_min(1e-30)  # (K,)
            parts = [rows.float() @ self.direction for rows in q.split(4096)]
            self.along = torch.cat(parts) * self.scale  # (N,)

    def __call__(self, x: Tensor) -> Tensor:
        common = None
        if self.direction is not None:
            common = x @ self.direction  # (M,)
            x = torch.addr(x, common, self.direction, alpha=-1)
        rows = x.bfloat16()
        rows = F.pad(rows, (0, self.padding)) if self.padding else rows
        y = torch._weight_int8pack_mm(rows, self.weight, self.ones).float()
        y = y.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, y, self.scale)
        return y if common is None else y.addr_(common, self.along)


class Int4:
    """A product with the integers of a 4-bit QuantizedLinear and its scales, by PyTorch's kernel:
    bfloat16 rows and scales, an eighth of the bytes. ValueError for a layer that it can't take.
    """

    def __init__(self, layer: nn.Module):
        from gpt2.quantization import unpack_int4

        q, scale = unpack_int4(layer.qweight), layer.scale
        (self.N, K), G = q.shape, scale.size(1)
        self.group = K // G
        if self.group not in (32, 64, 128, 256):
            raise ValueError(f"no kernel for groups of {self.group}")
        rows = -self.N % 16  # the kernel takes its rows by sixteen
        stored = F.pad(q.int() + 8, (0, 0, 0, rows), value=8)
        self.weight = torch._convert_weight_to_int4pack_for_cpu(stored, 1)
        scale = F.pad(scale, (0, 0, 0, rows)).t()
        self.scale = torch.stack((scale, torch.zeros_like(scale)), -1).bfloat16().contiguous()
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.nbytes = self.weight.numel() + self.scale.numel()  # the half of it that is not zeros

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        y = torch._weight_int4pack_mm_for_cpu(rows, self.weight, self.group, self.scale)
        y = y[:, : self.N].float()
        return y if self.bias is None else y.add_(self.bias)


class ByTheLayer:
    """A product by the QuantizedLinear itself, which makes the whole weight for it: slow."""

    def __init__(self, layer: nn.Module):
        self.layer = layer
        self.nbytes = sum(t.numel() * t.element_size() for t in layer.buffers())

    def __call__(self, x: Tensor) -> Tensor:
        return self.layer(x)


BITS = {"int8": 8, "int4": 4}
GROUP = 32  # weights that share a scale at 4 bits, where it divides the row


def quantized(module: nn.Linear, bits: int) -> Int8 | Int4 | ByTheLayer:
    """The product with a linear layer's weight as gpt2/quantization.py quantizes it: by a kernel of
    PyTorch's where that gives what the quantized layer gives, else by the layer itself.
    """
    from gpt2.quantization import QuantizedLinear

    group = GROUP if bits == 4 and module.weight.size(1) % GROUP == 0 else None
    layer = QuantizedLinear(module, bits, group).eval()
    try:
        kernel = (Int8 if bits == 8 else Int4)(layer)
        if _gives_the_same(kernel, layer, module.weight.size(1)):
            return kernel
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        pass  # made in another way than the contract says, or no kernel in this PyTorch
    return ByTheLayer(layer)


def _gives_the_same(kernel: Kernel, layer: nn.Module, K: int) -> bool:
    """Does a kernel give what the layer gives, up to the rounding of rows to bfloat16?"""
    x = torch.randn(2, K, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want, got = layer(x), kernel(x)
    atol = 0.02 * float(want.std(unbiased=False)) + 1e-6
    same = got.shape == want.shape and atol < float("inf")  # NaN can't be compared
    return same and torch.allclose(got, want, rtol=2**-6, atol=atol)


def quantize_whole(model: nn.Module, kind: str) -> None:
    """Put quantized layers in place of a model's linear layers, for good: "int8" or "int4"."""
    from gpt2.quantization import quantize_model

    inputs = {m.weight.size(1) for m in model.modules() if isinstance(m, nn.Linear)}
    grouped = kind == "int4" and all(K % GROUP == 0 for K in inputs)
    quantize_model(model, BITS[kind], GROUP if grouped else None)


def few_rows_linear(module: nn.Linear, kernel: Kernel, x: Tensor) -> Tensor:
    """`module(x)`, by the kernel for few rows; plain for many, and where gradients are wanted."""
    weight = module.weight
    N, K = weight.shape
    if x.dtype != torch.float32 or x.device != weight.device or x.size(-1) != K:
        return F.linear(x, weight, module.bias)
    if torch.is_grad_enabled() or not 0 < x.numel() <= FEW_ROWS * K:
        return many_rows(x, weight, module.bias)
    return kernel(x.reshape(-1, K)).view(*x.shape[:-1], N)


# ------------------------------------------------------------------------------------- prepared


class Prepared:
    """A model that `prepare` has made ready. Leaving the `with` block, or `restore`, undoes it.

    Attributes: `model`; `replaced`, the layers that compute in another way; `bytes_per_token`, what
    its linear layers read for one token; `description`, how they do it.
    """

    def __init__(self, model: nn.Module, description: str):
        self.model = model
        self.description = description
        self.replaced: list[nn.Module] = []
        self.bytes_per_token = 0
        self.decoder: _Decoder | None = None
        self._undo: list[Callable[[], object]] = []
        self._inference: Inference | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The model's forward pass, in eval mode and without gradients."""
        if self._inference is None:
            self._inference = Inference(self.model)
        with self._inference:
            return self.model(*args, **kwargs)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Leave the model as `prepare` found it, bit for bit. A second time does nothing."""
        while self._undo:
            self._undo.pop()()
        self.replaced = []
        self.decoder = None

    def _patch(self, module: nn.Module, forward: Callable[..., Tensor]) -> None:
        module.__dict__["forward"] = forward
        self._undo.append(lambda: module.__dict__.pop("forward", None))

    def _move(self, device: torch.device | None, dtype: torch.dtype | None) -> None:
        """Give every parameter and buffer other data; the tensors themselves stay the same."""
        tensors = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
        for tensor in tensors.values():
            before = tensor.data
            to = dtype if before.is_floating_point() else None
            after = before.to(device=device, dtype=to)
            if after is before:
                continue

            def put_back(tensor: Tensor = tensor, before: Tensor = before) -> None:
                tensor.data = before

            self._undo.append(put_back)
            tensor.data = after


def prepare(
    model: nn.Module,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    compile: bool = False,
    device: torch.device | str | None = None,
) -> Prepared:
    """Make a GPT2Model decode fast, in place, until the result's `restore()`.

    On the CPU, a float32 model keeps float32 activations, cache and weights, and its linear layers
    read a copy of their weights in `dtype` (float16, bfloat16), or as gpt2/quantization.py makes it
    (`quantize="int8"`, `"int4"`), when they have up to 16 rows to compute: decoding, that is; a
    prompt is read with the plain weights.
    With neither, nothing is copied, and the greedy text is the plain model's. Elsewhere, the whole
    model goes to `device` and `dtype`; on CUDA, decoding is a CUDA graph. compile: decode
    by `torch.compile` (float32 or on a GPU), which takes a minute at the first token.

    Copies are made now: call it again after weights change. Generate with `gpt2.generate` as ever.
    Layers with a `forward` of their own are left alone, and so is a model that does not call its
    linear layers. ValueError for what cannot be combined, and for a model already prepared.
    """
    _check_prepare(model, dtype, quantize, compile)
    first = next(model.parameters())
    where = first.device if device is None else torch.device(device)
    dtype = first.dtype if dtype is None else dtype
    cpu = where.type == "cpu"
    if quantize and not (cpu and first.dtype == torch.float32):
        raise ValueError(
            f"{quantize} is for float32 models on the CPU, got {first.dtype} on {where}"
        )
    prepared = Prepared(model, quantize or str(dtype).removeprefix("torch."))
    try:
        narrower = cpu and first.dtype == torch.float32 and (dtype != torch.float32 or quantize)
        prepared._move(where, None if narrower else dtype)
        halves = {torch.float16: Half16, torch.bfloat16: BFloat16}
        for module in model.modules():
            if not isinstance(module, nn.Linear):
                continue
            used = module.weight.numel() * module.weight.element_size()
            if type(module) is nn.Linear and "forward" not in module.__dict__:
                if narrower:
                    bits = BITS.get(quantize or "")
                    kernel = quantized(module, bits) if bits else halves[dtype](module)
                    used = kernel.nbytes
                    prepared._patch(module, functools.partial(few_rows_linear, module, kernel))
                    prepared.replaced.append(module)
                elif _can_slice(module) and not compile:
                    prepared._patch(module, Slices(module))
                    prepared.replaced.append(module)
            prepared.bytes_per_token += used
        decoder = None
        if compile or where.type == "cuda":
            decoder = _Fixed.of(model, compile)
        elif cpu and all(p.dtype == torch.float32 for p in model.parameters()):
            decoder = _Rows.of(model)
        if decoder is not None:
            prepared.decoder = decoder
            prepared._patch(model, decoder.forward)
    except BaseException:
        prepared.restore()
        raise
    return prepared


def _check_prepare(model: nn.Module, dtype: Any, quantize: Any, compile: bool) -> None:
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    if quantize not in (None, *BITS):
        raise ValueError(f'quantize must be None, "int8" or "int4", got {quantize!r}')
    if quantize and dtype not in (None, torch.float32):
        raise ValueError(f"either {quantize} or {dtype}: a weight is stored in one of them")
    if quantize and compile:
        raise ValueError(f"{quantize} layers call a kernel of their own, which is not compiled")
    for module in model.modules():
        forward = module.__dict__.get("forward")
        ours = getattr(forward, "func", None) is few_rows_linear or isinstance(forward, Slices)
        if ours or isinstance(getattr(forward, "__self__", None), _Decoder):
            raise ValueError("this model is prepared already; restore() it first")


# ------------------------------------------------------------------------------ one-token steps


class _Decoder:
    """One-token steps of a GPT2Model in another way than its own; all else is left to the model."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.plain = type(model).forward

    def forward(
        self, input_ids: Tensor, cache: KVCache | None = None, last_only: bool = False
    ) -> Tensor:
        """The model's forward; steps of one token with a cache take the fast path."""
        one = isinstance(input_ids, Tensor) and input_ids.dim() == 2 and input_ids.size(1) == 1
        slow = torch.is_grad_enabled() or self.model.training
        if not one or slow or block_of(cache) is None or not self._fits(cache, input_ids):
            return self.plain(self.model, input_ids, cache, last_only)
        length = cache.length
        logits = self.step(input_ids, cache, length)  # (B, 1, V)
        for layer in cache.layers:
            layer.length = length + 1
        return logits

    def _fits(self, cache: KVCache, input_ids: Tensor) -> bool:
        """Room for one more, and the same batch; what does not fit gets the model's own error."""
        same = cache.buffer.size(2) == input_ids.size(0)
        return (
            same
            and len({layer.length for layer in cache.layers}) == 1
            and (cache.length < cache.max_length)
        )

    def step(self, ids: Tensor, cache: KVCache, length: int) -> Tensor:
        """ids (B, 1) at position `length` → logits (B, 1, V); keys and values go to the cache."""
        raise NotImplementedError

    def try_step(self, ids: Tensor, cache: KVCache, length: int) -> Tensor:
        """The same, without what is recorded or compiled once and for all."""
        return self.step(ids, cache, length)

    def says_the_same(self) -> bool:
        """Is it the model's own answer? A step of each is compared, behind one that both stored."""
        from gpt2.cache import KVCache

        weight = next(self.model.parameters())
        try:
            P, V = self.model.config.n_positions, self.model.config.vocab_size
            first, second = (
                KVCache(self.model.config, 1, min(2, P), weight.device, weight.dtype)
                for _ in range(2)
            )
            mine, theirs = block_of(first), block_of(second)
            if mine is None or theirs is None:
                return False  # the layers of this KVCache lie in no block that a step could read
            ids = torch.tensor([[V // 2]], device=weight.device)
            with Inference(self.model):
                for length in range(first.max_length):
                    plain = self.plain(self.model, ids, first, True).float()
                    ours = self.try_step(ids, second, length).float()
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return False  # made in another way than the contract says
        # what rounding in another order may do: to bfloat16 rows, or to all numbers
        share = 0.02 if weight.dtype == torch.float32 else 0.1
        atol = share * float(plain.std()) + 1e-6
        # damaged weights give NaN, and one token has no spread: neither can be compared
        return (
            atol < float("inf")
            and torch.allclose(plain, ours, rtol=0, atol=atol)
            # a prompt is read by the model, so a step has to store what that would have stored
            and torch.allclose(mine, theirs, rtol=0, atol=share * float(mine.std()) + 1e-6)
        )


class _Rows(_Decoder):
    """Steps on the CPU: rows (B, C), the model's parameters by the names that every GPT2Model has,
    and nothing between them and PyTorch's kernels. A module's call, a view or a sum of two number
    formats costs as much as reading a hundred kilobytes of weights.
    """

    @classmethod
    def of(cls, model: nn.Module) -> _Rows | None:
        """A decoder for this model; None where it would say something else than the model."""
        try:
            decoder = cls(model)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            return None  # made in another way than the contract says
        return decoder if decoder.says_the_same() else None

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.layers = [
            (
                _norm(block.ln_1),
                _rows_linear(block.attn.c_attn),
                _rows_linear(block.attn.c_proj),
                _norm(block.ln_2),
                _rows_linear(block.mlp.c_fc),
                _rows_linear(block.mlp.c_proj),
                block.attn,
            )
            for block in model.h
        ]
        self.norm, self.head = _norm(model.ln_f), _rows_linear(model.lm_head)

    def _fits(self, cache: KVCache, input_ids: Tensor) -> bool:
        """Also: few rows, float32, ids that there are, and nobody who listens to the attention."""
        if input_ids.size(0) > FEW_ROWS or not super()._fits(cache, input_ids):
            return False
        low, high = input_ids.aminmax()
        if low < 0 or high >= self.model.config.vocab_size or cache.buffer.dtype != torch.float32:
            return False
        return not any(
            attn._forward_hooks or getattr(attn, "attention", attn)._forward_hooks
            for *_, attn in self.layers
        )

    def step(self, ids: Tensor, cache: KVCache, length: int) -> Tensor:
        """ids (B, 1) at position `length` → logits (B, 1, V)."""
        B, (H, _, D) = ids.size(0), cache.buffer.shape[3:]
        new = cache.buffer[:, :, :, :, length].unbind()  # (2, B, H, D) for each layer
        seen = cache.buffer[..., : length + 1, :].flatten(0, 1).unbind()  # 2L of (B, H, S, D)
        e = self.model.embeddings
        x = F.embedding(ids[:, 0], e.wte.weight) + e.wpe.weight[length]  # (B, C)
        for i, (norm, attend, project, norm_2, widen, narrow, _) in enumerate(self.layers):
            q, kv = attend(norm(x)).view(B, 3, H, D).transpose(0, 1).split((1, 2))
            new[i].copy_(kv)
            # q: (1, B, H, D) → (B, H, 1, D)
            y = F.scaled_dot_product_attention(q.permute(1, 2, 0, 3), *seen[2 * i : 2 * i + 2])
            x += project(y.view(B, H * D) if y.is_contiguous() else y.reshape(B, H * D))
            x += narrow(F.gelu(widen(norm_2(x)), approximate="tanh"))
        return self.head(self.norm(x))[:, None]


def _norm(module: nn.Module) -> Kernel:
    """A layer norm of rows (M, C), by PyTorch's kernel."""
    weight, bias, eps = module.weight, module.bias, module.eps
    shape = tuple(weight.shape)
    return lambda x: F.layer_norm(x, shape, weight, bias, eps)


def _rows_linear(module: nn.Linear) -> Kernel:
    """A linear layer of few rows (M, K) → (M, N), without its module: as `prepare` patched it."""
    forward = module.__dict__.get("forward")
    function, arguments = getattr(forward, "func", None), getattr(forward, "args", ())
    if function is few_rows_linear:
        return arguments[1]
    if forward is not None:
        return forward.rows if isinstance(forward, Slices) else module  # somebody else's
    return functools.partial(F.linear, weight=module.weight, bias=module.bias)


# ------------------------------------------------------------------- decoding with fixed shapes

BUCKET = 128  # keys are attended to in steps of this many: one graph for each


class _Fixed(_Decoder):
    """Steps with shapes that do not change, as CUDA graphs and `torch.compile` need.

    It calls the model's own modules (norms, linear layers, feed-forward networks) by the names that
    every GPT2Model has, and attends by itself: keys and values go to a position that is a tensor,
    and the attention sees the cache up to the next multiple of 128, what is not stored yet masked.
    """

    @classmethod
    def of(cls, model: nn.Module, compile: bool) -> _Fixed | None:
        """A decoder for this model; None where it would say something else than the model."""
        decoder = cls(model, compile)
        return decoder if decoder.says_the_same() else None

    def __init__(self, model: nn.Module, compile: bool):
        super().__init__(model)
        self.compile = compile
        self.compute = self._compute
        if compile:
            mode = "reduce-overhead" if torch.cuda.is_available() else "default"
            self.compute = torch.compile(self._compute, mode=mode, dynamic=False)
        # a cache that is thrown away takes its graphs with it
        self.graphs: weakref.WeakKeyDictionary[KVCache, dict[int, _Graph]]
        self.graphs = weakref.WeakKeyDictionary()

    def step(self, ids: Tensor, cache: KVCache, length: int) -> Tensor:
        """ids (B, 1) at position `length` → logits (B, 1, V)."""
        S = min(-(-(length + 1) // BUCKET) * BUCKET, cache.max_length)
        buffer = cache.buffer[..., :S, :]
        if ids.device.type == "cuda" and not self.compile:
            graphs = self.graphs.setdefault(cache, {})
            if S not in graphs:
                graphs[S] = _Graph(self._compute, ids, buffer, length)
            return graphs[S](ids, length)
        return self.compute(ids, torch.full((1,), length, device=ids.device), buffer)

    def try_step(self, ids: Tensor, cache: KVCache, length: int) -> Tensor:
        """ids (B, 1) at position `length` → logits (B, 1, V), one kernel after the other."""
        position = torch.full((1,), length, device=ids.device)
        return self._compute(ids, position, cache.buffer)

    def _compute(self, ids: Tensor, position: Tensor, buffer: Tensor) -> Tensor:
        """ids (B, 1), position (1,), keys and values (L, 2, B, H, S, D) → logits (B, 1, V)."""
        model, (H, S, D) = self.model, buffer.shape[3:]
        B = ids.size(0)
        e = model.embeddings
        x = e.wte(ids) + e.wpe(position)  # (B, 1, C)
        seen = (torch.arange(S, device=ids.device) <= position).view(1, 1, 1, S)
        for block, (keys, values) in zip(model.h, buffer, strict=True):
            qkv = block.attn.c_attn(block.ln_1(x)).view(B, 1, 3, H, D)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, 1, D) each
            keys.index_copy_(2, position, k.to(keys.dtype))
            values.index_copy_(2, position, v.to(values.dtype))
            y = F.scaled_dot_product_attention(q, keys, values, seen)  # (B, H, 1, D)
            x = x + block.attn.c_proj(y.transpose(1, 2).reshape(B, 1, H * D))
            x = x + block.mlp(block.ln_2(x))
        return model.lm_head(model.ln_f(x))  # (B, 1, V)


class _Graph:
    """A step recorded as a CUDA graph for one cache and one number of keys."""

    def __init__(self, step: Callable[..., Tensor], ids: Tensor, buffer: Tensor, length: int):
        self.ids = ids.clone()
        self.position = torch.full((1,), length, device=ids.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # warm-up: libraries allocate at their first call
            for _ in range(2):
                step(self.ids, self.position, buffer)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = step(self.ids, self.position, buffer)

    def __call__(self, ids: Tensor, length: int) -> Tensor:
        """ids (B, 1) at position `length` → logits (B, 1, V)."""
        self.ids.copy_(ids)
        self.position.fill_(length)
        self.graph.replay()
        return self.logits.clone()  # the next replay writes to the same memory
