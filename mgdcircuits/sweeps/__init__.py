"""Many runs of one netlist, on all cores or on a cluster: the points of a grid, and one dataset of all of them."""
