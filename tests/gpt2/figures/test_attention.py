"""`gpt2.figures.attention`, `gpt2 attention`: the weights, the picture, the page, the command."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import torch
from small_gpt2 import char_tokenizer, tiny

from gpt2 import cli
from gpt2.commands import attention as command
from gpt2.figures import plots
from gpt2.figures.attention import attention_weights, habits, page, picture, summary
from gpt2.formats.checkpoints import save_pretrained

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    """Three layers of two heads on seven tokens, all different."""
    scores = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(0)) * 2
    return scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf).softmax(-1)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data" type="application/json">(.*?)</script>', text, re.S)[1])


# ── the weights ─────────────────────────────────────────────────────────────────────────────────


def test_weights_are_those_that_the_formula_gives() -> None:
    """Catches weights of another layer, of all heads mixed, or from before the mask."""
    model = tiny(vocab_size=11, n_positions=9).eval()
    ids = torch.tensor([3, 1, 4, 1, 5, 9])
    found = attention_weights(model, ids)
    config = model.config
    assert found.shape == (config.n_layer, config.n_head, 6, 6)
    with torch.no_grad():
        x = model.embeddings(ids[None])
        for layer, block in enumerate(model.h):
            q, k, _ = block.attn.c_attn(block.ln_1(x))[0].split(config.n_embd, dim=-1)
            for head in range(config.n_head):
                own = slice(head * config.head_dim, (head + 1) * config.head_dim)
                scores = torch.einsum("id,jd->ij", q[:, own], k[:, own]) / config.head_dim**0.5
                for i in range(6):
                    expected = scores[i, : i + 1].exp() / scores[i, : i + 1].exp().sum()
                    torch.testing.assert_close(found[layer, head, i, : i + 1], expected)
                    assert found[layer, head, i, i + 1 :].eq(0).all()
            x = block(x)


def test_the_model_is_left_as_it_was() -> None:
    """Catches hooks that stay, which keep a model from its fast attention, and eval mode."""
    model = tiny(vocab_size=11, n_positions=9).train()
    attention_weights(model, torch.tensor([[1, 2, 3]]))
    assert model.training
    assert not any(block.attn.attention._forward_hooks for block in model.h)
    with pytest.raises(ValueError, match=r"one text at a time.*\(2, 3\)"):
        attention_weights(model, torch.ones(2, 3, dtype=torch.long))


def test_habits_are_counted() -> None:
    """Catches a head counted under another habit, or by its first few positions."""
    T = 8
    looks = torch.zeros(1, 4, T, T)
    rows = torch.arange(T)
    looks[0, 0, rows, (rows - 1).clamp(min=0)] = 1
    looks[0, 1, rows, 0] = 1
    looks[0, 2] = torch.ones(T, T).tril() / (rows[:, None] + 1)
    looks[0, 3, rows, (rows - 3).clamp(min=0)] = 1
    assert habits(looks) == {"the token before": 1, "three before": 1, "the first token": 1}
    assert summary(looks) == (
        "1 of 4 heads mostly read the token before, 1 three before, 1 the first token"
    )
    assert habits(looks[..., :4, :4]) == {}
    assert "none of 4" in summary(looks[..., :4, :4])


# ── the picture and the page ────────────────────────────────────────────────────────────────────


def test_the_picture_has_every_head(weights: torch.Tensor) -> None:
    """Catches a missing or misplaced head."""
    fig = picture(weights, "tiny")
    titles = [ax.get_title() for ax in fig.axes if ax.get_title()]
    assert titles == ["0·0", "0·1", "1·0", "1·1", "2·0", "2·1"]
    drawn = fig.axes[3].images[0].get_array()
    torch.testing.assert_close(torch.tensor(drawn.filled(0)).float(), weights[1, 1])
    assert plots.png(fig).startswith(b"\x89PNG")


def test_the_page_holds_the_weights_and_nothing_from_elsewhere(weights: torch.Tensor) -> None:
    """Catches a page that needs the network, and weights in another order than it reads them."""
    tokens = list("abcdefg")
    text = page(weights, tokens, "a & <b>")
    assert "<title>Attention: a &amp; &lt;b&gt;</title>" in text
    assert not re.search(r"https?:|src=|@import|<link", text)
    data = data_of(text)
    assert (data["layers"], data["heads"], data["tokens"]) == (3, 2, tokens)
    packed = base64.b64decode(data["weights"])
    assert len(packed) == 3 * 2 * 28
    for layer, head, i, j in ((0, 0, 0, 0), (2, 1, 6, 3), (1, 0, 4, 4), (1, 1, 5, 0)):
        stored = packed[(layer * 2 + head) * 28 + i * (i + 1) // 2 + j] / 255
        assert abs(stored - weights[layer, head, i, j].item()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("token", ["</script><b>", "@DATA@", "\\u003c", "日本🤖", "\u2028"])
def test_any_token_stays_what_it_is(weights: torch.Tensor, token: str) -> None:
    """Catches a text that ends the script it stands in, or is taken for a mark of the template."""
    text = page(weights, [token, *"bcdefg"], "@DATA@")
    assert data_of(text)["tokens"][0] == token
    assert text.count("</script>") == 2


def test_what_a_page_can_hold() -> None:
    """Catches a page of gigabytes, and tokens that belong to another text."""
    with pytest.raises(ValueError, match="3 tokens for weights of 4"):
        page(torch.zeros(1, 1, 4, 4), ["a"] * 3, "x")
    huge = torch.zeros(1, 1, 1, 1).expand(48, 25, 512, 512)
    with pytest.raises(ValueError, match="too many for a page"):
        page(huge, ["a"] * 512, "x")


@pytest.mark.skipif(browser is None, reason=f"no browser; looked for {', '.join(BROWSERS)}")
def test_in_a_browser(weights: torch.Tensor, tmp_path: Path) -> None:
    """Catches a page that draws nothing, or shows another head or token than was picked."""
    script = """<script>
