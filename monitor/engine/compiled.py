"""How kernels are compiled: once, kept on disk, and thrown away when any source of the engine changes.

Numba ties a compiled function to its own file only, yet code of other files is inlined into it: after an update that touched only the other
file it would go on running the old arithmetic. Here the stamp of every kernel covers all sources of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["SOURCES", "inlined", "kernel", "prefetch"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _stamp() -> str:
    digest = blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


SOURCES = _stamp()
"""Hash of the sources that the kernels were made from."""


def kernel(function: Function) -> Function:
    """Compiles a function at its first call; later processes load the result from disk while `SOURCES` is the same."""
    compiled: Any = njit(cache=True, error_model="numpy")(function)
    files = compiled._cache._cache_file
    files._source_stamp = (files._source_stamp, SOURCES)
    return compiled  # type: ignore[no-any-return]


def inlined(function: Function) -> Function:
    """A piece of a kernel that is written into its callers: handing ten arrays to a call costs more than a small function does."""
    compiled: Any = njit(inline="always", error_model="numpy")(function)
    return compiled  # type: ignore[no-any-return]


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.mul(context.cast(builder, arguments[1], signature.args[1], types.intp), held.itemsize)
        byte = ir.IntType(8).as_pointer()
        pointer = builder.gep(builder.bitcast(held.data, byte), [place])
        word = ir.IntType(32)
        function = builder.module.declare_intrinsic("llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, word, word, word]))
        builder.call(function, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


@inlined
def prefetch(array: Any, index: int) -> None:
    """Asks for the cache line where `array[index]` begins, for a later access. Out of range does no harm: it reads nothing."""
    _prefetch(array, index)  # type: ignore[call-arg]
