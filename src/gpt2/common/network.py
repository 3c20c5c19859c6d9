"""Check that a server answers, before a library waits and retries for minutes.

A proxy that is switched off, a name that can't be resolved and a firewall that drops packets look
the same to a download: nothing comes. Here they are a one-line error within two seconds.
"""

from __future__ import annotations

import base64
import functools
import os
import socket
import threading
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

SECONDS = 2.0  # for the name, the connection and the proxy's answer together
PATIENCE = "GPT2_NETWORK_SECONDS"  # in the environment: more of them, for slow networks
PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


class Unreachable(OSError):
    """Nobody answers, in one line."""


def hub_address() -> str:
    """The Hugging Face hub's URL, or that of the mirror which HF_ENDPOINT names."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def check_reachable(url: str, seconds: float | None = None) -> None:
    """Return when the URL's host, or the proxy in front of it, answers.

    Unreachable, an OSError that says in one line who does not, within `seconds` (default: those of
    the environment's GPT2_NETWORK_SECONDS, or 2). What has answered
    is not asked again in this process; what was silent is.
    """
    target = urlsplit(url)
    seconds = patience() if seconds is None else seconds
    ask_once(f"{target.scheme}://{target.hostname}:{_port(target)}", proxy_for(url), seconds)


def patience() -> float:
    """How many seconds to wait. ValueError for a setting that is not a positive number."""
    given = os.environ.get(PATIENCE) or str(SECONDS)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise ValueError(f"{PATIENCE} must be a number of seconds, got {given!r}")
    return seconds


def proxy_for(url: str) -> str | None:
    """The proxy that the environment or the system names for this URL; None without one."""
    target = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or not target.hostname or proxy_bypass(target.hostname):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@functools.cache
def ask_once(address: str, proxy: str | None, seconds: float) -> None:
    """`check_reachable` after the look at the environment; an exception is not kept."""
    found: list[BaseException | None] = []

    def ask() -> None:
        try:
            _ask(address, proxy, seconds)
            found.append(None)
        except (OSError, ValueError) as error:
            found.append(error)

    # in a thread: looking a name up cannot be given a time limit
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    error = (
        found[0]
        if found
        else TimeoutError(f"no answer within {seconds:g} seconds; {PATIENCE} gives it longer")
    )
    if error is not None:
        why = str(error).strip() or type(error).__name__
        if proxy is None:
            raise Unreachable(f"{urlsplit(address).hostname} cannot be reached: {why}")
        raise Unreachable(
            f"the proxy {_without_password(proxy)} cannot be used: {why}. Correct or unset "
            "HTTPS_PROXY (or ALL_PROXY), or name the host in NO_PROXY"
        )


def _ask(address: str, proxy: str | None, seconds: float) -> None:
    """Connect, and let an HTTP proxy connect further. OSError or ValueError for any other end."""
    nearest = urlsplit(proxy or address)
    if not nearest.hostname:
        raise ValueError("its address names no host")
    with socket.create_connection((nearest.hostname, _port(nearest)), timeout=seconds) as line:
        if proxy is None or nearest.scheme != "http":
            return
        target = urlsplit(address)
        place = f"{target.hostname}:{_port(target)}"
        method = f"CONNECT {place}" if target.scheme == "https" else f"HEAD {address}/"
        request = [f"{method} HTTP/1.1", f"Host: {place}"]
        if nearest.username:
            pair = f"{unquote(nearest.username)}:{unquote(nearest.password or '')}"
            request.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
        line.sendall("\r\n".join([*request, "", ""]).encode())
        answer = b""
        while b"\n" not in answer and len(answer) < 4096 and (more := line.recv(1024)):
            answer += more
    status = answer.split(b"\n")[0].decode("latin-1").strip()
    version, _, rest = status.partition(" ")
    if not version.startswith("HTTP/"):
        raise ValueError("it answers, but not like a proxy" if answer else "it hangs up")
    if target.scheme == "https" and not rest.startswith("2"):
        raise ValueError(f"it answers {rest!r}")
    if rest.startswith(("407", "502", "503", "504")):
        raise ValueError(f"it answers {rest!r}")


def _port(address: SplitResult) -> int:
    """A URL's port, given or by its scheme. ValueError for one that is not a number."""
    return address.port or PORTS.get(address.scheme, 443)


def _without_password(proxy: str) -> str:
    parts = urlsplit(proxy)
    try:
        return f"{parts.scheme}://{parts.hostname}:{_port(parts)}"
    except ValueError:
        return f"{parts.scheme}://{parts.hostname}"
