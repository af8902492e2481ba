"""Predicted gradient convergence of a circuit, at its present parameters and for the samples that it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import sympy

from mgdcircuits.analysis import coverage
from mgdcircuits.analysis.moments import BERNOULLI, Law
from mgdcircuits.analysis.theory import Convergence, NodeLayer, combined, node_perturbation, weight_perturbation
from mgdcircuits.circuit import builder, gradient
from mgdcircuits.circuit.circuit import Circuit, Coupling, Population
from mgdcircuits.circuit.derivatives import derivative, to_sympy
from mgdcircuits.circuit.program import Array, Kernel, Node, Program, Read, steps
from mgdcircuits.circuit.topology import Conv2d, Dense, Sparse
from mgdcircuits.codegen.numpy_target import NumpyTarget
from mgdcircuits.errors import RunError
from mgdcircuits.netlist.spec import LearningSpec, Perturb, Role
from mgdcircuits.session import Session


@dataclass(frozen=True)
class Prediction:
    """Convergence of the whole network, and of each block of parameters by the object that gives it its name."""

    network: Convergence
    blocks: Mapping[str, Convergence]


def predict(session: Session, law: Law = BERNOULLI) -> Prediction:
    """How the estimate of the circuit's rule will converge to the exact gradient over the presented batch.

    Parameters
    ----------
    session
        Of one member, with samples presented; its rule is one system of weight or node perturbation that forms
        dC*theta or dC*theta_post*x_pre. Some blocks may perturb weights, and others nodes. Where the estimate converges to the
        gradient times a number, lengths are in units of that.
    law
        Of the codes, which must be independent draws of it.

    Raises
    ------
    RunError
        Several members; codes that are held; a rule or a coupling that this theory does not cover; a gradient that is 0.
    """
    if session.members != 1:
        raise RunError(f"a prediction is of one member; the session has {session.members}")
    system, perturb = _system(session)
    if (held := session.clocks.holds.get(system.name, 1)) > 1:
        raise RunError(
            f"{system.name} holds a code for {held} iterations; a prediction is of codes that are new in each"
        )
    if not session.program.gradient:
        session.exact_gradient()  # says why there is none
    session.cost()  # says that no sample is shown, if so
    own_codes = coverage.check_codes(session, system, law)
    signs = coverage.check_estimates(session, system)
    parameters = parameter_blocks(session.circuit, system)
    of_nodes = _of_nodes(session.circuit, system, parameters)
    of_weights = parameters.keys() - of_nodes
    for name in of_weights:
        _check_weights(system, perturb, parameters[name], own_codes)
        _check_signs(signs, {p: _weight_gain(session, system, p) for p in parameters[name]})
    layers = node_layers(session) if of_nodes else {}
    exact = session.exact_gradient() if of_weights else {}
    block_of = {site.parameter: site.block for site in system.sites}
    try:
        found = {
            name: weight_perturbation(np.concatenate([exact[p].ravel() for p in names]), law)
            if name in of_weights
            else node_perturbation(layers[name], law, block_of[names[0]] in own_codes)
            for name, names in parameters.items()
        }
        return Prediction(combined(found.values()), found)
    except ValueError as problem:
        raise RunError(f"{session.circuit.name} has no prediction for these samples: {problem}") from None


def _check_weights(system: LearningSpec, perturb: Perturb, parameters: list[str], own_codes: set[int]) -> None:
    """Whether a block perturbs the parameters that it trains and no others, all samples alike."""
    sites = [site for site in system.sites if site.parameter in parameters]
    block = sites[0].block
    if others := [name for name in perturb.blocks[block] if name not in {site.theta for site in sites}]:
        raise RunError(
            f"{', '.join(others)}: perturbed beside {parameters[0]}, but nothing is trained by it; "
            "this theory does not cover its noise"
        )
    if block in own_codes:
        raise RunError(f"{parameters[0]} is perturbed by codes of each sample, which this theory covers for nodes only")


def _weight_gain(session: Session, system: LearningSpec, parameter: str) -> float:
    """Slope of the circuit by the perturbation of a parameter over that by the parameter itself: 1 or -1."""
    (theta,) = [site.theta for site in system.sites if site.parameter == parameter]
    assert theta is not None
    pair = [session.circuit.variables[name][2].name for name in (theta, parameter)]
    readers = [step.kernel for step in steps(session.program.evaluate) if _called(step.kernel, pair[0])]
    gains = [_ratio(kernel, *pair) for kernel in readers]
    if not gains or any(gain != gains[0] for gain in gains):
        raise RunError(f"{theta} is read by {len(gains)} equations, and not beside {parameter} in the same way in all")
    return gains[0]


def _system(session: Session) -> tuple[LearningSpec, Perturb]:
    systems = session.circuit.spec.learning
    if len(systems) != 1 or systems[0].perturb is None:
        raise RunError(f"{session.circuit.name}: a prediction needs one learning system that perturbs")
    return systems[0], systems[0].perturb


def parameter_blocks(circuit: Circuit, system: LearningSpec) -> dict[str, list[str]]:
    """Plastic parameters by the block that estimates them; a block is called after the objects of its parameters."""
    blocks: dict[int, list[str]] = {}
    for site in system.sites:
        blocks.setdefault(site.block, []).append(site.parameter)
    if -1 in blocks:
        raise RunError(f"{system.name}: {blocks[-1][0]} belongs to no perturbed block")
    order = list(circuit.plastic)
    found = {}
    for names in blocks.values():
        names.sort(key=order.index)
        found["+".join(dict.fromkeys(name.rpartition(".")[0] for name in names))] = names
    return found


def _of_nodes(circuit: Circuit, system: LearningSpec, parameters: Mapping[str, list[str]]) -> set[str]:
    """The blocks whose estimates read perturbations of nodes; those of the others read the parameters' own."""
    paired = {site.parameter: site.theta is not None for site in system.sites}
    blocks = {name: {paired[p] for p in names} for name, names in parameters.items()}
    if both := [name for name, found in blocks.items() if len(found) > 1]:
        raise RunError(
            f"{circuit.name}: {system.name} perturbs weights and nodes of {both[0]} at once; "
            "expected one of them, or blocks of their own (`blocks: layer`)"
        )
    return {name for name, found in blocks.items() if found == {False}}


