"""Steps the wall clock of one running process, as if somebody had set the clock of its machine forward or back.

    step(pid, 3600)        from now on the process's wall clock is an hour ahead; 0 takes that back

Linux answers questions for the time within the process (vdso(7)), where nothing outside can change the answer. So this
module replaces three functions in the process's memory, those that read the wall clock. The new ones ask the kernel and
add the step. The monotonic clocks stay right, as on a machine whose clock is set. It needs the rights of a debugger, and
x86-64.
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
WAIT_SECONDS: Final = 10.0  # for a process to stop outside of these functions
STEP_AT: Final = 128  # bytes after the beginning of clock_gettime, which is longer; holds whole seconds, signed

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
    """Sets a process's wall clock ahead of the machine's by this many seconds, or behind it."""
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
    """Replaces the functions in the vDSO while no thread runs one of them."""
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
    """Stops a process. False, and it continues, when one of its threads is at one of the addresses."""
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
    """Waits for a condition. Raises TimeoutError."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {WAIT_SECONDS:g} s for {what}")
        time.sleep(0.005)


def _vdso(pid: int) -> tuple[int, bytes]:
    """The address of a process's vDSO, and its bytes."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    start, end = next(
        [int(part, 16) for part in line.split()[0].split("-")] for line in lines if line.endswith("[vdso]")
    )
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(start)
        return start, memory.read(end - start)


def _functions(image: bytes) -> dict[str, int]:
    """The offsets of the functions in a shared object, by name."""
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
