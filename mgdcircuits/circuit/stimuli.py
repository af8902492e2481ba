"""Which sample a replica is shown, for baselines kept `per: stimulus`."""

STIMULUS = "stimulus"
"""The index of the sample that is shown, per replica."""

MAX_STIMULI = 256
"""The most samples for which a baseline `per: stimulus` is kept."""
