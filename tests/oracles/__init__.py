"""Independent implementations that the toolkit is held against; none of them imports it."""
