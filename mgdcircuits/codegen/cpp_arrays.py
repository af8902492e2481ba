"""Arrays in C++: what they are called, how large they are, and which of them memory holds in another form."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mgdcircuits.circuit.operands import identifier
from mgdcircuits.circuit.program import Array, Precision, Read
from mgdcircuits.netlist.spec import Sharing

CPP_TYPE = {Precision.REAL: "T", Precision.DOUBLE: "double", Precision.INTEGER: "std::int64_t"}


class Arrays:
    """The arrays of a session, which are members of its struct.

    Parameters
    ----------
    arrays
        All of them, in the order of the program.
    coded
        Names of the codes of signs of which memory has bits while a run lasts (`codes.py`).
    counted
        Names of the integer arrays that count in bytes and are added up when somebody looks (``counters.hpp``).
    """

    def __init__(self, arrays: Sequence[Array], coded: Collection[str], counted: Collection[str]) -> None:
        self.all = tuple(arrays)
        self.coded = set(coded)
        self.counters = {name: k for k, name in enumerate(sorted(counted))}
        self._index = {a.name: k for k, a in enumerate(self.all)}

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> Array:
        return self.all[self._index[name]]

    def member(self, name: str) -> str:
        """The pointer to the numbers of an array."""
        return f"a{self._index[name]}"

    def code(self, name: str) -> str:
        """The bits of a code of signs."""
        return f"code{self._index[name]}"

    def bytes(self, name: str) -> str:
        """How many bytes an array takes."""
        return f"static_cast<std::size_t>({numbers(self[name])}) * sizeof({CPP_TYPE[self[name].precision]})"

    def lanes(self, operand: Read) -> str:
        """The numbers k, k + 1, ... of an array per member."""
        start = pointer(operand.array)
        return f"{start}.template lanes<16>(k)" if operand.array.name in self.coded else f"V::load({start} + k)"


def numbers(array: Array) -> str:
    """How many numbers an array has, padding included."""
    return f"{array.n}LL * {'Y::R' if array.sharing is Sharing.REPLICA else 'Y::MP'}"


def pointer(array: Array) -> str:
    """The argument of a kernel's function that points to an array."""
    return f"p_{_safe(array.name)}"


def factor(name: str) -> str:
    """The argument of a kernel's function that is the factor of a perturbation."""
    return f"factor_{_safe(name)}"


def _safe(name: str) -> str:
    made = identifier(name)
    return "".join(c if c.isalnum() or c == "_" else "_" for c in made)