def _check_signs(signs: Mapping[str, float], expected: Mapping[str, float]) -> None:
    if against := [name for name, sign in expected.items() if signs[name] != sign]:
        raise RunError(f"the estimate of {', '.join(against)} goes against the gradient; expected its opposite")


# Node perturbation


def node_layers(session: Session) -> dict[str, list[NodeLayer]]:
    """What node perturbation knows of the presented samples, by block of nodes: slopes of all, inputs of all parameters.

    The channels of a layer have their weights first, in the order of the parameter, and the bias last. Neurons whose synapses
    come from units of their own, as in a sparse coupling, are layers of one node each.

    Raises
    ------
    RunError
        No block perturbs nodes; a rule or a coupling that this theory does not cover.
    """
    system, perturb = _system(session)
    parameters = parameter_blocks(session.circuit, system)
    block_of = {site.parameter: site.block for site in system.sites}
    of_nodes = _of_nodes(session.circuit, system, parameters)
    if not of_nodes:
        raise RunError(f"{session.circuit.name}: {system.name} perturbs no nodes")
    signs = coverage.check_estimates(session, system)
    nodes = {name: perturb.blocks[block_of[names[0]]] for name, names in parameters.items() if name in of_nodes}
    target = _node_gradients(session, [node for block in nodes.values() for node in block])
    return {
        name: [layer for node in block for layer in _layers(session, target, node, parameters[name], signs)]
        for name, block in nodes.items()
    }


def _node_gradients(session: Session, driven: Iterable[str]) -> NumpyTarget:
    """The circuit evaluated on the presented samples, with the slope of each sample's cost by each node."""
    circuit = session.circuit
    made = builder.Builder(circuit, session.clocks)
    made.build()
    evaluate, cost = made.evaluate()
    if cost is None:
        raise RunError(f"{circuit.name} has no cost, so that nodes have no slopes")
    nodes = {name: circuit.variables[name][2] for name in driven}
    back = gradient.steps(circuit, made.forward, cost, made.constants, per_sample=True, wrt=nodes)
    phases = (tuple(evaluate), tuple(back))
    arrays = _arrays([*evaluate, *back]) | {a.name: a for a in session.program.arrays if a.name in nodes.values()}
    program = Program(tuple(arrays.values()), session.program.parameters, (), *phases, (), session.program.constants)
    target = NumpyTarget(program, session.clocks, session.seeds, session.batch, np.dtype(np.float64), 1)
    known = {array.name for array in session.program.arrays}
    for name in arrays.keys() & known:
        target.write(name, session.target.array(name))
    target.run("evaluate")
    target.run("gradient")
    return target


def _arrays(nodes: Iterable[Node]) -> dict[str, Array]:
    """All arrays that some steps mention."""
    found = {}
    for step in steps(nodes):
        read = [o.array for o in step.kernel.operands.values() if isinstance(o, Read)]
        for array in (*step.kernel.writes.values(), *read):
            name = step.rename.get(array.name, array.name)
            found[name] = replace(array, name=name)
    return found


