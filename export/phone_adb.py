"""One phone behind Android's ``adb``: found, asked, written to; every failure is one line that says what to do."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from zoo.errors import ZooError

_QUICK = 60.0  # seconds: an answer that takes longer is none; a phone that hangs must not hang the benchmark
_DONE = "@@done:"
_STATES = {
    "unauthorized": "is unauthorised; unlock it and allow USB debugging from this computer, then run this again",
    "offline": "is offline; reconnect it (or `adb reconnect`) and run this again",
    "no permissions": "may not be opened by this user; add a udev rule for it (see `adb devices -l`)",
    "authorizing": "is still being authorised; unlock it and allow USB debugging from this computer",
    "recovery": "is in recovery mode; boot Android and run this again",
    "bootloader": "is in its bootloader; boot Android and run this again",
}


class Adb:
    """A phone that answered as ``device``.

    Attributes:
        serial: as adb names it. Never written into a record: it identifies a person's phone.
    """

    def __init__(self, serial: str = "") -> None:
        """Find the phone.

        Args:
            serial: of the phone; empty for the only one there is.

        Raises:
            ZooError: adb is not installed, no phone or several, unauthorised, offline.
        """
        program = shutil.which("adb")
        if program is None:
            raise ZooError("adb is not installed; install Android's platform tools (Debian: apt install adb)")
        self._program = program
        self.serial = ""
        lines = self._run(["devices"]).stdout.decode(errors="replace").splitlines()
        # Above the list are its title and, from some versions, what starting the server has to say.
        rows = [line.split(None, 1) for line in lines if line.strip() and not line.startswith(("*", "List of"))]
        states = {row[0]: row[1].strip() if len(row) > 1 else "" for row in rows}
        if serial and serial not in states:
            raise ZooError(f"adb sees no phone {serial}; it sees: {', '.join(sorted(states)) or 'none'}")
        if not states:
            raise ZooError("adb sees no phone; connect one with USB debugging on, or `adb connect HOST:PORT`")
        if not serial and len(states) > 1:
            raise ZooError(f"adb sees several phones; name one with --device adb:SERIAL: {', '.join(sorted(states))}")
        self.serial = serial or next(iter(states))
        state = states[self.serial]
        if state != "device":
            known = next((text for key, text in _STATES.items() if state.startswith(key)), f"is in state '{state}'")
            raise ZooError(f"phone {self.serial} {known}")

    def shell(self, command: str, *, check: bool = True, timeout: float = _QUICK) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the phone's shell; its exit code, stdout and stderr come back apart.

        Args:
            command: text for the phone's ``sh``.
            check: raise if it does not exit with 0.
            timeout: seconds.

        Raises:
            ZooError: the phone is gone or hangs, or (with ``check``) the command failed.
        """
        done = self._run(["shell", "-T", f"{command}\necho {_DONE}$? >&2"], timeout=timeout)
        words, mark, code = done.stderr.rpartition(_DONE.encode())
        # A connection that breaks looks like success: adb then exits with 0 and says nothing (seen with adb 29.0.6).
        if not mark or not code.strip().isdigit():
            raise ZooError(f"phone {self.serial} went away while it ran a command ({_last_line(done.stderr)})")
        done.returncode, done.stderr = int(code), words
        if check and done.returncode:
            raise ZooError(
                f"phone {self.serial}: `{command}` failed with exit code {done.returncode} ({_last_line(words)})"
            )
        return done

    def push(self, files: list[Path], folder: str) -> None:
        """Copy files into a folder of the phone that exists; modes travel with them.

        Raises:
            ZooError: what adb says, a full disk in particular.
        """
        done = self._run(["push", *(str(f) for f in files), f"{folder}/"], timeout=600)
        if done.returncode:
            words = (done.stdout + done.stderr).decode(errors="replace")
            megabytes = sum(f.stat().st_size for f in files) / 1e6
            if "No space left" in words:
                raise ZooError(
                    f"phone {self.serial} is full: {megabytes:.1f} MB for {folder} do not fit; free some space"
                )
            raise ZooError(f"phone {self.serial}: could not write to {folder} ({_last_line(words.encode())})")

    def pull(self, source: str, path: Path) -> None:
        """Copy one file from the phone.

        Raises:
            ZooError: what adb says.
        """
        done = self._run(["pull", source, str(path)], timeout=600)
        if done.returncode:
            raise ZooError(f"phone {self.serial}: could not read {source} ({_last_line(done.stdout + done.stderr)})")

    def _run(self, arguments: list[str], timeout: float = _QUICK) -> subprocess.CompletedProcess[bytes]:
        chosen = ["-s", self.serial] if self.serial else []
        command = [self._program, *chosen, *arguments]
        try:
            return subprocess.run(command, capture_output=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            words = shlex.join(arguments)[:60]
            raise ZooError(f"adb gave no answer within {timeout:.0f} s (`adb {words}`); reconnect the phone") from error
        except OSError as error:
            raise ZooError(
                f"{self._program} cannot be run ({error.strerror}); reinstall Android's platform tools"
            ) from error


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
