"""Steps the wall clock of one running process: what a machine whose clock is put forward or back does to it, and to it alone.

    step(pid, 3600)        from now on the process reads a wall clock that is an hour ahead; 0 takes that back

Linux answers the time in the process itself (vdso(7)), where nothing from outside could change it. So the three functions
that tell the wall clock are replaced, in the process's memory, by such as ask the kernel and add the step. The monotonic
clocks stay true, as they do on a machine whose clock is stepped. It takes no more rights than a debugger has, and x86-64.
"""

import os
import platform
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

CAN_STEP: Final = platform.machine() == "x86_64"
PT_LOAD, PT_DYNAMIC, DT_STRTAB, DT_SYMTAB = 1, 2, 5, 6  # elf(5)
WAIT_SECONDS: Final = 10.0  # until a process has stopped, outside of the functions
STEP_AT: Final = 128  # bytes after the begin of clock_gettime, which is longer: whole seconds, signed

# Machine code before and after `mov rcx, [step]`. The kernel may change rcx and r11 in a call.
GETTIME: Final = (
    bytes.fromhex(
        "b8e4000000 0f05"  # mov eax, 228; syscall
        "85c0 7513"  # test eax, eax; jnz to the ret
        "85ff 7405"  # test edi, edi (CLOCK_REALTIME); jz to the mov
        "83ff05 750a"  # cmp edi, 5 (CLOCK_REALTIME_COARSE); jne to the ret
    ),
    bytes.fromhex("48010e c3"),  # add [rsi], rcx; ret
)
TIMEOFDAY: Final = (
    bytes.fromhex("b860000000 0f05 4885ff 740a"),  # mov eax, 96; syscall; test rdi, rdi; jz to the ret
    bytes.fromhex("48010f c3"),  # add [rdi], rcx; ret
)
TIME: Final = (
    bytes.fromhex("b8c9000000 0f05"),  # mov eax, 201; syscall
    bytes.fromhex("4801c8 4885ff 7403 488907 c3"),  # add rax, rcx; test rdi, rdi; jz to the ret; mov [rdi], rax; ret
)
LOAD_RCX: Final = bytes.fromhex("488b0d")  # mov rcx, [rip + 32 bits]


def step(pid: int, seconds: int) -> None:
    """Puts a process's wall clock so many seconds ahead of the machine's, or behind it."""
    if not CAN_STEP:
        raise NotImplementedError(f"expected a machine of x86-64, found {platform.machine()}")
    start, image = _vdso(pid)
    places = _functions(image)
    at = start + places["__vdso_clock_gettime"] + STEP_AT
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        if not image.startswith(GETTIME[0], places["__vdso_clock_gettime"]):
            _replace(pid, memory, start, len(image), places, at)
        memory.seek(at)
        memory.write(struct.pack("<q", seconds))


def _replace(pid: int, memory: Any, start: int, length: int, places: dict[str, int], at: int) -> None:
    """Puts our functions in the place of the vDSO's while no thread is in one of them."""
    _until(lambda: _is_outside(pid, range(start, start + length)), f"process {pid} to be elsewhere")
    try:
        memory.seek(at)
        memory.write(struct.pack("<q", 0))
        for name, (before, after) in {"clock_gettime": GETTIME, "gettimeofday": TIMEOFDAY, "time": TIME}.items():
            place = start + places[f"__vdso_{name}"]
            from_here = at - (place + len(before) + len(LOAD_RCX) + 4)
            memory.seek(place)
            memory.write(before + LOAD_RCX + struct.pack("<i", from_here) + after)
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_outside(pid: int, addresses: range) -> bool:
    """Stops a process; whether none of its threads stands at one of the addresses, else it goes on."""
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    _until(
        lambda: all((one / "stat").read_text().rpartition(")")[2].split()[0] == "T" for one in threads),
        f"process {pid} to stop",
    )
    places = [(one / "syscall").read_text().split()[-1] for one in threads]
    if any(place == "running" or int(place, 16) in addresses for place in places):
        os.kill(pid, signal.SIGCONT)
        return False
    return True


def _until(condition: Callable[[], bool], what: str) -> None:
    """Raises TimeoutError."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {WAIT_SECONDS:g} s for {what}")
        time.sleep(0.005)


def _vdso(pid: int) -> tuple[int, bytes]:
    """Where a process has its vDSO, and the bytes of it."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    start, end = next(
        [int(part, 16) for part in line.split()[0].split("-")] for line in lines if line.endswith("[vdso]")
    )
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(start)
        return start, memory.read(end - start)


def _functions(image: bytes) -> dict[str, int]:
    """Where in a shared object its functions begin, by name."""
    (headers,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    parts = [struct.unpack_from("<IIQQ", image, headers + number * size) for number in range(count)]
    ahead = next(address - offset for kind, _, offset, address in parts if kind == PT_LOAD)
    dynamic = next(offset for kind, _, offset, _ in parts if kind == PT_DYNAMIC)
    tables = dict(struct.iter_unpack("<qQ", image[dynamic : dynamic + 16 * 32]))
    texts, symbols = tables[DT_STRTAB] - ahead, tables[DT_SYMTAB] - ahead
    found = {}
    for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", image[symbols : texts - (texts - symbols) % 24]):
        if section:
            found[image[texts + name : image.index(b"\0", texts + name)].decode()] = value - ahead
    return found
