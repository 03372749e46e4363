"""A real SLURM on this one machine, in a temporary folder: munge, slurmctld and slurmd, with or without accounting.

    python tests/cluster/slurm.py FOLDER [--accounting]     start it there and print the environment to use

It ends with Ctrl-C.  Nothing outside the folder is changed.  The packages must be there: ``apt-get install slurm-wlm
munge``, for accounting also ``slurmdbd mariadb-server``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
{accounting}
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
MinJobAge=600
SlurmdParameters=config_overrides
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=30
NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=short Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""
DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing(*, accounting: bool = False) -> str | None:
    """Why no SLURM (with accounting) can be started here; None if one can."""
    absent = [p for p in (*PROGRAMS, *(ACCOUNTING if accounting else ())) if shutil.which(p, path=SEARCHED) is None]
    if absent:
        more = " slurmdbd mariadb-server" if accounting else ""
        return f"{', '.join(absent)} not installed (apt-get install slurm-wlm munge{more})"
    return None


def _port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Slurm:
    """A running cluster of one node."""

    folder: Path
    environment: dict[str, str]
    scratch: Path | None = None

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def answer(self, *command: str) -> str:
        """What a command says; empty if it fails."""
        try:
            return self.call(*command)
        except RuntimeError:
            return ""

    def jobs(self) -> dict[str, str]:
        """Id and state of every job SLURM still remembers."""
        rows = self.call("squeue", "--all", "--states=all", "--noheader", "--format=%i %T").split("\n")
        return dict(row.split() for row in rows if row)


def _wait(what: str, ready, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return
        time.sleep(0.2)
    text = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise RuntimeError(f"{what} did not start within {seconds:.0f} s\n{text}")


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(processes):  # each still has what it needs until it is gone
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def cluster(folder: Path, *, cores: int = 16, memory: int = 40000, account: str | None = None) -> Iterator[Slurm]:
    """Start a SLURM in `folder` and end its programs afterwards; it believes in more cores than there may be.

    With `account` it keeps an accounting database (slurmdbd on a MariaDB of its own) in which only that account may
    submit, as on most clusters; without one ``sacct`` says that accounting is disabled.
    """
    folder = folder.resolve()
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    database_port = _port()
    accounting = [
        "AccountingStorageType=accounting_storage/slurmdbd", "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={database_port}", "AccountingStorageEnforce=associations", f"AccountingStoragePass={folder}/munge.socket",
    ]  # fmt: skip
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host, node="node1", user=user, folder=folder, cores=cores, memory=memory,
            controller_port=_port(), node_port=_port(),
            accounting="\n".join(accounting) if account else "AccountingStorageType=accounting_storage/none",
        )
    )  # fmt: skip
    # Snakemake's jobs call srun with all SLURM_ variables removed: a real cluster has its file in /etc/slurm, this one not.
    (folder / "bin" / "srun").write_text(
        f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=SEARCHED)} "$@"\n'
    )
    (folder / "bin" / "srun").chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), SEARCHED])
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *options: str) -> None:
        with open(folder / f"{program}.out", "wb") as out:
            process = subprocess.Popen(
                [str(shutil.which(program, path=SEARCHED)), *options],
                env=environment,
                stdout=out,
                stderr=out,
                cwd=folder,
            )
        started.append(process)

    slurm = Slurm(folder, environment)
    try:
        start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        _wait("munged", (folder / "munge.socket").exists, folder / "munged.out")
        if account:
            _start_accounting(folder, start, slurm, host=host, user=user, port=database_port)
        start("slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf"))
        start("slurmd", "-D", "-N", "node1", "-f", str(folder / "slurm.conf"))

        def idle() -> bool:
            return "idle" in slurm.answer("sinfo", "--noheader", "--format=%T")

        _wait("SLURM", idle, folder / "slurmd.log")
        if account:
            slurm.call("sacctmgr", "--immediate", "add", "account", account, "cluster=test")
            slurm.call("sacctmgr", "--immediate", "add", "user", user, f"account={account}", "cluster=test")
        yield slurm
    finally:
        slurm.answer("scancel", "--user", user)
        _end(started)
        if slurm.scratch:
            shutil.rmtree(slurm.scratch, ignore_errors=True)


def _start_accounting(
    folder: Path, start: Callable[..., None], slurm: Slurm, *, host: str, user: str, port: int
) -> None:
    """MariaDB in `folder`, reached by a socket (a short path: it may hold 107 characters), and slurmdbd on it."""
    data = folder / "database"
    socket_path = Path(tempfile.mkdtemp(prefix="nicheloop-db-")) / "db.socket"
    slurm.scratch = socket_path.parent
    made = [
        str(shutil.which("mariadb-install-db", path=SEARCHED)), "--no-defaults", f"--datadir={data}",
        f"--user={user}", "--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}",
        "--skip-test-db",
    ]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True, cwd=folder)
    start(
        "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket_path}", "--skip-networking",
        f"--user={user}", f"--pid-file={folder}/database.pid", "--innodb-buffer-pool-size=64M",
        "--innodb-lock-wait-timeout=900",
    )  # fmt: skip
    _wait("mariadbd", socket_path.exists, folder / "mariadbd.out")
    configuration = folder / "slurmdbd.conf"
    configuration.write_text(DATABASE.format(folder=folder, host=host, user=user, port=port))
    configuration.chmod(0o600)
    slurm.environment["MYSQL_UNIX_PORT"] = str(socket_path)
    start("slurmdbd", "-D")
    _wait("slurmdbd", lambda: "Cluster" in slurm.answer("sacctmgr", "list", "cluster"), folder / "slurmdbd.log", 15)


if __name__ == "__main__":
    reason = missing(accounting="--accounting" in sys.argv)
    if reason or not 2 <= len(sys.argv) <= 3:
        sys.exit(reason or __doc__)
    with cluster(Path(sys.argv[1]), account="lab" if "--accounting" in sys.argv else None) as running:
        print(f"export SLURM_CONF={running.environment['SLURM_CONF']} PATH={running.environment['PATH']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
