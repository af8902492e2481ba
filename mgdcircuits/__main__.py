"""`python -m mgdcircuits` is the command line."""

from mgdcircuits.cli import main

if __name__ == "__main__":
    main()
