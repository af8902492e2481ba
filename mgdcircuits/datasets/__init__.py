"""Data to learn from: named sets, CSV files and the user's own arrays, all as one `Dataset`."""

from mgdcircuits.datasets.dataset import Dataset, from_arrays
from mgdcircuits.datasets.loading import NAMES, as_dataset, fetch, load

__all__ = ["NAMES", "Dataset", "as_dataset", "fetch", "from_arrays", "load"]
