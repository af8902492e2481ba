"""One iteration of layer-wise weight perturbation of the MLP in plain Brian2, C++ standalone, batch 1.

One time step is one iteration. Passes are variables of the same units (`x0` clean, `x1` with layer 1 perturbed, ...), so
that all share the weights of one `Synapses` object and each layer is evaluated only by the passes that changed before it.
The order within the step is set by `order`. A variant is `serial` or `openmp`.
"""

from __future__ import annotations

import math
import tempfile

import numpy as np
from brian2 import Network, NeuronGroup, Synapses, defaultclock, device, linked_var, prefs, set_device

from benchmarks.networks import Dense, mlp
from benchmarks.worker import Iteration, serve

DELTA = 0.01
ETA = 0.002
STEPS = 500  # of one call of the program
COST = 10  # place of the cost in the order of a step: after all layers


def population(number: int, layer: Dense, cost: NeuronGroup) -> NeuronGroup:
    """Units of a layer, evaluated by the clean pass and by those that perturb this layer or one before it."""
    variables = "".join(f"I{k} : 1\nx{k} : 1\n" for k in range(number + 1))
    units = NeuronGroup(layer.outputs, variables + "b : 1\ntheta_b : 1\nslope_b : 1 (linked)\n", name=f"layer{number}")
    units.slope_b = linked_var(cost, f"dC{number}")
    function = "tanh" if layer.tanh else ""
    lines = [f"x{k} = {function}(I{k} + b{' + theta_b' if k == number else ''})" for k in range(number + 1)]
    units.run_regularly("\n".join(lines), when="groups", order=2 * number)
    return units


def coupling(number: int, pre: NeuronGroup, post: NeuronGroup, cost: NeuronGroup) -> Synapses:
    """All to all. Pass `number` sees perturbed weights and clean activities, those before it the clean weights."""
    sums = [f"I{k}_post = w*x{k}_pre : 1 (summed)" for k in range(number)]
    sums.append(f"I{number}_post = (w + theta_w)*x0_pre : 1 (summed)")
    synapses = Synapses(pre, post, "\n".join([*sums, "w : 1", "theta_w : 1", "slope_w : 1 (linked)"]))
    synapses.connect()
    synapses.slope_w = linked_var(cost, f"dC{number}")
    bound = math.sqrt(6 / (len(pre) + len(post)))
    synapses.w = f"{bound}*(2*rand() - 1)"
    for updater in synapses.summed_updaters.values():
        updater.order = 2 * number - 1
    return synapses


def cost_unit(passes: int) -> NeuronGroup:
    """Cross entropy of each pass: by how much it differs from that of the clean one."""
    cost = NeuronGroup(1, "".join(f"Z{k} : 1\nT{k} : 1\ndC{k} : 1\n" for k in range(passes)), name="cost")
    differences = [f"dC{k} = log(Z{k}/Z0) - (T{k} - T0)" for k in range(1, passes)]
    cost.run_regularly("\n".join(differences), when="groups", order=COST + 1)
    return cost


def coupling_to_cost(logits: NeuronGroup, cost: NeuronGroup, passes: int) -> Synapses:
    """The sums that the cost is made of."""
    terms = [f"Z{k}_post = exp(x{k}_pre) : 1 (summed)\nT{k}_post = x{k}_pre*wanted : 1 (summed)" for k in range(passes)]
    total = Synapses(logits, cost, "\n".join([*terms, "wanted : 1"]), name="total")
    total.connect()
    total.wanted = "int(i == 3)"
    for updater in total.summed_updaters.values():
        updater.order = COST
    return total


def learn(group, amplitude: float, value: str) -> None:
    """Step along the perturbation of this iteration, and draw that of the next."""
    step = f"{value} -= {ETA / amplitude**2}*slope_{value}*theta_{value}"
    draw = f"theta_{value} = {amplitude}*(2*int(rand() < 0.5) - 1)"
    group.run_regularly(f"{step}\n{draw}", when="groups", order=COST + 2)


def network() -> tuple[Network, NeuronGroup]:
    """All objects, and the unit that holds the cost."""
    layers = mlp()
    image = NeuronGroup(layers[0].inputs, "x0 : 1", name="image")
    image.x0 = "rand()"
    cost = cost_unit(len(layers) + 1)
    objects, pre = [image, cost], image
    for number, layer in enumerate(layers, start=1):
        post = population(number, layer, cost)
        joined = coupling(number, pre, post, cost)
        amplitude = DELTA / math.sqrt(layer.parameters)
        learn(joined, amplitude, "w")
        learn(post, amplitude, "b")
        objects += [post, joined]
        pre = post
    return Network(*objects, coupling_to_cost(pre, cost, len(layers) + 1)), cost


def build(work: dict) -> Iteration:
    """The iteration of this work order, timed by Brian2's own loop: its program starts anew at every call."""
    if work["batch"] != 1 or work["network"] != "mlp":
        raise ValueError("this peer runs the MLP with batch 1")
    prefs.core.default_float_dtype = np.float32
    if work["variant"] == "openmp":
        prefs.devices.cpp_standalone.openmp_threads = work["threads"]
    folder = tempfile.TemporaryDirectory(prefix="brian2-bench-")
    set_device("cpp_standalone", directory=folder.name, build_on_run=False)
    net, cost = network()
    net.run(STEPS * defaultclock.dt)
    device.build(directory=folder.name, compile=True, run=False, debug=False)

    def run(n: int) -> float:
        calls = -(-n // STEPS)
        seconds = 0.0
        for _ in range(calls):
            device.run(folder.name, with_output=False, run_args=[])
            seconds += device._last_run_time
        return seconds * n / (calls * STEPS)

    return Iteration(run, lambda: np.log(cost.Z0[0]) - cost.T0[0])


if __name__ == "__main__":
    serve(build)
