"""What this system offers to keep a student's code in: probed, told, and put on.

On Linux with namespaces (as root, or where users may make them) the code sees a file system that
holds Python, PyTorch with what it needs, and one scratch folder; nothing of the course; no network;
no process but its own. As root it also runs under a user id that nothing else uses. Everywhere on
Linux it is refused the calls of the kernel that a piece has no need for. Everywhere on POSIX there
are limits on memory, file size and processes, as far as the system keeps them.

The calls below go straight to the system, because Python 3.11 has no names for them. The process
that forks workers runs this file by its path, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import stat
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

LINUX = sys.platform == "linux"
POSIX = os.name == "posix"
MEGABYTE = 1 << 20
FIRST_UID = 60_800  # from here on, ids that no account has are lent to students' code
SCRATCH = Path("/scratch")  # where a file system of its own has it
# where libraries keep what they have made; they make these folders themselves
CACHES = (
    "HF_HOME",
    "IPYTHONDIR",
    "JUPYTER_CONFIG_DIR",
    "MPLCONFIGDIR",
    "NUMBA_CACHE_DIR",
    "TIKTOKEN_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_HOME",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
)

# <sched.h>, <sys/mount.h>, <sys/prctl.h>, <linux/landlock.h>
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 32, 4096, 16384, 1 << 18, 1 << 21
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38


@dataclass(frozen=True)
class Limits:
    """What one student's one problem may use. Seconds; memory in MB beyond what torch takes."""

    seconds: float = 60.0
    load_seconds: float = 10.0
    memory: int = 1024
    output: int = 1_000_000  # bytes printed
    file_size: int = 16  # MB of one file, and (where there is one) of the scratch file system × 4
    processes: int = 32
    names: int = 4096  # files and folders in the scratch folder, where it has a system of its own

    @property
    def longest(self) -> float:
        """Seconds that one file may take: as much again for imports, which each check repeats."""
        return 2 * self.seconds

    def to_json(self) -> dict:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Means:
    """What was found to work here.

    namespaces: "root", "user" or "". landlock: the version the kernel speaks, 0 for none. drops:
    another user id can be taken. readable: that user could still read Python and its packages.
    seccomp: the kernel refuses calls on request.
    """

    fork: bool
    namespaces: str = ""
    landlock: int = 0
    drops: bool = False
    readable: bool = True
    seccomp: bool = False

    @property
    def reason_to_refuse(self) -> str:
        """Why nothing should be graded like this, or ""."""
        if POSIX and os.geteuid() == 0 and not self.namespaces and not self.readable:
            return (
                "you are root, this system gives no namespaces, and Python "
                f"({sys.base_prefix}) can't be read by another user, so students' code would run "
                "as root. Run `learn grade` as an ordinary user"
            )
        return ""


@dataclass(frozen=True)
class Protection:
    """One line of what is said at the start."""

    name: str
    given: bool
    how: str


def probe() -> Means:
    """Find out, by trying in children that end at once."""
    if not hasattr(os, "fork"):
        return Means(fork=False)
    if not LINUX:
        return Means(fork=True, drops=os.geteuid() == 0, readable=_readable_by_all())
    root = os.geteuid() == 0
    namespaces = ""
    if root and _works(lambda: _try_namespaces("root")):
        namespaces = "root"
    elif _works(lambda: _try_namespaces("user")):
        namespaces = "user"
    return Means(
        fork=True,
        namespaces=namespaces,
        landlock=_landlock_version(),
        drops=root and namespaces != "user",
        readable=_readable_by_all(),
        seccomp=_works(refuse_calls),
    )


