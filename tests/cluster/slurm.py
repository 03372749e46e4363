"""A real SLURM on this one machine, in a temporary folder: munge, slurmctld and slurmd, without an accounting database.

    python tests/cluster/slurm.py FOLDER     start it there and print the environment to use; ends with Ctrl-C

Nothing outside the folder is changed.  The packages must be there: ``apt-get install slurm-wlm munge``.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "scontrol")
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
AccountingStorageType=accounting_storage/none
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


def missing() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    absent = [p for p in PROGRAMS if shutil.which(p, path=SEARCHED) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install slurm-wlm munge)"
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

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

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


@contextlib.contextmanager
def cluster(folder: Path, *, cores: int = 8, memory: int = 20000) -> Iterator[Slurm]:
    """Start a SLURM in `folder` and end its three programs afterwards; it believes in more cores than there may be."""
    folder = folder.resolve()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host, node="node1", user=getpass.getuser(), folder=folder, cores=cores, memory=memory,
            controller_port=_port(), node_port=_port(),
        )
    )  # fmt: skip
    # Snakemake's jobs call srun with all SLURM_ variables removed: a real cluster has its file in /etc/slurm, this one not.
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text(
        f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=SEARCHED)} "$@"\n'
    )
    (folder / "bin" / "srun").chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), SEARCHED])
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *options: str) -> subprocess.Popen[bytes]:
        with open(folder / f"{program}.out", "wb") as out:
            process = subprocess.Popen(
                [str(shutil.which(program, path=SEARCHED)), *options],
                env=environment,
                stdout=out,
                stderr=out,
                cwd=folder,
            )
        started.append(process)
        return process

    slurm = Slurm(folder, environment)
    try:
        start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        )  # fmt: skip
        _wait("munged", (folder / "munge.socket").exists, folder / "munged.out")
        start("slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf"))
        start("slurmd", "-D", "-N", "node1", "-f", str(folder / "slurm.conf"))

        def idle() -> bool:
            try:
                return "idle" in slurm.call("sinfo", "--noheader", "--format=%T")
            except RuntimeError:
                return False

        _wait("SLURM", idle, folder / "slurmd.log")
        yield slurm
    finally:
        with contextlib.suppress(RuntimeError):
            slurm.call("scancel", "--user", getpass.getuser())
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    reason = missing()
    if reason or len(sys.argv) != 2:
        sys.exit(reason or __doc__)
    with cluster(Path(sys.argv[1])) as running:
        print(f"export SLURM_CONF={running.environment['SLURM_CONF']} PATH={running.environment['PATH']}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
