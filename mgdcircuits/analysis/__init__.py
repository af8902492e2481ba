"""What runs mean: gradient convergence predicted, to be drawn beside what was measured, and what a chip would take."""
