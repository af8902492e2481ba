"""A reading of the published node perturbation: each layer perturbs its nodes or its parameters, whichever are fewer.

Nothing to run: gradient_convergence.py, node_hypotheses.py, training_readings.py and the studies of training time use it.
"""

from __future__ import annotations

from functools import cache

import mgdcircuits as mgd
from common import study
from mgdcircuits.analysis.prediction import parameter_blocks

NODE_OR_WEIGHT = "node_or_weight"
NETLIST = study.NETLISTS / "fashion_mnist_cnn_np.yaml"
TEXT = """
include: {netlist}
circuit: fashion_mnist_cnn_node_or_weight
learning:
  np: none
  node_or_weight:
    perturb: {{{codes}, every: tau_p, blocks: layer}}
    passes: {{clean: 0, plus: 1}}
    estimate:
      b: (C.plus - C.clean)*theta/amplitude**2
      w: (C.plus - C.clean)*theta/amplitude**2
{nodes}
    update: {{request: -eta*G/sqrt(1 + normalise*(K - 1)/n_G), every: tau_theta}}
"""


def perturbs_nodes(n_nodes: int, n_parameters: int) -> bool:
    """Whether it is the nodes of a layer that are perturbed."""
    return n_nodes < n_parameters


@cache
def counts(d: int) -> dict[str, tuple[int, int]]:
    """Nodes and parameters of each layer of the published network."""
    circuit = mgd.load(NETLIST, d=d)
    (system,) = circuit.spec.learning
    return {
        layer: (circuit.variables[f"{layer}.theta"][2].n, sum(circuit.plastic[name].n for name in names))
        for layer, names in parameter_blocks(circuit, system).items()
    }


def netlist(d: int) -> str:
    """The published network with this rule, as text."""
    codes, nodes = [], []
    for layer, (n_nodes, n_parameters) in counts(d).items():
        if perturbs_nodes(n_nodes, n_parameters):
            codes += [f"{layer}.theta"]
            nodes += [f"      {layer}.w: (C.plus - C.clean)*theta_post*x_pre.clean/amplitude**2"]
        else:
            codes += [f"{layer}.theta_w", f"{layer}.theta_b"]
    each = ", ".join(f"{name}: amplitude*bernoulli()" for name in codes)
    return TEXT.format(netlist=NETLIST.resolve(), codes=each, nodes="\n".join(nodes))
