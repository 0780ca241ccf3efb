"""A stand-in for an Android phone: speaks the device's side of adb's protocol over TCP, for Debian's real ``adb``.

Messages are those of AOSP's ``packages/modules/adb/protocol.txt`` (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE), services ``shell,v2``
and ``sync`` those of ``SERVICES.TXT`` and ``SYNC.TXT``. The phone's shell is this machine's ``sh``: ``/data/local/tmp`` and
``/sys`` stand for folders of the test, ``getprop`` and ``dumpsys`` for programs that print canned answers. A command that is an
aarch64 program runs under qemu-user.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

_MASK = 0xFFFFFFFF
_VERSION, _PAYLOAD = 0x01000001, 256 * 1024
_STDOUT, _STDERR, _EXIT = 1, 2, 3
_TEMP = "/data/local/tmp"

PROPS = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Fake One",
    "ro.soc.manufacturer": "QTI",
    "ro.soc.model": "SM8650",
    "ro.build.version.release": "16",
    "ro.build.version.sdk": "36",
    "ro.build.id": "FAKE.261121.001",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
}
BATTERY = "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  level: 81\n  temperature: 287\n"
THERMAL = (
    "IsStatusOverride: false\nThermal Status: 0\n"
    "Cached temperatures:\n\tTemperature{mValue=30.1, mType=3, mName=skin, mStatus=0}\n"
    "Current temperatures from HAL:\n\tTemperature{mValue=31.25, mType=3, mName=skin, mStatus=0}\n"
    "\tTemperature{mValue=41.0, mType=0, mName=cpu-0, mStatus=0}\n"
)


class FakePhone:
    """A phone on a port of its own.

    Attributes:
        serial: what adb calls it after ``adb connect``.
        temp: the folder that stands for ``/data/local/tmp``.
        authorised: whether it lets the computer in.
        free_bytes: what its disk still holds; None for enough.
        vanish_on: the connection breaks when a shell command contains this.
        kill_on: a program that is started with this is killed, as Android kills what takes too much memory.
        qemu: how aarch64 programs are started: program and options.
    """

    def __init__(self, root: Path, *, props: dict[str, str] | None = None, abi: str = "") -> None:
        self.temp, self.sys, self._bin = root / "tmp", root / "sys", root / "bin"
        for folder in (self.temp, self.sys, self._bin):
            folder.mkdir(parents=True)
        self.props = PROPS | (props or {}) | ({"ro.product.cpu.abilist": abi} if abi else {})
        self.authorised, self.vanish_on, self.kill_on = True, "", ""
        self.free_bytes: int | None = None
        self.qemu: list[str] = []
        self.commands: list[str] = []
        self._write_programs()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[_Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def set_battery(self, text: str) -> None:
        """What ``dumpsys battery`` prints from now on."""
        (self._bin / "battery").write_text(text)

    def set_thermal(self, text: str) -> None:
        """What ``dumpsys thermalservice`` prints from now on."""
        (self._bin / "thermalservice").write_text(text)

    def close(self) -> None:
        """Switch it off."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close() alone leaves a waiting accept() its socket
        self._listener.close()
        for connection in self._connections:
            connection.drop()

    def _write_programs(self) -> None:
        (self._bin / "props").write_text("".join(f"[{k}]: [{v}]\n" for k, v in self.props.items()))
        self.set_battery(BATTERY)
        self.set_thermal(THERMAL)
        for name, text in {"getprop": f"cat {self._bin}/props", "dumpsys": f'cat {self._bin}/"$1"'}.items():
            (self._bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (self._bin / name).chmod(0o755)
        zone = self.sys / "class/thermal/thermal_zone0"
        zone.mkdir(parents=True)
        (zone / "type").write_text("battery\n")
        (zone / "temp").write_text("28700\n")
        for cpu, khz in enumerate((2265600, 3302400)):
            folder = self.sys / f"devices/system/cpu/cpu{cpu}/cpufreq"
            folder.mkdir(parents=True)
            values = {"scaling_cur_freq": khz // 2, "scaling_max_freq": khz, "cpuinfo_max_freq": khz}
            for name, value in (values | {"scaling_governor": "walt"}).items():
                (folder / name).write_text(f"{value}\n")

    def local(self, text: str) -> str:
        """A command or path of the phone with this machine's folders in it."""
        return text.replace(_TEMP, str(self.temp)).replace("/sys/", f"{self.sys}/")

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Run a shell command as the phone would."""
        self.commands.append(command)
        text = self.local(command)
        folder = re.search(r"cd (\S+)", text)
        if self.qemu and folder:

            def emulated(match: re.Match[str]) -> str:
                file = Path(folder[1]) / match[2]
                return match[1] + (" ".join([*self.qemu, match[2]]) if _is_aarch64(file) else match[2])

            text = re.sub(r"((?:exec|LD_LIBRARY_PATH=\S+) )(\./\S+)", emulated, text)
        path = f"{self._bin}:{os.environ['PATH']}"
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if self.kill_on:
            text = text.replace(self.kill_on, f"kill -9 $$; {self.kill_on}")
        return subprocess.Popen(["sh", "-c", text], env={**os.environ, "PATH": path}, start_new_session=True, **pipes)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                connection = _Connection(self, peer)
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    """One computer that is connected to the phone."""

    def __init__(self, phone: FakePhone, peer: socket.socket) -> None:
        self.phone, self.peer = phone, peer
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next = 1

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                command, first, second, payload = self._read()
                if command == b"CNXN" and self.phone.authorised:
                    banner = "device::ro.product.model=Fake One;features=shell_v2,cmd,stat_v2"
                    self.send(b"CNXN", _VERSION, _PAYLOAD, banner.encode())
                elif command == b"CNXN" or (command == b"AUTH" and first == 2):
                    self.send(b"AUTH", 1, 0, b"\0" * 20)  # a token to sign; a signature is never good enough
                elif command == b"OPEN":
                    stream = _Stream(self, self._next, first)
                    self._streams[self._next] = stream
                    self._next += 1
                    service = payload.rstrip(b"\0").decode()
                    threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
                elif command == b"WRTE" and second in self._streams:
                    self._streams[second].received(payload)
                elif command == b"OKAY" and second in self._streams:
                    self._streams[second].acknowledged.release()
                elif command == b"CLSE" and second in self._streams:
                    self._streams.pop(second).closed()

    def send(self, command: bytes, first: int, second: int, payload: bytes = b"") -> None:
        number = struct.unpack("<I", command)[0]
        header = struct.pack("<6I", number, first, second, len(payload), sum(payload) & _MASK, number ^ _MASK)
        with self._lock:
            self.peer.sendall(header + payload)

    def drop(self) -> None:
        """As if the cable were pulled."""
        with contextlib.suppress(OSError):
            self.peer.shutdown(socket.SHUT_RDWR)
        self.peer.close()

    def _read(self) -> tuple[bytes, int, int, bytes]:
        number, first, second, length, _, _ = struct.unpack("<6I", self._exactly(24))
        return struct.pack("<I", number), first, second, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.peer.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data


class _Stream:
    """One open service."""

    def __init__(self, connection: _Connection, own: int, other: int) -> None:
        self.connection, self.phone, self._own, self._other = connection, connection.phone, own, other
        self.acknowledged = threading.Semaphore(0)
        self._arrived = threading.Condition()
        self._buffer = b""
        self._open = True

    def received(self, payload: bytes) -> None:
        with self._arrived:
            self._buffer += payload
            self._arrived.notify()
        self.connection.send(b"OKAY", self._own, self._other)

    def closed(self) -> None:
        with self._arrived:
            self._open = False
            self._arrived.notify()
        self.acknowledged.release()

    def serve(self, service: str) -> None:
        self.connection.send(b"OKAY", self._own, self._other)
        with contextlib.suppress(OSError, EOFError):
            if service.startswith("shell,"):
                self._shell(service.split(":", 1)[1])
            elif service.startswith("sync:"):
                self._sync()
            self.connection.send(b"CLSE", self._own, self._other)

    def write(self, payload: bytes) -> None:
        for start in range(0, len(payload), 64 * 1024):
            self.connection.send(b"WRTE", self._own, self._other, payload[start : start + 64 * 1024])
            self.acknowledged.acquire()
            if not self._open:
                raise EOFError

    def _take(self, size: int) -> bytes:
        with self._arrived:
            while len(self._buffer) < size:
                if not self._open:
                    raise EOFError
                self._arrived.wait()
            taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _shell(self, command: str) -> None:
        if self.phone.vanish_on and self.phone.vanish_on in command:
            self.phone.close()
            return
        process = self.phone.start(command)
        out, err = process.communicate()
        for kind, text in ((_STDOUT, out), (_STDERR, err)):
            if text:
                self.write(struct.pack("<BI", kind, len(text)) + text)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        self.write(struct.pack("<BIB", _EXIT, 1, code))

    def _sync(self) -> None:
        while True:
            request, length = struct.unpack("<4sI", self._take(8))
            if request == b"QUIT":
                return
            path = self._take(length).decode()
            if request in (b"STAT", b"STA2", b"LST2"):
                self._stat(request, Path(self.phone.local(path)))
            elif request == b"SEND":
                name, _, mode = path.rpartition(",")
                self._receive_file(Path(self.phone.local(name)), int(mode))
            elif request == b"RECV":
                self._send_file(Path(self.phone.local(path)))

    def _stat(self, request: bytes, file: Path) -> None:
        try:
            found = file.stat()
        except OSError as error:
            answer = struct.pack("<4s3I", b"STAT", 0, 0, 0)
            if request != b"STAT":
                answer = struct.pack("<4sI2Q4IQ3q", request, error.errno or 2, *([0] * 10))
            self.write(answer)
            return
        if request == b"STAT":
            self.write(struct.pack("<4s3I", b"STAT", found.st_mode, found.st_size & _MASK, int(found.st_mtime)))
            return
        times = int(found.st_atime), int(found.st_mtime), int(found.st_ctime)
        owner = found.st_nlink, found.st_uid, found.st_gid, found.st_size
        # An inode of its own machine is all the same to adb.
        self.write(struct.pack("<4sI2Q4IQ3q", request, 0, 1, 1, found.st_mode, *owner, *times))

    def _receive_file(self, file: Path, mode: int) -> None:
        content = b""
        while True:
            request, length = struct.unpack("<4sI", self._take(8))
            if request == b"DONE":
                break
            content += self._take(length)
        if self.phone.free_bytes is not None:
            self.phone.free_bytes -= len(content)
            if self.phone.free_bytes < 0:
                words = b"write failed: No space left on device"
                self.write(struct.pack("<4sI", b"FAIL", len(words)) + words)
                return
        file.write_bytes(content)
        file.chmod(mode & 0o777)
        self.write(struct.pack("<4sI", b"OKAY", 0))

    def _send_file(self, file: Path) -> None:
        try:
            content = file.read_bytes()
        except OSError as error:
            words = f"open failed: {error.strerror}".encode()
            self.write(struct.pack("<4sI", b"FAIL", len(words)) + words)
            return
        for start in range(0, len(content), 64 * 1024):
            part = content[start : start + 64 * 1024]
            self.write(struct.pack("<4sI", b"DATA", len(part)) + part)
        self.write(struct.pack("<4sI", b"DONE", 0))


def _is_aarch64(file: Path) -> bool:
    head = file.read_bytes()[:20] if file.is_file() else b""
    return head[:4] == b"\x7fELF" and struct.unpack("<H", head[18:20])[0] == 183


class AdbServer:
    """Debian's adb with a server of its own, which ends with the test.

    Attributes:
        environment: what a process needs to talk to this server and to no other.
    """

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        # Keys in a home of its own: a test must not make a computer known to anybody's phone.
        self.environment = {"ANDROID_ADB_SERVER_PORT": str(port), "HOME": str(home), "ADB_MDNS": "0"}
        self.adb("start-server")

    def adb(self, *arguments: str) -> str:
        """Run adb; what it prints."""
        command = [shutil.which("adb") or "adb", *arguments]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def close(self) -> None:
        """End the server."""
        self.adb("kill-server")


@contextlib.contextmanager
def connected(server: AdbServer, phone: FakePhone) -> Iterator[FakePhone]:
    """The phone while adb knows it."""
    server.adb("connect", phone.serial)
    try:
        yield phone
    finally:
        server.adb("disconnect", phone.serial)
        phone.close()
