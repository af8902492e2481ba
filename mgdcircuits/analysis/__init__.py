"""What runs mean: the theory of gradient convergence, to be drawn beside what was measured."""