const note = [];
const pick = (id, value) => { by(id).value = value; by(id).dispatchEvent(new Event("change")); };
pick("layer", 1); pick("head", 1);
buttons[3].dispatchEvent(new Event("mouseenter"));
note.push(by("said").textContent);
by("all").children[4].click();
note.push(by("caption").textContent, by("layer").value + by("head").value);
buttons[5].dispatchEvent(new Event("focus"));
by("text").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
note.push(by("said").textContent);
by("reverse").click();
buttons[2].dispatchEvent(new Event("mouseenter"));
note.push(by("said").textContent);
const pixel = by("map").getContext("2d").getImageData(0, 0, 1, 1).data;
note.push([...pixel].join(), by("map").getContext("2d").getImageData(6, 0, 1, 1).data[3]);
document.title = JSON.stringify(note);
</script></body>"""
    file = tmp_path / "page.html"
    text = page(weights, list("abcdefg"), "tiny").replace("</body>", script)
    file.write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'u'}"]
    run = subprocess.run(
        [browser, *options, "--dump-dom", file.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", run.stdout, re.S)
    assert title, run.stderr[-2000:]
    first, caption, picked, moved, reverse, pixel, future = json.loads(title[1])

    def said(values: torch.Tensor, verb: str, token: int) -> str:
        best = sorted(((v, -j) for j, v in enumerate(values.tolist()) if v > 1 / 510), reverse=True)
        return f"{token} {'abcdefg'[token]} {verb} " + " · ".join(
            f"{-j} {'abcdefg'[-j]}" for _, j in best[:4]
        )

    def without_percents(text: str) -> str:
        return re.sub(r" [\d.]+ %", "", text)

    assert without_percents(first) == said(weights[1, 1, 3], "reads", 3)
    share = weights[1, 1, 3].max().item()
    assert abs(float(re.search(r" ([\d.]+) %", first)[1]) / 100 - share) < 0.01
    assert caption == "Layer 2, head 0: rows read, columns are read"
    assert picked == "20"
    assert without_percents(moved) == said(weights[2, 0, 6], "reads", 6)
    assert without_percents(reverse) == said(weights[2, 0, :, 2], "is read by", 2)
    assert pixel == "253,231,37,255"  # the first token has only itself: the scale's upper end
    assert future == 0


# ── the command ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few characters."""
    tokenizer = char_tokenizer("abc \n<")
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=12)
    return save_pretrained(model, tmp_path_factory.mktemp("attention") / "chars", tokenizer)


@pytest.mark.parametrize(
    ("name", "starts"), [("a.html", b"<!doctype html>"), ("b.PNG", b"\x89PNG")]
)
def test_the_command_writes(folder: Path, tmp_path: Path, name: str, starts: bytes, capsys) -> None:
    """Catches a file of the wrong kind, and leftovers beside it."""
    out = tmp_path / name
    code = cli.run(command.command, "gpt2", [str(folder), "a<b\nc", "--out", str(out)])
    assert code == 0
    assert out.read_bytes().startswith(starts)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert f"written: {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["aaaaaaaaaaaaa"], 1, "13 tokens, more than n_positions = 12"),
        (["axa"], 1, "no token for 'x'"),
        ([""], 2, "the text is empty"),
        (["abc", "--out", "a.pdf"], 2, "must end in .html or .png"),
    ],
)
def test_the_command_refuses(
    folder: Path, arguments: list[str], code: int, said: str, capsys
) -> None:
    """Catches a traceback where one line says what is wrong."""
    assert cli.run(command.command, "gpt2", [str(folder), *arguments]) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_it_is_a_command() -> None:
    """Catches a command that `gpt2` does not know."""
    assert isinstance(cli.cli.get_command(click.Context(cli.cli), "attention"), click.Command)
