"""Train circuits in situ by multiplexed gradient descent: from a netlist of equations to a run and its dataset."""
