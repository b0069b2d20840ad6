"""C++ for the CPU out of a kernel's source."""

import re
from importlib import resources

SOURCES = resources.files("tallow.backends.cuda")

CALLS = {
    "cvt.f32.f16 ": "widen_f16", "cvt.rn.f16x2.e4m3x2": "widen_two_e4m3", "cvt.rn.bf16.f32": "round_bf16",
    "cvt.rn.f16.f32": "round_f16", "cvt.rn.bf16x2.f32": "round_two_bf16", "cvt.rn.f16x2.f32": "round_two_f16",
    "cvt.rn.satfinite.e4m3x2.f32": "round_two_e4m3", "max.NaN.f32": "larger_or_nan",
    "v4.u32": "load_four", "v2.u32": "load_two", "ld.global.nc.L1::no_allocate.u32": "load_one",
    "ex2.": "power_of_two_of", "cp.async.cg": "copy_later", "cp.async.ca": "copy_word_later",
    "cp.async.commit_group": "close_copies", "cp.async.wait_group": "wait_for_copies",
    ".trans.shared.b16": "load_matrices<true>", "m8n8.x4.shared.b16": "load_matrices<false>",
    "lop3.b32 %0, %1, %2, %3, 0xea": "mask_and_join", "fma.rn.bf16x2": "multiply_add_bf16", "add.rn.f16x2": "add_f16",
    "f32.bf16.bf16.f32": "multiply_matrices<true>",
    "f32.f16.f16.f32": "multiply_matrices<false>",
    "wgmma.mma_async": "multiply_later<SAME<T, bf16>>(c, ", '" TYPE "': "multiply_matrices<SAME<T, bf16>>",
    "mapa": "map_into_cluster", "st.shared::cluster": "store_in_cluster",
    "barrier.cluster.arrive": "come_to_cluster", "barrier.cluster.wait": "wait_for_cluster",
    "wgmma.commit_group": "close_products",
    "wgmma.wait_group": "wait_for_products", "ld.shared.v4": "load_four_shared", "st.shared.v4": "store_four_shared",
    "bar.sync": "meet_group",
}  # fmt: skip
"""What instructions become, by a part of their text; the first that is found counts. Operands follow what is given."""

NOTHING = ("prefetch", "griddepcontrol", "fence.", "wgmma.fence", "st.volatile.shared", '"" :')
"""Instructions that mean nothing here."""

LAUNCH = """
extern "C" size_t size_{0}(size_t number) {{ return emulator::size_of_argument(&{0}, number); }}
extern "C" void launch_{0}(const unsigned* grid, const unsigned* threads, size_t shared, int at_once,
                           const char* kinds, void* const* arguments) {{
    emulator::launch(&{0}, grid, threads, shared, at_once, kinds, arguments);
}}
"""


def translated(file: str) -> str:
    """A whole source, its headers put in once each: a function ``launch_…`` behind each kernel starts it."""
    text = _expanded(file, set()).replace("#pragma once", "").replace("__grid_constant__", "")
    while found := re.search(r"\basm\s*(?:volatile)?\s*\(", text):
        end = _closing(text, found.end() - 1)
        text = text[: found.start()] + _call(text[found.end() : end]) + text[end + 1 :]
    text = re.sub(
        r"extern __shared__ (?:__align__\(\d+\) )?([\w ]+) (\w+)\[\];",
        r"\1* const \2 = reinterpret_cast<\1*>(emulator::dynamic_shared());", text,
    )  # fmt: skip
    text = text.replace("__shared__", "static thread_local")
    text = re.sub(r"\*reinterpret_cast<volatile u32\*>\((\w+)\)", r"emulator::look_again(\1)", text)
    # Kernels may be called as functions of the C library are, raise for one.
    text = text.replace('extern "C" ', "")
    for found in reversed(list(re.finditer(r"__global__ void\s+(?:__\w+\([^)]*\)\s+)*(\w+)\(", text))):
        body = text.index("{", _closing(text, found.end() - 1))
        end = text.index("\n", _closing(text, body, "{}")) + 1
        text = text[:end] + LAUNCH.format(found[1]) + text[end:]
    return text


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
    call += "" if "(" in call else "("
    return f"emulator::{call}{', '.join(operands)})"


def _closing(text: str, at: int, kind: str = "()") -> int:
    """Where what opens there closes; strings are passed over."""
    depth = 0
    while True:
        if text[at] == '"':
            at = text.index('"', at + 1)
        depth += {kind[0]: 1, kind[1]: -1}.get(text[at], 0)
        if not depth:
            return at
        at += 1
