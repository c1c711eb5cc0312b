"""A disk with slow fsyncs, for one process: a shared object for LD_PRELOAD, made here byte by byte.

It replaces libc's fsync and fdatasync. While a file (the switch) exists, each call sleeps first. It needs no compiler, no
rights and no help from the kernel, but a program that is dynamically linked to libc, on x86-64 or arm64.
"""

import platform
import struct
from pathlib import Path
from typing import Final

PAGE: Final = 0x10000  # the largest page size of Linux on either processor
AT_FDCWD: Final = -100
FSYNC_CALLS: Final = {"fsync": {"x86_64": 74, "aarch64": 82}, "fdatasync": {"x86_64": 75, "aarch64": 83}}
MACHINES: Final = {"x86_64": 62, "aarch64": 183}  # e_machine


class NotHere(RuntimeError):  # noqa: N818
    """The processor is not supported."""


def write(library: Path, switch: Path, seconds: float, machine: str = "") -> Path:
    """Writes the shared object. While ``switch`` exists, each fsync of a process that preloads it takes ``seconds`` longer."""
    machine = machine or platform.machine()
    check(machine)
    library.write_bytes(_object(machine, bytes(switch.absolute()), seconds))
    return library


def check(machine: str = "") -> None:
    """Raises ``NotHere`` when the processor is not supported; by default this machine's is checked."""
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise NotHere(f"expected a processor of {', '.join(MACHINES)}, found {machine}")


def _object(machine: str, switch: bytes, seconds: float) -> bytes:
    """An ELF file of two segments: code with what the linker reads, and the dynamic section, to which it writes."""
    names = list(FSYNC_CALLS)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    hashes = struct.pack(f"<{len(names) + 4}I", 1, len(names) + 1, 1, 0, *range(2, len(names) + 1), 0)
    at_symbols = 64 + 4 * 56
    at_strings = at_symbols + 24 * (len(names) + 1)
    at_hashes = _aligned(at_strings + len(strings))
    at_pause = _aligned(at_hashes + len(hashes))
    at_switch = at_pause + 16
    at = at_code = _aligned(at_switch + len(switch) + 1)
    symbols, code = bytes(24), b""
    for name in names:
        body = CODE[machine](at, at_switch, at_pause, FSYNC_CALLS[name][machine])
        body += bytes(-len(body) % 16)
        symbols += struct.pack("<IBBHQQ", strings.index(name.encode() + b"\0"), 0x12, 0, 1, at, len(body))
        code, at = code + body, at + len(body)
    dynamic = struct.pack("<12Q", 4, at_hashes, 5, at_strings, 6, at_symbols, 10, len(strings), 11, 24, 0, 0)
    file = bytearray(PAGE + len(dynamic))
    for place, part in (
        (0, _header(machine)),
        (64, _segment(1, 5, 0, at) + _segment(1, 6, PAGE, len(dynamic)) + _segment(2, 6, PAGE, len(dynamic), 8)),
        (64 + 3 * 56, _segment(0x6474E551, 6, 0, 0, 16)),
        (at_symbols, symbols),
        (at_strings, strings),
        (at_hashes, hashes),
        (at_pause, struct.pack("<qq", int(seconds), int(seconds % 1 * 1e9))),
        (at_switch, switch),
        (at_code, code),
        (PAGE, dynamic),
    ):
        file[place : place + len(part)] = part
    return bytes(file)


def _aligned(place: int) -> int:
    return place + -place % 16


def _header(machine: str) -> bytes:
    return struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, MACHINES[machine], 1, 0, 64, 0, 0, 64, 56, 4, 64, 0, 0)


def _segment(kind: int, rights: int, place: int, size: int, align: int = PAGE) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, rights, place, place, place, size, size, align)


def _x86_64(at: int, switch: int, pause: int, call: int) -> bytes:
    """fsync(edi): if faccessat(AT_FDCWD, switch) returns 0, nanosleep(pause); then the system call itself."""

    def relative(code: bytes, so_far: bytes, target: int) -> bytes:
        return code + struct.pack("<i", target - (at + len(so_far) + len(code) + 4))

    code = b"\x57\xbf" + struct.pack("<i", AT_FDCWD)  # push rdi; mov edi, AT_FDCWD
    code += relative(b"\x48\x8d\x35", code, switch)  # lea rsi, [switch]
    code += b"\x31\xd2\xb8" + struct.pack("<I", 269) + b"\x0f\x05\x85\xc0"  # xor edx, edx; faccessat; test eax, eax
    code += b"\x75\x10"  # jnz past the pause
    code += relative(b"\x48\x8d\x3d", code, pause)  # lea rdi, [pause]
    code += b"\x31\xf6\xb8" + struct.pack("<I", 35) + b"\x0f\x05"  # xor esi, esi; nanosleep
    return code + b"\x5f\xb8" + struct.pack("<I", call) + b"\x0f\x05\xc3"  # pop rdi; the call; ret


def _aarch64(at: int, switch: int, pause: int, call: int) -> bytes:
    """The same with the argument in x0."""

    def adr(register: int, number: int, target: int) -> int:
        distance = target - (at + 4 * number) & 0x1FFFFF
        return 0x10000000 | (distance & 3) << 29 | distance >> 2 << 5 | register

    def mov(register: int, value: int) -> int:
        return 0x52800000 | value << 5 | register

    svc = 0xD4000001
    words = [
        0xAA0003E9,  # mov x9, x0
        0x12800000 | ~AT_FDCWD << 5,  # mov w0, AT_FDCWD
        adr(1, 2, switch), mov(2, 0), mov(8, 48), svc,  # faccessat
        0x35000000 | 5 << 5,  # cbnz w0, past the pause
        adr(0, 7, pause), mov(1, 0), mov(8, 101), svc,  # nanosleep
        0xAA0903E0,  # mov x0, x9
        mov(8, call), svc,
        0xD65F03C0,  # ret
    ]  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words)


CODE: Final = {"x86_64": _x86_64, "aarch64": _aarch64}
