"""A network that does not answer is given up soon, in one line. Nothing here leaves the machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpt2.common import network
from gpt2.common.network import Unreachable, check_reachable, proxy_for

HUB = "https://hub.invalid/gpt2"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on this machine that treats each connection so → its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    answer(line)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.close()


def says(text: str) -> Callable[[socket.socket], None]:
    """A server that reads a request and says this."""

    def answer(line: socket.socket) -> None:
        seen.append(line.recv(4096))
        line.sendall(text.encode())

    return answer


seen: list[bytes] = []


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy from outside, and nothing remembered."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    seen.clear()
    network.ask_once.cache_clear()


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
        ("SSH-2.0-OpenSSH\r\n", "not like a proxy"),
        ("", "hangs up"),
    ],
)
def test_a_proxy_that_does_not_connect(
    monkeypatch: pytest.MonkeyPatch, answer: str, named: str
) -> None:
    """Catches minutes of retries behind a proxy that says no, and its password on the screen."""
    with server(says(answer)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cret@127.0.0.1:{port}")
        with pytest.raises(Unreachable, match=named) as caught:
            check_reachable(HUB)
    assert f"the proxy http://127.0.0.1:{port} cannot be used" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_connects_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a working proxy that is refused, credentials that it is not given, and a question
    before every file.
    """
    with server(says("HTTP/1.1 200 Connection established\r\n\r\n")) as port:
        monkeypatch.setenv("https_proxy", f"me:p%40ss@127.0.0.1:{port}")
        check_reachable(HUB)
        check_reachable(HUB + "/other")
    assert len(seen) == 1
    assert seen[0].startswith(b"CONNECT hub.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==\r\n" in seen[0]  # me:p@ss


def test_a_proxy_that_is_silent_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an endless wait for a proxy that takes a connection and says nothing."""
    waiting = threading.Event()
    with server(lambda line: waiting.wait(30)) as port:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(Unreachable, match="cannot be used"):
            check_reachable(HUB, seconds=0.2)
        waiting.set()
    monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{unused_port()}")
    with pytest.raises(Unreachable, match="cannot be used"):
        check_reachable(HUB)


def test_a_name_that_nobody_looks_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the half minute in which a system looks for a name without a network."""
    waiting = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waiting.wait(30))
    with pytest.raises(Unreachable, match=r"hub\.invalid cannot be reached: no answer within"):
        check_reachable(HUB, seconds=0.2)
    waiting.set()


def test_a_slow_network_is_given_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit that nobody behind a slow proxy can lift."""
    assert network.patience() == network.SECONDS
    monkeypatch.setenv("GPT2_NETWORK_SECONDS", "7.5")
    assert network.patience() == 7.5
    for wrong in ("0", "-1", "nan", "soon"):
        monkeypatch.setenv("GPT2_NETWORK_SECONDS", wrong)
        with pytest.raises(ValueError, match="GPT2_NETWORK_SECONDS"):
            network.patience()


def test_which_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a proxy that is used for a host which the environment excepts."""
    assert proxy_for(HUB) is None
    monkeypatch.setenv("HTTPS_PROXY", "http://a:1")
    monkeypatch.setenv("ALL_PROXY", "socks5://b:2")
    assert proxy_for(HUB) == "http://a:1"
    assert proxy_for("http://hub.invalid") == "socks5://b:2"
    monkeypatch.setenv("NO_PROXY", "hub.invalid")
    assert proxy_for(HUB) is None


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    """Catches a traceback, or the hub's library trying again and again, for every kind of name."""
    proxy = f"http://127.0.0.1:{unused_port()}"
    env = os.environ | {
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "HF_HOME": str(tmp_path / "hf"),
        "TIKTOKEN_CACHE_DIR": str(tmp_path / "tiktoken"),
    }
    for args in (
        ("generate", "--model", "some/one", "--prompt", "a"),
        ("prepare", "python-docs", "--tokenizer", "gpt2", "--out", str(tmp_path / "d")),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "gpt2", *args],
            env=env,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"the proxy {proxy} cannot be used" in done.stderr
