"""What launchers say: the status that they tell beside their own, and what of it need not be read.

For supervise.py.
"""

import os
import re
import select
import time

# What Open MPI prints when ranks have ended by themselves with a status that is not 0, by line.
DASHES = b"-{74}"
BANNER = (
    DASHES,
    rb"(mpirun|mpiexec|prterun) detected that .* exited with non-zero status,( thus causing)?",
    b"(thus causing )?the job to be terminated. The first process to do so was:",
    b"",
    rb" *Process name: \[.*\]",
    rb" *Exit code: +\d+",
    DASHES,
)

# What it may print before or after that: version 5 that the first rank that ended is already out of
# its reach, version 4 that one has ended.
UNREACHABLE = (rb"\[[^\]]+:\d+\] PMIX ERROR: PMIX_ERR_UNREACH in file \S+ at line \d+",)
PRIMARY = (
    DASHES,
    rb"Primary job  terminated normally, but \d+ process(es)? returned",
    b"a non-zero exit code. Per user-direction, the job has been aborted.",
    DASHES,
)


class Plain:
    """Reads nothing; the launcher's own status is right."""

    status = 0
    right = True  # the launcher's own status
    banners: tuple[tuple[bytes, ...], ...] = ()

    def read(self, line: str) -> None:
        """Looks at a line of the launcher's errors."""


class Srun(Plain):
    """srun terminates the other ranks when one has failed, and its status is the highest of all.

    Status 14 (MPI_ERR_UNKNOWN) is that of a rank that lost another one, and may be reported before
    the cause. Where ranks could not even be started, srun 22.05 may end with 0.
    """

    right = False

    def read(self, line: str) -> None:
        if self.status not in (0, 14):
            return
        if found := re.match(
            r"srun: error: .*: tasks? [\d,-]+: Exited with exit code (\d+)$", line
        ):
            self.status = int(found[1])
        elif re.match(r"srun: error: tasks? [\d,-]+ launch failed: ", line):
            self.status = 1


class Orterun(Plain):
    """Open MPI 4 prints the status of the first rank that ended; its own is the same."""

    banners = BANNER, PRIMARY
    failed = False

    def read(self, line: str) -> None:
        if re.fullmatch(BANNER[1].decode(), line):
            self.failed = True
        elif self.failed and not self.status and (found := re.match(r" *Exit code: +(\d+)$", line)):
            self.status = int(found[1])


class Prterun(Orterun):
    """Open MPI 5 ends with 0 when it has lost a host.

    And it releases a job that several ranks end with a status once for each of them, so that it
    crashes or hangs in one of ten such ends on four nodes. But before that it prints the status.
    """

    right = False
    banners = BANNER, UNREACHABLE

    def read(self, line: str) -> None:
        if not self.status and "lost communication with a remote daemon" in line:
            self.status = 1
        super().read(line)


KINDS = {"prterun": Prterun, "orterun": Orterun, "srun": Srun, "plain": Plain}


class Errors:
    """Passes the launcher's errors on, each byte as it comes, and has them read line by line.

    Zero bytes, with which Open MPI ends some messages, are left out: to grep they make a log a
    binary file. Only what may become a banner is held back, and left out where the ranks themselves
    have said why they ended.
    """

    def __init__(self, kind: Plain) -> None:
        self.kind = kind
        self.line = b""  # what has come of the line that is not complete
        self.held = b""  # the beginning of a banner, for a second at most
        self.since = 0.0
        self.aside = b""  # whole banners, until the ranks' status is known, or for ten seconds
        self.aside_since = 0.0
        self.spoken = False
        self.told = False  # by ba-dist itself

    def take(self, data: bytes) -> None:
        for piece in re.findall(rb"[^\n]*\n|[^\n]+", data.replace(b"\0", b"")):
            fresh, self.line = not self.line, (self.line + piece)[-4096:]
            if self.held and not self._begun(self.held + piece):
                self._print_held()
            if (self.held or fresh) and self._begun(self.held + piece):
                self.since = self.since if self.held else time.monotonic()
                self.held += piece
            else:
                self.spoken = True
                write(piece)
            if self.line.endswith(b"\n"):
                self.told = self.told or self.line.startswith(b"ba-dist: ")
                self.kind.read(self.line[:-1].decode(errors="replace"))
                self.line = b""
            if self.held.count(b"\n") in map(len, self._begun(self.held)):
                self.aside_since = self.aside_since if self.aside else time.monotonic()
                self.aside, self.held = self.aside + self.held, b""
            if self.kind.status:
                self._decide()

    def look(self) -> None:
        """Prints what has been held back for too long."""
        now = time.monotonic()
        if now - self.since >= 1:
            self._print_held()
        if now - self.aside_since >= 10 and not self.line:
            self._decide()

    def end(self, status: int) -> None:
        """Prints all that is still held back; `status` is the launcher's own."""
        self.kind.status = self.kind.status or max(status, 0)
        self._decide()
        self._print_held()

    def _decide(self) -> None:
        # A stop on request; a mistake of the user, or a failure of ba-dist, once it is said.
        known = {75: True, 2: self.spoken, 1: self.told}
        if not known.get(self.kind.status, False):
            write(self.aside)
        self.aside = b""

    def _print_held(self) -> None:
        write(self.held)
        self.held = b""

    def _begun(self, text: bytes) -> list[tuple[bytes, ...]]:
        """The banners that begin so."""
        *lines, rest = text.split(b"\n")
        if not lines and rest.strip(b"-"):
            return []
        return [
            banner
            for banner in self.kind.banners
            if len(lines) <= len(banner) and all(map(re.fullmatch, banner, lines))
        ]


def write(data: bytes) -> None:
    """Writes all of it to standard error, as long as that is open."""
    try:
        while data:
            try:
                data = data[os.write(2, data) :]
            except BlockingIOError:  # a program that shares it has set it so; its reader is slow
                select.select([], [2], [])
    except OSError:
        pass  # nobody reads it any more; the ranks are still to be ended
