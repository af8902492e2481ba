"""The C++ target: generated code in this process, its state as numpy arrays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgdcircuits.circuit.clocks import Clocks
from mgdcircuits.circuit.program import Array, Program
from mgdcircuits.circuit.topology import Sparse
from mgdcircuits.codegen import compiler
from mgdcircuits.codegen.cpp_emitter import Emitter
from mgdcircuits.codegen.cpp_layout import Layout, choose_lanes
from mgdcircuits.codegen.naming import private
from mgdcircuits.codegen.target import EVALUATION_COUNT, ITERATE, Data, Target, random_sites
from mgdcircuits.errors import BuildError
from mgdcircuits.netlist.spec import Sharing

_P = ctypes.c_void_p
_I64 = ctypes.c_int64
_SIGNATURES = {
    "mgd_create": ([_P, _P], _P),
    "mgd_destroy": ([_P, ctypes.c_int], None),
    "mgd_parameters": ([_P], _P),
    "mgd_set_keys": ([_P, _P], None),
    "mgd_set_edges": ([_P, ctypes.c_int, _I64, _I64, _I64, *([_P] * 8)], None),
    "mgd_set_data": ([_P, _P, _P, _P, _I64, _I64, _I64, ctypes.c_double], None),
    "mgd_watch": ([_P, _P, ctypes.c_int], None),
    "mgd_run": ([_P, ctypes.c_int, _I64, ctypes.POINTER(_I64), _I64, ctypes.c_int], ctypes.c_int),
}


class Places(NamedTuple):
    """Where the numbers of replicas lie; see ``include/mgd/layout.hpp``."""

    member_stride: int  # from one element of an array per member to the next
    lanes: int  # numbers of a unit in a lane block
    blocks: int  # of a member, or of all where lanes are members
    replicas: int  # numbers of a unit for a member, padding included
    lanes_are_members: int


def _view(pointer: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Memory as an array, no copy."""
    flat = (ctypes.c_byte * (math.prod(shape) * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(memoryview(flat), dtype).reshape(shape)


LATER = (("gradient",), ("per_sample_gradient",), ITERATE)


class _Compiled:
    """One library and its handle; groups of phases are compiled when they are first asked for and share all arrays."""

    def __init__(self, target: CppTarget, phases: tuple[str, ...], pointers) -> None:
        self.phases = phases
        program, clocks = target.program, target.clocks
        emitter = Emitter(private(program), target.layout, clocks.ticks, clocks.evaluations, phases)
        self.sources = emitter.sources(compiler.parts())
        self.topologies = emitter.topologies
        self.library = compiler.library(self.sources)
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(self.library, name)
            function.argtypes, function.restype = arguments, result
        self.places = (ctypes.c_int64 * len(Places._fields))()
        self.owner = not any(pointers)
        self.handle = self.library.mgd_create(pointers, self.places)
        if not self.handle:
            raise BuildError("not enough memory for the circuit; use a smaller batch, fewer members or a smaller net")
        numbers = ctypes.c_double * max(1, len(program.parameters))
        self.numbers = np.frombuffer(memoryview(numbers.from_address(self.library.mgd_parameters(self.handle))))
        keys = np.array([target.keys(site) for site in random_sites(program)], dtype=np.uint64)
        if keys.size:
            self.library.mgd_set_keys(self.handle, keys.ctypes.data)
        self._edges = [self._set_edges(number, topology) for number, topology in enumerate(self.topologies)]

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.mgd_destroy(self.handle, int(self.owner))

    def _set_edges(self, number: int, topology: Sparse) -> tuple[np.ndarray, ...]:
        pre, post = topology.pre.astype(np.int32), topology.post.astype(np.int32)

        def side(unit: np.ndarray, other: np.ndarray, n: int):
            order = np.argsort(unit, kind="stable").astype(np.int32)
            start = np.searchsorted(unit[order], np.arange(n + 1)).astype(np.int64)
            return start, np.ascontiguousarray(other[order]), order

        post_start, post_pre, post_syn = side(post, pre, topology.n_post)
        pre_start, pre_post, pre_syn = side(pre, post, topology.n_pre)
        arrays = (pre, post, post_start, post_pre, post_syn, pre_start, pre_post, pre_syn)
        self.library.mgd_set_edges(
            self.handle, number, topology.n_pre, topology.n_post, len(pre), *(a.ctypes.data for a in arrays)
        )
        return arrays


class CppTarget(Target):
    """See `Target`. State lives in one struct behind a handle, so many sessions share a library."""

    def __init__(
        self,
        program: Program,
        clocks: Clocks,
        seeds: Sequence[int],
        batch: int,
        dtype: np.dtype,
        threads: int,
        phases: tuple[str, ...] = ITERATE,
    ) -> None:
        super().__init__(program, clocks, seeds, batch, dtype, threads, phases)
        real = {"float32": "float", "float64": "double"}[self.dtype.name]
        self.layout = Layout(real, choose_lanes(self.members, batch), self.members, batch)
        self._pointers = (ctypes.c_void_p * len(program.arrays))()
        self._main = _Compiled(self, phases, self._pointers)
        self._compiled = {phases: self._main}
        self._places = Places(*self._main.places)
        self._arrays = {a.name: (a, p) for a, p in zip(program.arrays, self._pointers, strict=True)}

    def _memory(self, array: Array, pointer: int) -> list[np.ndarray]:
        """The memory of an array as views (elements, member, lanes) of all replicas in order, padding included."""
        places, dtype = self._places, self.numpy_dtype(array)
        if array.sharing is Sharing.MEMBER:
            return [_view(pointer, dtype, (array.n, places.member_stride))[:, : self.members, None]]
        if places.lanes_are_members:
            blocks = _view(pointer, dtype, (places.blocks, array.n, places.lanes))
            return [block[:, :, None] for block in blocks]
        members = _view(pointer, dtype, (self.members, array.n * places.replicas))
        whole, rest = divmod(places.replicas, places.lanes)
        end = whole * array.n * places.lanes
        blocks = members[:, :end].reshape(self.members, whole, array.n, places.lanes)
        found = [block.swapaxes(0, 1) for block in blocks.swapaxes(0, 1)]
        return [*found, members[:, end:].reshape(self.members, array.n, rest).swapaxes(0, 1)] if rest else found

    def array(self, name: str) -> np.ndarray:
        array, pointer = self._arrays[name]
        memory = self._memory(array, pointer)
        if array.sharing is Sharing.MEMBER:
            return memory[0]
        joined = np.concatenate(memory, axis=1 if self._places.lanes_are_members else 2)
        joined.flags.writeable = False
        return joined[:, : self.members, : self.batch]

    def write(self, name: str, values: np.ndarray | float) -> None:
        array, pointer = self._arrays[name]
        lanes = self.batch if array.sharing is Sharing.REPLICA else 1
        values = np.broadcast_to(values, (array.n, self.members, lanes))
        axis = 1 if self._places.lanes_are_members else 2
        first = 0
        for block in self._memory(array, pointer):
            last = min(first + block.shape[axis], values.shape[axis])
            if axis == 1:
                block[:, : last - first] = values[:, first:last]
            else:
                block[:, :, : last - first] = values[:, :, first:last]
            first = last

    @property
    def iteration(self) -> int:
        """Iterations done. C++ counts them: a Ctrl-C after a run cannot come between the run and its count."""
        return self._n_p.value

    @iteration.setter
    def iteration(self, value: int) -> None:
        self._n_p = ctypes.c_int64(value)

    def set_data(self, data: Data | None) -> None:
        self.data = data
        main = self._main
        if data is None:
            main.library.mgd_set_data(main.handle, None, None, None, 0, 0, 0, 1.0)
            return
        x = data.x if data.x.dtype == np.uint8 else np.ascontiguousarray(data.x, dtype=np.float32)
        y = np.ascontiguousarray(data.y, dtype=np.float64)
        self._kept = (x, y)  # C++ points to them
        as_bytes, as_floats = (x.ctypes.data, None) if x.dtype == np.uint8 else (None, x.ctypes.data)
        n_inputs, n_targets = int(np.prod(x.shape[1:])), int(np.prod(y.shape[1:]))
        main.library.mgd_set_data(
            main.handle, as_bytes, as_floats, y.ctypes.data, len(x), n_inputs, n_targets, data.scale
        )

    def watch(self, arrays: Sequence[str]) -> None:
        super().watch(arrays)
        places = [self._pointers[k] for name in arrays for k, a in enumerate(self.program.arrays) if a.name == name]
        pointers = (ctypes.c_void_p * len(places))(*places)
        self._main.library.mgd_watch(self._main.handle, pointers, len(places))

    def run(self, phase: str, count: int = 1) -> bool:
        group = next(g for g in (*self._compiled, *LATER) if phase in g)
        if group not in self._compiled:
            self._compiled[group] = _Compiled(self, group, self._pointers)
        compiled = self._compiled[group]
        for k, name in enumerate(self.program.parameters):
            compiled.numbers[k] = self.parameters[name]
        offset = 0 if phase == "iteration" else EVALUATION_COUNT
        index = group.index(phase)
        return bool(compiled.library.mgd_run(compiled.handle, index, count, self._n_p, offset, self.threads))