def protections(means: Means | None = None, limits: Limits | None = None) -> list[Protection]:
    """What students' code is kept from here, and how; what is not given says what remains."""
    m, limits = means or probe(), limits or Limits()
    spaces, fork, linux = bool(m.namespaces), m.fork, LINUX and m.fork
    files = (
        (True, "a file system of its own: Python with PyTorch, one scratch folder")
        if spaces
        else (True, "Landlock: Python with PyTorch can be read, one scratch folder written")
        if m.landlock
        else (m.drops, "it runs as another user, who can read what everybody can")
        if m.drops
        else (False, "the code can read and write what you can; files are compared afterwards")
    )
    network = (
        (True, "a network namespace without interfaces")
        if spaces
        else (True, "Landlock refuses TCP; other protocols remain")
        if m.landlock >= 4
        else (False, "the code can reach the network")
    )
    tree = (
        (True, "a process namespace: nothing outlives it")
        if spaces
        else (True, "its children, also detached ones, are found in /proc and ended")
        if linux
        else (True, "its process group is ended; one that detaches itself outlives the check")
        if fork
        else (False, "the process is ended; those that it started may stay")
    )
    memory = (
        (True, f"{limits.memory} MB per process by the system, and for all of them by a watch")
        if linux
        else (True, f"{limits.memory} MB by a watch twice a second")
        if fork
        else (False, "not limited")
    )
    user = (
        (True, "a user id of its own, without privileges")
        if m.drops
        else (True, "your user id without any privilege")
        if (fork and os.geteuid() != 0) or spaces
        else (False, "the code runs as you")
    )
    return [
        Protection(
            "process",
            True,
            "one per problem, apart from the one that judges" if fork else "one per problem",
        ),
        Protection("time", True, f"{limits.seconds:g} s per problem, and each check's own limit"),
        Protection("process tree", *tree),
        Protection("memory", *memory),
        Protection(
            "output", fork, f"{limits.output:,} bytes per check" if fork else "thrown away unread"
        ),
        Protection(
            "disk",
            fork,
            f"{limits.file_size} MB per file, {4 * limits.file_size} MB and {limits.names:,} files "
            f"in all, by {'the file system' if spaces else 'a watch'}"
            if fork
            else "not limited",
        ),
        Protection("processes", fork, f"{limits.processes} at most" if fork else "not limited"),
        Protection("files", *files),
        Protection("network", *network),
        Protection("privileges", *user),
        Protection(
            "calls",
            m.seccomp,
            "keyrings, shared memory, namespaces and more are refused by the kernel"
            if m.seccomp
            else "every call of the kernel that this user may make",
        ),
    ]


# ── the system's calls ──────────────────────────────────────────────────────────────────────────


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """Call into libc; OSError when it says −1."""
    converted = [a.encode() if isinstance(a, str) else a for a in arguments]
    result = getattr(_libc(), name)(*converted)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _call("prctl", option, ctypes.c_ulong(value), zero, zero, zero)


def _mount(
    source: str, target: Path, kind: str | None, flags: int, data: str | None = None
) -> None:
    kind_bytes = kind.encode() if kind else None
    data_bytes = data.encode() if data else None
    _call("mount", source, str(target), kind_bytes, ctypes.c_ulong(flags), data_bytes)


def _works(attempt: Callable[[], None]) -> bool:
    """Whether an attempt, made in a child, raises nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            attempt()
            code = 0
        except BaseException:
            code = 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _readable_by_all() -> bool:
    """Whether any user can reach Python and its packages."""
    for start in (sys.executable, sys.base_prefix, sys.prefix, str(Path(__file__).resolve())):
        path = Path(os.path.realpath(start))
        for part in (path, *path.parents):
            with contextlib.suppress(OSError):
                mode = part.stat().st_mode
                wanted = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
                if not mode & wanted:
                    return False
    return True


# ── namespaces ──────────────────────────────────────────────────────────────────────────────────


def unshare(kind: str) -> None:
    """Leave the system's namespaces; the next child is the first process of a new one."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC
    uid, gid = os.geteuid(), os.getegid()
    if kind == "user":
        flags |= CLONE_NEWUSER
    _call("unshare", flags)
    if kind == "user":
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")


