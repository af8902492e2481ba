"""Named snippets in the netlist language: codes, costs, optimizers, couplings and kinds, one YAML file each.

`mgdcircuits.netlist.library` reads them; `mgdcircuits show` prints a circuit with every snippet written out.
"""
