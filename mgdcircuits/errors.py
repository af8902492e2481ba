"""What can go wrong, by the stage it goes wrong in. Each docstring lists the likely causes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike, fspath


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong at one place of a text file (a netlist or a CSV).

    Parameters
    ----------
    file
        The file as the user named it.
    line
        Line number, counted from 1.
    found
        What stands there.
    expected
        What could stand there instead, without a leading "expected"; empty if `found` says it all.
    mend
        What to do about it; empty if obvious.
    """

    file: str | PathLike[str]
    line: int
    found: str
    expected: str = ""
    mend: str = ""

    def __str__(self) -> str:
        parts = [self.found, f"expected {self.expected}" if self.expected else "", self.mend]
        return f"{fspath(self.file)}:{self.line}: " + "; ".join(part for part in parts if part)


class MgdError(Exception):
    """Base of every error that a user can mend. The command line prints its text, without a traceback.

    Anything else that escapes from mgdcircuits is a defect of mgdcircuits.
    """

    exit_status: int = 2


class NetlistError(MgdError):
    """A netlist does not describe a circuit.

    Likely causes: a misspelt key or variable, units that differ between two sides of an equation, shapes that do not
    fit along a coupling, a rule that names a parameter which is not plastic, passes that take longer than τ_x, YAML
    that means something else than it seems to (`on`, `1e-3`, a colon in an equation).

    Parameters
    ----------
    problems
        All problems found, at least one; in the order in which they are to be read.
    """

    rules: tuple[str, ...] = ()  # the rule that each problem breaks, where they were found by a check

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: list[Problem] = list(problems)
        assert self.problems, "a NetlistError without a problem"
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[NetlistError], tuple[list[Problem]]]:
        # Exception pickles its arguments, which here would be the text: worker processes send errors back.
        return type(self), (self.problems,)


class BuildError(MgdError):
    """A valid circuit could not be turned into a running program.

    Likely causes: no C++ compiler, or one without OpenMP; a full disk or an unwritable cache folder; an equation that
    sympy cannot take apart, or a function that has no C++ form; a construct that a target does not support yet.
    """


class RunError(MgdError):
    """A circuit that was built could not be run, or not further.

    Likely causes: an input whose shape is not the circuit's, a parameter name that does not exist, a checkpoint of
    another circuit, a cost that became infinite or not a number (learning rate or perturbation too large), an exact
    gradient asked of a circuit that has none (spiking).
    """


class DatasetError(MgdError):
    """Data to learn from could not be found, read or trusted.

    Likely causes: no network and no copy on this machine, a damaged or truncated file, a CSV with a missing or
    non-numeric entry, an unknown data set name or class, more validation samples than there are samples.
    """


class RecordError(MgdError):
    """A run could not be written to disk, or a file is not a run.

    Likely causes: a full disk or a missing folder, an output file that exists or that another process is writing, a
    variable in `record` that the circuit does not have, a file that was not written by mgdcircuits.
    """