def _try_namespaces(kind: str) -> None:
    unshare(kind)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # some systems let users make namespaces and then allow nothing inside them
            _mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
            _mount("tmpfs", Path("/tmp"), "tmpfs", MS_NOSUID | MS_NODEV)
            Path("/tmp/x").mkdir()
            _mount("proc", Path("/tmp/x"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError(errno.EPERM, "namespaces are of no use here")


# libraries that hold a GPT-2 of their own, and the problem whose file may load files with them
HOLD_AN_ANSWER = {"transformers": 12}
COURSE = ("gpt2", "learn_gpt2")


@dataclass(frozen=True)
class View:
    """What the code may read: `shown`, and `packages`. What is `covered` or `hidden` looks empty;
    packages may lie in what is covered, and what is hidden lies in them.
    """

    shown: tuple[str, ...]
    covered: tuple[str, ...]
    packages: tuple[str, ...]
    hidden: tuple[str, ...]


def view(root: Path, number: int) -> View:
    """What the code for one problem may read, for a course at `root`: nothing of the course, and no
    library that would answer.
    """
    shown = {Path(p) for p in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")}
    shown |= {Path(p) for p in ("/etc/ld.so.cache", "/etc/localtime")}
    shown |= {Path(p) for p in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")}
    packages = set()
    for name in (sys.base_prefix, sys.base_exec_prefix, *sys.path):
        for path in (Path(name), Path(os.path.realpath(name))):
            if path.name in ("site-packages", "dist-packages"):
                packages.add(path)
            elif path.is_relative_to(sys.base_prefix) and not root.is_relative_to(path):
                shown.add(path)
    shown = {p for p in shown if p.exists()}
    folders = set(packages)
    for place in shown:  # and other folders of packages in what is shown
        for pattern in ("lib*/python3*/*-packages", "local/lib/python3*/*-packages"):
            folders |= set(place.glob(pattern))
    names = [n for n, problem in HOLD_AN_ANSWER.items() if problem != number]
    hidden = [p for folder in folders for p in _copies(folder, (*names, *COURSE))]
    covered = {root, Path(os.path.realpath(root))}
    return View(
        tuple(map(str, sorted(shown, key=lambda p: len(p.parts)))),
        tuple(str(c) for c in covered if any(c.is_relative_to(p) for p in shown)),
        tuple(sorted(map(str, packages))),
        tuple(sorted(map(str, hidden))),
    )


def _copies(folder: Path, names: Iterable[str]) -> list[Path]:
    """What lies in a folder of packages under these names, with its metadata."""
    found = []
    for name in names:
        patterns = (name, f"{name}.py", f"{name}-*", f"{name.replace('_', '-')}-*")
        found += [path for pattern in patterns for path in folder.glob(pattern)]
    return found


def build_root(seen: View, here: Path, limits: Limits) -> None:
    """Inside new namespaces: a file system with what is visible, `/scratch`, and nothing else.

    here: an empty folder, on which it is mounted in this namespace only.
    """
    _mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", here, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")
    for name in seen.shown:
        _show(Path(name), here)
    covered = []
    for name in seen.covered:
        target = _inside(here, Path(name))
        if target.is_dir():
            _mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "size=2m,mode=755")
            covered.append(target)
    for name in seen.packages:
        _show(Path(name), here)
    for name in seen.hidden:
        _hide(Path(name), here)
    for target in reversed(covered):
        _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    scratch = _inside(here, SCRATCH)
    scratch.mkdir()
    fresh_scratch(scratch, limits)
    proc = here / "proc"
    proc.mkdir()
    _mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=2")
    if not (here / "tmp").exists():  # Python or the course may lie in it
        (here / "tmp").symlink_to("scratch")
    _mount("none", here, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    # who has no privileges and no open folder outside does not leave a chroot
    os.chroot(here)
    os.chdir(SCRATCH)


def fresh_scratch(scratch: Path, limits: Limits) -> None:
    """An empty file system on the scratch folder: bytes and names are counted."""
    size = f"size={4 * limits.file_size}m,nr_inodes={limits.names},mode=1777"
    _mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV, size)


def drop_scratch(scratch: Path) -> None:
    """Take that file system away, with whatever lies in it."""
    _call("umount2", str(scratch), 2)  # MNT_DETACH


def clear(folder: Path) -> None:
    """Empty a folder: never by recursion, however deep it is, whatever its modes. What can't be
    taken away stays.
    """
    count = 0
    for _ in range(100_000):
        try:
            names = os.listdir(folder)
        except OSError:
            return
        if not names:
            return
        before = count
        for name in names:
            path = folder / name
            with contextlib.suppress(OSError):
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    os.unlink(path)
                    count += 1
                    continue
                os.chmod(path, 0o700)
                for inner in os.listdir(path):  # its folders come up to this level
                    below = path / inner
                    if stat.S_ISDIR(os.lstat(below).st_mode):
                        os.chmod(below, 0o700)
                        os.rename(below, folder / f"{os.getpid()}-{count}")
                    else:
                        os.unlink(below)
                    count += 1
                os.rmdir(path)
                count += 1
        if count == before:
            return


def held(folder: Path, most: int) -> tuple[int, int]:
    """Bytes and names in a folder, counted until there are more than `most` names; folders deeper
    than 64 count as if there were.
    """
    size = names = 0
    todo = [(str(folder), 0)]
    while todo:
        path, depth = todo.pop()
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                names += 1
                if names > most or depth > 64:
                    return size, most + 1
                with contextlib.suppress(OSError):
                    status_ = entry.stat(follow_symlinks=False)
                    size += status_.st_blocks * 512
                    if stat.S_ISDIR(status_.st_mode):
                        todo.append((entry.path, depth + 1))
    return size, names


def held_open(processes: Iterable[int]) -> int:
    """Bytes of files that processes have open and that lie in no folder any more (Linux)."""
    found = {}
    for process in processes:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    its = os.stat(f"/proc/{process}/fd/{name}")
                    if stat.S_ISREG(its.st_mode) and not its.st_nlink:
                        found[its.st_dev, its.st_ino] = its.st_blocks * 512
    return sum(found.values())


def _inside(here: Path, path: Path) -> Path:
    return here / path.relative_to("/")


def _show(path: Path, here: Path) -> None:
    """Make a path visible for reading; the folders that lead to it are created, open to all."""
    target = _inside(here, path)
    if target.exists() and os.path.samestat(os.stat(path), os.stat(target)):
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if path.is_symlink() and path.parent == Path("/"):
        target.symlink_to(os.readlink(path))  # /bin → usr/bin
        return
    if not target.exists():
        target.mkdir() if path.is_dir() else target.touch()
    _bind(Path(os.path.realpath(path)), target)


def _bind(source: Path, target: Path) -> None:
    _mount(str(source), target, None, MS_BIND | MS_REC)
    given = os.statvfs(target).f_flag
    # what the outer mount forbids must be repeated (1024, 2048: no access times)
    flags = MS_NOSUID | given & (MS_NODEV | MS_NOEXEC | 1024 | 2048)
    flags |= MS_RELATIME if given & 4096 else 0
    _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def _hide(path: Path, here: Path) -> None:
    target = _inside(here, path)
    if target.is_dir():
        _mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=4k")
    elif target.exists():
        _bind(Path("/dev/null"), target)


# ── calls of the kernel that are refused ────────────────────────────────────────────────────────

# x86_64, aarch64 (<asm/unistd.h>; 0: it has none)
CALLS = {
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "chroot": (161, 51),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "modify_ldt": (154, 0),
    "lookup_dcookie": (212, 18),
}
SOCKET, CLONE, CLONE3 = (41, 198), (56, 220), (435, 435)
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
NEW_NAMESPACES = 0x7E020080  # all of CLONE_NEW…


def _calls() -> dict[str, int]:
    """Name → number, on this machine. OSError where we don't know them."""
    if platform.machine() not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no list of calls for {platform.machine()}")
    column = ARCHITECTURES[platform.machine()][0]
    return {name: numbers[column] for name, numbers in CALLS.items() if numbers[column]}


def refuse_calls() -> None:
    """From now on the kernel refuses this process what a piece has no need for: keyrings, shared
    memory that nobody counts, namespaces, other kinds of sockets, and what is a way out at times.
    """
    refused = sorted(_calls().values())
    column, architecture = ARCHITECTURES[platform.machine()]
    load, equal, at_least, any_of, done = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, no, unknown = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),  # of which architecture
        (equal, 1, 0, architecture),
        (done, 0, 0, no),
        (load, 0, 0, 0),  # which call
        (at_least, 0, 1, 0x40000000),  # x32's numbers
        (done, 0, 0, no),
    ]
    for number in refused:
        program += [(equal, 0, 1, number), (done, 0, 0, no)]
    # clone3's flags lie in memory, where nobody sees them: libc takes clone instead
    program += [(equal, 0, 1, CLONE3[column]), (done, 0, 0, unknown)]
    program += [
        (equal, 0, 4, CLONE[column]),
        (load, 0, 0, 16),  # its first argument
        (any_of, 0, 1, NEW_NAMESPACES),
        (done, 0, 0, no),
        (done, 0, 0, allow),
    ]
    program += [
        (equal, 0, 5, SOCKET[column]),
        (load, 0, 0, 16),
        (equal, 3, 0, 1),  # AF_UNIX, AF_INET, AF_INET6
        (equal, 2, 0, 2),
        (equal, 1, 0, 10),
        (done, 0, 0, no),
        (done, 0, 0, allow),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    text = ctypes.create_string_buffer(code, len(code))
    about = struct.pack("@HP", len(program), ctypes.addressof(text))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    zero = ctypes.c_ulong(0)
    _call("prctl", 22, ctypes.c_ulong(2), ctypes.c_char_p(about), zero, zero)  # PR_SET_SECCOMP


# ── Landlock: files and TCP, for whoever gets no namespaces ─────────────────────────────────────

_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1, 2, 4, 8, 1 << 14


def _landlock_version() -> int:
    """What the kernel speaks; 0 when it has no Landlock."""
    with contextlib.suppress(OSError):
        return _call("syscall", 444, None, ctypes.c_size_t(0), 1)
    return 0


def landlock(version: int, seen: View, scratch: Path) -> None:
    """From now on this process reads what is visible, writes in `scratch`, and opens no TCP."""
    files = (1 << 13) - 1  # version 1; each later one adds a bit
    files |= sum(1 << bit for bit, since in ((13, 2), (14, 3), (15, 5)) if version >= since)
    attributes = struct.pack("=QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call("syscall", 444, attributes, ctypes.c_size_t(size), 0)
    hidden = [Path(os.path.realpath(path)) for path in (*seen.covered, *seen.hidden)]
    read, whole = _EXECUTE | _READ | _LIST, files & ~(1 << 15)
    for path in seen.shown:
        rights = read | (_WRITE if path == "/dev/null" else 0)
        _allow_but(ruleset, Path(os.path.realpath(path)), rights, hidden)
    for path in seen.packages:
        inside = [h for h in hidden if h.is_relative_to(os.path.realpath(path))]
        _allow_but(ruleset, Path(os.path.realpath(path)), read, inside)
    for path in (Path("/proc"), Path("/etc"), Path("/sys")):
        if path.exists():
            _allow(ruleset, path, _READ | _LIST)
    _allow(ruleset, scratch, whole)
    _call("syscall", 446, ruleset, 0)
    os.close(ruleset)


def _allow_but(ruleset: int, path: Path, rights: int, hidden: list[Path]) -> None:
    """Allow a path, but what is hidden in it: Landlock takes nothing back that it has given."""
    if path in hidden:
        return
    if not any(answer.is_relative_to(path) for answer in hidden):
        _allow(ruleset, path, rights)
        return
    _allow(ruleset, path, 0 if path == Path("/") else _LIST)
    for inner in path.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a link that leads nowhere
            # a link, lib64 → lib for instance, would lead around what is hidden
            _allow_but(ruleset, Path(os.path.realpath(inner)), rights, hidden)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not path.is_dir():
            rights &= _EXECUTE | _WRITE | _READ | _TRUNCATE
        _call("syscall", 445, ruleset, 1, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


# ── putting it on ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Cage:
    """What one check's process is put into. uid: 0 for "your own"."""

    means: Means
    limits: Limits
    view: View
    scratch: Path
    uid: int = 0


def free_uid(number: int) -> int:
    """The number-th user id that no account has."""
    import pwd

    uid = FIRST_UID
    while True:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            number -= 1
            if number < 0:
                return uid
        uid += 1


def guard() -> None:
    """For the process that watches: its end is the end of all it started, and nobody reads it."""
    end_with_parent()
    if LINUX:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        _prctl(PR_SET_DUMPABLE, 0)


def end_with_parent() -> None:
    """Where the system can: this process ends when the one that started it does."""
    if LINUX:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def confine(cage: Cage) -> None:
    """For the process that runs a student's code: limits first, then privileges. Not undone."""
    import resource

    limits = cage.limits
    os.setsid()
    os.umask(0o022)
    for number in range(1, signal.NSIG):
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an OSError that can be explained, not an end
    bounds = {
        resource.RLIMIT_FSIZE: limits.file_size * MEGABYTE,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CPU: int(limits.seconds) + 5,
    }
    if LINUX:
        used = status("VmData"), status("VmSize")
        room = limits.memory * MEGABYTE
        bounds[resource.RLIMIT_DATA] = used[0] + room
        bounds[resource.RLIMIT_AS] = used[1] + 2 * room
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if cage.uid or (cage.means.namespaces and _counts_per_namespace()):
        bounds[resource.RLIMIT_NPROC] = limits.processes
    for what, bound in bounds.items():
        hard = resource.getrlimit(what)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(what, (bound, bound))
    if cage.means.landlock and not cage.means.namespaces:
        landlock(cage.means.landlock, cage.view, cage.scratch)
    if cage.uid:
        os.setgroups([])
        os.setresgid(cage.uid, cage.uid, cage.uid)
        os.setresuid(cage.uid, cage.uid, cage.uid)
        if LINUX:  # taking another id cleared it
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    elif cage.means.namespaces:
        for capability in range(64):
            with contextlib.suppress(OSError):
                _prctl(PR_CAPBSET_DROP, capability)
        header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
        _call("capset", header, nothing)
    if cage.means.seccomp:
        with contextlib.suppress(OSError):  # 1: join a session keyring, a new one
            _call("syscall", _calls()["keyctl"], 1, None, 0, 0, 0)
        refuse_calls()


def _counts_per_namespace() -> bool:
    """Whether the limit on processes counts those of a user namespace alone (Linux 5.14)."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 14)


def status(name: str, process: int | str = "self") -> int:
    """A number of bytes from /proc/PID/status; 0 when it is not there."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * (1024 if line.endswith("kB") else 1)
    return 0


# ── watching and ending it ──────────────────────────────────────────────────────────────────────


def family(watcher: int) -> dict[int, int]:
    """Every process below `watcher`: process id → bytes of memory of its own.

    What it shares with the watcher, because it was forked from it, does not count.
    """
    parents, memory = _linux_processes() if LINUX else _other_processes()
    found: dict[int, int] = {}
    todo = [watcher]
    while todo:
        parent = todo.pop()
        for child in (p for p, its in parents.items() if its == parent and p not in found):
            found[child] = memory(child)
            todo.append(child)
    base = memory(watcher)
    return {process: max(0, its - base) for process, its in found.items()}


def _linux_processes() -> tuple[dict[int, int], Callable[[int], int]]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path(f"/proc/{name}/stat").read_bytes()
                parents[int(name)] = int(text.rpartition(b")")[2].split()[1])
    return parents, lambda process: status("RssAnon", process) + status("RssShmem", process)


def _other_processes() -> tuple[dict[int, int], Callable[[int], int]]:
    import subprocess

    parents, sizes = {}, {}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, timeout=5, check=False
        )
        for line in done.stdout.splitlines():
            process, parent, kilobytes = map(int, line.split())
            parents[process], sizes[process] = parent, kilobytes * 1024
    return parents, lambda process: sizes.get(process, 0)


def end_all(namespace: bool, groups: Iterable[int] = ()) -> None:
    """End every process below this one, also those that detached themselves, and reap them.

    namespace: this process was to be the first of a process namespace. groups: process groups known
    to be below, for systems that can't list them all.
    """
    # Outside a namespace of our own, "all" would be all that the system lets us end. So nothing
    # but the number 1 will do; and 1 is also what a container's first process has.
    if namespace and os.getpid() == 1 and os.getppid() == 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all but itself, in this namespace
        _reap(block=True)
        return
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(1000):
        _reap(block=False)
        left = family(os.getpid()) if LINUX else {}
        if not left:
            break
        for process in left:  # first stopped, then ended: a stopped one starts no others
            _signal(process, signal.SIGSTOP)
        for process in left:
            _signal(process, signal.SIGKILL)
    _reap(block=LINUX)


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(process, number)


def _reap(block: bool) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0 if block else os.WNOHANG)[0]:
            pass
