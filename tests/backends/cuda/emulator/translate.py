"""C++ for the CPU out of program.cu."""

import re
from importlib import resources

SOURCES = resources.files("tallow.backends.cuda")

CALLS = {
    "cvt.f32.f16 ": "widen_f16", "cvt.rn.f16x2.e4m3x2": "widen_two_e4m3", "cvt.rn.bf16.f32": "round_bf16",
    "cvt.rn.f16.f32": "round_f16", "cvt.rn.bf16x2.f32": "round_two_bf16", "cvt.rn.f16x2.f32": "round_two_f16",
    "ld.volatile.global.v4": "load_four_now", "ld.volatile.global.u32": "load_one_now", "st.volatile": "store_one_now",
    "v4.u32": "load_four", "ex2.": "power_of_two_of", "mbarrier.init": "barrier_begins",
    "mbarrier.arrive.expect_tx": "arrive_expecting", "mbarrier.arrive": "arrive_alone",
    "mbarrier.try_wait": "wait_parity", "cp.async.bulk": "copy_bulk", "fma.rn.bf16x2": "multiply_add_bf16",
    "add.rn.f16x2": "add_f16", "f32.bf16.bf16.f32": "multiply_matrices<true>",
    "f32.f16.f16.f32": "multiply_matrices<false>", "bar.sync 1": "meet_consumers",
}  # fmt: skip
"""What instructions become, by a part of their text; the first that is found counts."""

NOTHING = ("prefetch", "griddepcontrol", "fence.", "setmaxnreg", "ld.global.nc")
"""Instructions that mean nothing here, or that only other kernels use."""

LAUNCH = """
extern "C" int launch(int grid, size_t shared, const void* list, i64 count, u32* counters, i64 rows, i64 slots,
                      i64 work, i64 partial_at) {
    return emulator::run_grid(grid, shared, [=] {
        program(static_cast<const Instruction*>(list), count, counters, rows, slots, work, partial_at);
    });
}
"""


def translated() -> str:
    """The whole source: headers put in once each, ``launch`` at the end."""
    text = _expanded("program.cu", set())
    text = re.sub(r"#if __CUDA_ARCH__ < 900\n.*?#else\n", "#if 1\n", text, count=1, flags=re.S)
    while found := re.search(r"\basm\s*(?:volatile)?\s*\(", text):
        end = _closing(text, found.end() - 1)
        text = text[: found.start()] + _call(text[found.end() : end]) + text[end + 1 :]
    text = text.replace(
        "extern __shared__ __align__(128) u8 shared[];", "u8* const shared = emulator::dynamic_shared();"
    )
    text = text.replace("__shared__", "static thread_local").replace("#pragma once", "")
    return f'#include "device.h"\n{text}{LAUNCH}'


def _expanded(name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    text = SOURCES.joinpath(name).read_text()
    return re.sub(r'#include "(\w+\.cuh)"', lambda found: _expanded(found.group(1), seen), text)


def _call(body: str) -> str:
    """A call instead of an assembly statement, of which the text between its parentheses is given."""
    call = next((call for part, call in CALLS.items() if part in body), None)
    if call is None:
        if not any(part in body for part in NOTHING):
            raise ValueError(f"no emulation of {body}")
        return "(void)0"
    operands, at = [], 0
    while found := re.compile(r'"[=+]?[a-z]+"\s*\(').search(body, at):
        at = _closing(body, found.end() - 1)
        operands.append(body[found.end() : at])
    return f"emulator::{call}({', '.join(operands)})"


def _closing(text: str, at: int) -> int:
    """Where the parenthesis that opens there closes; strings are passed over."""
    depth = 0
    while True:
        if text[at] == '"':
            at = text.index('"', at + 1)
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not depth:
            return at
        at += 1