def _layers(
    session: Session, target: NumpyTarget, node: str, parameters: Iterable[str], signs: Mapping[str, float]
) -> list[NodeLayer]:
    """The nodes of a population, and the parameters of the block that enter them."""
    circuit = session.circuit
    population, variable, array = circuit.variables[node]
    if not isinstance(population, Population) or variable.perturbs is not None or array.n != population.n:
        raise RunError(f"{node} is not a perturbation of every node of a population")
    slopes = target.array(f"gradient_per_sample:{node}")[:, 0].T.reshape(session.batch, -1, population.positions)
    found = [_inputs(session, target, population, node, name, signs) for name in parameters]
    columns = [column for column in found if column is not None]
    if not columns:
        raise RunError(f"{node}: the block trains no parameter that enters {population.name}")
    if all(len(column) == 1 for column in columns):
        return [NodeLayer(slopes, np.concatenate([column[0] for column in columns], axis=2))]
    units = [np.concatenate([c[k % len(c)] for c in columns], axis=2) for k in range(population.n)]
    return [NodeLayer(slopes[:, [k]], inputs) for k, inputs in enumerate(units)]


def _inputs(
    session: Session, target: NumpyTarget, population: Population, node: str, name: str, signs: Mapping[str, float]
) -> list[np.ndarray] | None:
    """By what a parameter enters each node, (sample, position, parameter of a channel); None if it enters others.

    One array that holds for all channels, or one for each unit.
    """
    owner, variable, array = session.circuit.variables[name]
    if owner is population:
        if array.n * population.positions != population.n:
            raise RunError(f"{name}: expected one value for each channel of {population.name}")
        gain = _gain(target.program, node, array.name)
        _check_signs(signs, {name: gain})
        return [np.full((session.batch, population.positions, 1), gain)]
    if not isinstance(owner, Coupling) or owner.post is not population:
        return None
    kernel, parameter = _reader(target.program, array.name)
    (current,) = kernel.writes.values()
    entry = derivative(kernel.statements[-1].expression, parameter)
    operand = kernel.operands.get(entry or "")
    if variable.role is not Role.PLASTIC or not isinstance(operand, Read) or operand.array.n != owner.pre.n:
        raise RunError(f"{name}: node perturbation is predicted for couplings weight*x_pre; its synapses have {entry}")
    pre = target.array(operand.array.name)[:, 0].T
    gain = _gain(target.program, node, current.name)
    _check_signs(signs, {name: gain})
    if isinstance(owner.topology, Sparse):
        return [gain * pre[:, None, units] for units in _partners(owner)]
    return [gain * _windows(owner, pre)]


def _partners(coupling: Coupling) -> list[np.ndarray]:
    """The pre-synaptic units of each unit of a sparse coupling."""
    if coupling.post.positions > 1:
        raise RunError(
            f"{coupling.name}: node perturbation is predicted for sparse couplings to units without positions"
        )
    unit, node, _ = coupling.topology.indices()
    return [unit[node == k] for k in range(coupling.post.n)]


def _reader(program: Program, array: str):
    """The only step of an evaluation that reads an array, and what it calls it."""
    found = [
        (step.kernel, name)
        for step in steps(program.evaluate)
        for name, operand in step.kernel.operands.items()
        if isinstance(operand, Read) and operand.array.name == array
    ]
    if len(found) != 1:
        raise RunError(f"{array} is read by {len(found)} equations; node perturbation is predicted where it is one")
    return found[0]


def _gain(program: Program, node: str, array: str) -> float:
    """Slope of an equation by an array over that by a perturbation: 1 where both are added, -1 for y = f(I - b)."""
    return _ratio(_reader(program, node)[0], node, array)


def _called(kernel: Kernel, array: str) -> str | None:
    """What a step calls an array that it reads."""
    return next((n for n, o in kernel.operands.items() if isinstance(o, Read) and o.array.name == array), None)


def _ratio(kernel: Kernel, node: str, array: str) -> float:
    expression = to_sympy(kernel.statements[-1].expression)
    slopes = [sympy.diff(expression, sympy.Symbol(_called(kernel, n) or "", real=True)) for n in (array, node)]
    gain = sympy.simplify(slopes[0] / slopes[1])
    if abs(gain) != 1:
        raise RunError(f"{node} and {array} do not enter an equation side by side; the ratio of their slopes is {gain}")
    return float(gain)


def _windows(coupling: Coupling, pre: np.ndarray) -> np.ndarray:
    """(sample, position, synapse of a channel): the pre-synaptic value that each synapse of a channel sees, 0 outside."""
    topology = coupling.topology
    if not isinstance(topology, Dense | Conv2d) or isinstance(topology, Conv2d) and topology.geometry.groups > 1:
        raise RunError(
            f"{coupling.name}: node perturbation is predicted for dense and sparse couplings and ungrouped convolutions"
        )
    positions = coupling.post.positions
    unit, node, synapse = topology.indices()
    first = node < positions  # the other channels see the same
    table = np.full((positions, topology.n_synapses * positions // topology.n_post), topology.n_pre)
    table[node[first], synapse[first]] = unit[first]
    padded = np.concatenate([pre, np.zeros((len(pre), 1))], axis=1)
    return padded[:, table]
