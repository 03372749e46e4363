"""Jobs on this machine start from one process that has every library loaded: half a second less for each of hundreds.

The workflow starts that process (`start`) and names its socket in the environment.  A job's command finds the name
there (`ask`), hands over its arguments, folder, environment and open files, and waits; the process forks, and the copy
does the job.  Nothing is computed before the fork, so the bytes are those of a job started alone.  Where the socket is
not there (a cluster's node, a step called by hand, another Python), a job starts alone as ever.

Every waiting command reads this module: at its head stands only what is light.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ADDRESS = "NICHELOOP_WARM"  # "off": every job starts alone
POSSIBLE = sys.platform == "linux"  # where a socket's end can signal a job, and a process with libraries can fork
PATIENCE = 5.0  # seconds in which an interrupted job may clean up
LENGTH, STATUS = 8, 4  # bytes of the size of a request and of an answer
TAKEN = b"+"
LATER = (  # what stages load inside functions
    "nicheloop.config", "h5py", "pyarrow.dataset", "pyarrow.pandas_compat", "pyarrow.parquet", "scipy.stats",
    "threadpoolctl", "faiss", "igraph", "leidenalg",
)  # fmt: skip


def identity() -> str:
    """Python and package of a process: a job is handed to its like only."""
    return os.pathsep.join([sys.prefix, __file__])


def ask(arguments: Sequence[str]) -> int | None:
    """Have a job done; its exit code, or None where it has to be done here.

    Ends this process by the signal that ended the job, if one did.  At an interrupt the job, which gets it as well, is
    waited for a moment.
    """
    address, _, wanted = os.environ.get(ADDRESS, "").partition("|")
    if wanted != identity() or not _own(os.path.dirname(address)):
        return None
    import json

    request = json.dumps([list(arguments), os.getcwd(), dict(os.environ)]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [len(request).to_bytes(LENGTH, "big")], [0, 1, 2])
            connection.sendall(request)
            if connection.recv(1) != TAKEN:
                return None
        except OSError:
            return None
        try:
            answer = connection.recv(STATUS)
        except OSError:
            answer = b""
        except KeyboardInterrupt:
            connection.settimeout(PATIENCE)
            with contextlib.suppress(OSError, KeyboardInterrupt):
                connection.recv(STATUS)
            return 130
    status = int.from_bytes(answer, "big") if len(answer) == STATUS else int(signal.SIGKILL)
    if os.WIFSIGNALED(status):
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.WEXITSTATUS(status)


def _own(folder: str) -> bool:
    """Whether a folder is this user's: a name that is remembered may have been taken by another one."""
    try:
        return os.stat(folder).st_uid == os.geteuid()
    except OSError:
        return False


def start(environment: Mapping[str, str]) -> tuple[str, int]:
    """Start the process jobs are forked from, with the environment of a job.

    Returns
    -------
    The value of `ADDRESS` for jobs, and a file descriptor: the process ends when the last copy of it is closed, at the
    latest with this process, however that ends.

    Raises
    ------
    OSError
        If there is no temporary folder, or one whose name is too long for a socket: jobs then start alone.
    """
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="nicheloop-")
    path = os.path.join(folder, "jobs")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(path)
        except OSError:
            os.rmdir(folder)
            raise
        listener.listen()
        alive, held = os.pipe()
        try:
            subprocess.Popen(
                [sys.executable, "-m", "nicheloop.warm", str(listener.fileno()), str(alive)],
                env=environment, pass_fds=(listener.fileno(), alive), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:
            os.close(held)
            _remove(path)
            raise
        finally:
            os.close(alive)
    return f"{path}|{identity()}", held


def preload() -> None:
    """Load what jobs load, and what they look up: the gene table, contracts, the compiler's tables.

    Nothing here may start a thread: a copy of the process would not have it.
    """
    import gc
    import importlib

    from nicheloop import cli, genes, kernels, lean, tables

    cli.calm_collector()
    for name in sorted({"ingest", *(stage.function.split(".")[0] for stage in cli.STAGES)}):
        importlib.import_module(f"nicheloop.{name}")
    with lean.without("matplotlib"):
        for name in LATER:
            importlib.import_module(name)
    kernels.prepare()
    tables.conform(tables.empty("qc"), "qc")
    genes.table()
    gc.collect()
    gc.freeze()  # a collector that visits these objects would copy their pages


def _job(connection: socket.socket) -> int:
    """Do what a connection asks for; its exit code."""
    import fcntl
    import json

    head, files, _, _ = socket.recv_fds(connection, LENGTH, 3)
    with connection.makefile("rb") as stream:
        arguments, folder, environment = json.loads(stream.read(int.from_bytes(head, "big")))
    connection.sendall(TAKEN)
    # The next event on this socket is the end of the waiting command: its signal ends this job as well.
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    with contextlib.suppress(BlockingIOError):
        connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        return 1  # it has ended already
    for target, handed in enumerate(files):
        os.dup2(handed, target)
        os.close(handed)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["nicheloop", *arguments]
    from nicheloop.cli import main

    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _fork(connection: socket.socket, others: Sequence[socket.socket], interrupt: Any) -> int:
    """Start a job in a copy of this process, with this handler of interrupts; its process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, interrupt)
        for other in others:
            other.close()
        code = _job(connection)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def serve(listener: socket.socket, alive: int) -> None:
    """Fork a job for every connection, until the pipe `alive` has no writer and no job is left."""
    import selectors

    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it goes to the jobs as well, and they end the run
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without removing the socket
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ended, wake = socket.socketpair()
    for each in (ended, wake, listener):
        each.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    jobs: dict[int, socket.socket] = {}
    open_, loaded = True, False
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, listener.getsockname())
        selector = stack.enter_context(selectors.DefaultSelector())
        for source in (listener, ended, alive):
            selector.register(source, selectors.EVENT_READ)
        while open_ or jobs:
            sources = [key.fileobj for key, _ in selector.select()]
            if ended in sources:
                ended.recv(4096)
                for pid, status in _reaped(jobs):
                    with jobs.pop(pid) as connection, contextlib.suppress(OSError):  # nobody may wait
                        connection.sendall(status.to_bytes(STATUS, "big"))
            if alive in sources and open_:
                open_ = False
                selector.unregister(alive)
                selector.unregister(listener)
                listener.close()  # who is in the queue does its job alone
            elif listener in sources:
                with contextlib.suppress(OSError):  # it went away
                    connection, _ = listener.accept()
                    if not loaded:  # not before there is a job: a run with nothing to do costs nothing
                        loaded = True
                        with contextlib.suppress(Exception):  # then the job's own log says what is wrong
                            preload()
                    connection.setblocking(True)
                    try:
                        jobs[_fork(connection, [listener, ended, wake, *jobs.values()], interrupt)] = connection
                    except OSError:  # no memory for a copy, or too many processes
                        connection.close()


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
        os.rmdir(os.path.dirname(path))


def _reaped(jobs: Mapping[int, socket.socket]) -> Iterator[tuple[int, int]]:
    """Jobs that have ended, with their status."""
    for pid in list(jobs):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            yield pid, status


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
