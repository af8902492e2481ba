"""The same iterations written in other frameworks. Nothing here imports mgdcircuits."""
