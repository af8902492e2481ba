"""The raw document: which keys a netlist may have, and whether each holds a text, a list or a map.

Nothing is interpreted here. Every scalar remains a `Text` with its position; what an unknown key could have been is
said with the keys that are allowed there.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.expressions import nearest
from mgdcircuits.netlist.source import List, Map, Text, position
from mgdcircuits.netlist.spec import Position

UNKNOWN_KEY = reading_rule("unknown-key", "every key must be one that the language has")
WRONG_FORM = reading_rule("wrong-form", "a key that wants a text, a list or a map must get one")
MISSING_KEY = reading_rule("missing-key", "a netlist must have the key `circuit`")


def _wrong(found: str, expected: str, mend: str = "") -> PydanticCustomError:
    return PydanticCustomError("wrong_form", "{found}", {"found": found, "expected": expected, "mend": mend})


def _name_of(value: Any) -> str:
    if isinstance(value, Map):
        return "a map"
    if isinstance(value, List):
        return "a list"
    return f"`{value}`" if value != "" else "nothing"


def _text(value: Any) -> Text:
    if isinstance(value, Text) and (value.strip() or value.quoted):
        return value
    raise _wrong(f"{_name_of(value)} as a value", "a name, a number or an expression", "write it behind the colon")


def _texts(value: Any) -> list[Text]:
    if isinstance(value, List):
        return List([_text(item) for item in value], value.at)
    return List([_text(value)], value.at) if isinstance(value, Text) else _raise(value, "a name or a list of names")


def _text_map(value: Any) -> Map:
    if not isinstance(value, Map):
        _raise(value, "a map `{name: expression}`")
    for key, item in value.items():
        if not isinstance(item, Text) or not (item.strip() or item.quoted):
            raise _wrong(f"{_name_of(item)} as the value of `{key}`", "an expression", f"write `{key}: ...`")
    return value


def _text_or_map(value: Any) -> Text | Map:
    return _text_map(value) if isinstance(value, Map) else _text(value)


def _nested_texts(value: Any) -> Any:
    """`all`, `layer` or a list of names or lists of names."""
    if isinstance(value, List):
        return List([_texts(item) for item in value], value.at)
    return _text(value)


def _options(value: Any) -> Map:
    return value if isinstance(value, Map) else _raise(value, "a map `{name: value}`")


def _raise(value: Any, expected: str) -> Any:
    raise _wrong(_name_of(value), expected)


Expression = Annotated[Any, PlainValidator(_text)]
Names = Annotated[Any, PlainValidator(_texts)]
Expressions = Annotated[Any, PlainValidator(_text_map)]
ExpressionOrMap = Annotated[Any, PlainValidator(_text_or_map)]
Groups = Annotated[Any, PlainValidator(_nested_texts)]
Options = Annotated[Any, PlainValidator(_options)]


class Doc(BaseModel):
    """A map with a closed set of keys. `at` is its position, `keys_at` that of each key."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, populate_by_name=False)
    at: Any = Field(default=None, exclude=True, alias="\0at")
    keys_at: Any = Field(default=None, exclude=True, alias="\0keys_at")

    @model_validator(mode="before")
    @classmethod
    def _remember_position(cls, value: Any) -> Any:
        if isinstance(value, Map):
            keys = {str(key): position(key, value.at) for key in value}
            return {**value, "\0at": value.at, "\0keys_at": keys}
        if isinstance(value, dict):
            return value
        raise _wrong(_name_of(value), f"a map with keys such as {', '.join(known_keys(cls)[:4])}")

    def place(self, key: str) -> Position:
        """Where a key stands (or, if it is absent, the map)."""
        return (self.keys_at or {}).get(key, self.at)

    @property
    def extras(self) -> Map:
        """The entries whose keys are names that the netlist chooses."""
        extras = (self.__pydantic_extra__ or {}).items()
        return Map({Text(str(k), self.place(str(k))): v for k, v in extras if not str(k).startswith("\0")}, self.at)


class ConvDoc(Doc):
    kernel: Names
    stride: Names | None = None
    padding: Names | None = None
    dilation: Names | None = None
    groups: Expression | None = None


class PoolDoc(Doc):
    kernel: Names
    stride: Names | None = None
    padding: Names | None = None


class SparseDoc(Doc):
    probability: Expression | None = None
    in_degree: Expression | None = None
    edges: Expression | None = None
    self: Expression | None = None


def _sparse(value: Any) -> Any:
    if isinstance(value, Map):
        return SparseDoc.model_validate(value)
    return _text(value)


def _conv(value: Any) -> ConvDoc:
    if isinstance(value, Text):
        value = Map({Text("kernel", value.at): value}, value.at)
    return ConvDoc.model_validate(value)


def _pool(value: Any) -> PoolDoc:
    if isinstance(value, Text):
        value = Map({Text("kernel", value.at): value}, value.at)
    return PoolDoc.model_validate(value)


class ObjectDoc(Doc):
    """What a kind, a population and a coupling have in common."""

    equations: Expression | None = None
    replace: Expressions | None = None
    threshold: Expression | None = None
    reset: Expression | None = None
    refractory: Expression | None = None
    method: Expression | None = None
    initial: Expressions | None = None
    scale: Expressions | None = None
    on_write: Expression | None = None
    on_pre: Expression | None = None
    on_post: Expression | None = None
    delay: ExpressionOrMap | None = None
    reduce: Expression | None = None
    dense: Expression | None = None
    conv2d: Annotated[Any, PlainValidator(_conv)] | None = None
    pool: Annotated[Any, PlainValidator(_pool)] | None = None
    one_to_one: Expression | None = None
    sparse: Annotated[Any, PlainValidator(_sparse)] | None = None


class KindDoc(ObjectDoc):
    """An entry of `kinds`. `arguments` (name: default) make it one that is called: `max_pool(2)`."""

    use: Expression | None = None
    arguments: Options | None = None


class PopulationDoc(ObjectDoc):
    """A population, with how it is reached where it stands in a chain."""

    kind: Expression | None = None
    like: Expression | None = None
    shape: Names | None = None
    channels: Expression | None = None
    via: Expression | None = None
    from_: Expression | None = Field(default=None, alias="from")


class SynapsesDoc(ObjectDoc):
    """An entry of `synapses`."""

    kind: Expression | None = None
    like: Expression | None = None
    name: Expression | None = None


class TaskDoc(Doc):
    """`task`; every other key is `VARIABLE_POPULATION: expression of x`."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    data: Expression | None = None
    options: Options | None = None
    batch: Expression | None = None
    validation: Expression | None = None
    sampling: Expression | None = None
    target: Expression | None = None
    accuracy: Expression | None = None
    columns: Names | None = None


class CostDoc(Doc):
    """`cost: {NAME: expression, over: [start, end]}`."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    over: Names | None = None


class PhaseDoc(Doc):
    """A phase of a trial."""

    for_: Expression | None = Field(default=None, alias="for")
    after: Expression | None = None
    set: Expressions | None = None
    measure: Expressions | None = None


class TrialDoc(Doc):
    """`trial`; every key but `reset` is a phase."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    __pydantic_extra__: dict[str, PhaseDoc]
    reset: Names | None = None


class PerturbDoc(Doc):
    """`perturb`; every other key is a perturbation variable and its value the code that drives it."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    __pydantic_extra__: dict[str, Expression]
    every: Expression | None = None
    of: Names | None = None
    blocks: Groups | None = None


class UpdateDoc(Doc):
    request: Expression | None = None
    equations: Expression | None = None
    use: Expression | None = None
    every: Expression | None = None
    at_: Expression | None = Field(default=None, alias="at")
    clear: Expression | None = None


class LearningDoc(Doc):
    plastic: Names | None = None
    perturb: PerturbDoc | None = None
    passes: Expressions | None = None
    signals: Expressions | None = None
    estimate: ExpressionOrMap | None = None
    baseline: Expressions | None = None
    accumulate: Expression | None = None
    update: UpdateDoc | None = None


class InferenceDoc(Doc):
    time: Expression | None = None
    energy: Expression | None = None
    copies: Expression | None = None


class PerturbationDoc(Doc):
    through: Expression | None = None
    time: Expression | None = None
    energy: Expression | None = None


class WriteDoc(Doc):
    time: Expression | None = None
    energy: Expression | None = None
    parallel: Expression | None = None


class DeviceDoc(Doc):
    endurance: ExpressionOrMap | None = None
    retention: Expression | None = None


class MeasurementDoc(Doc):
    noise: Expression | None = None


class HardwareDoc(Doc):
    inference: InferenceDoc | None = None
    perturbation: PerturbationDoc | None = None
    write: WriteDoc | None = None
    device: DeviceDoc | None = None
    measurement: MeasurementDoc | None = None


class RecordDoc(Doc):
    variable: Expression
    every: Expression | None = None
    passes: Names | None = None
    units: Expression | None = None


def _record(value: Any) -> RecordDoc:
    if isinstance(value, Text):
        value = Map({Text("variable", value.at): value}, value.at)
    return RecordDoc.model_validate(value)


class ForDoc(Doc):
    """`for: {m: [1, 2, 4]}` with the `chain` that it repeats."""

    for_: dict[str, Names] = Field(alias="for")
    chain: list[Any]


def _chain(value: Any) -> list[Any]:
    """A list of one-key maps `{name: population}` and of `for` blocks."""
    if not isinstance(value, List):
        _raise(value, "a list of populations, each `- name: {...}`")
    entries: list[Any] = []
    for item in value:
        if isinstance(item, Map) and "for" in item:
            entries.append(item)
        elif isinstance(item, Map) and len(item) == 1:
            entries.append(item)
        else:
            raise PydanticCustomError(
                "wrong_form",
                "{found}",
                {
                    "found": f"{_name_of(item)} as an entry of a chain",
                    "expected": "`- name: {shape: ..., kind: ..., via: ...}`",
                    "mend": "indent the keys of a population below its name",
                    "at": position(item, value.at),
                },
            )
    return entries


class Document(Doc):
    """The whole netlist."""

    circuit: Expression
    parameters: Expressions = Field(default_factory=dict)
    clocks: Expressions = Field(default_factory=dict)
    kinds: dict[Any, KindDoc] = Field(default_factory=dict)
    chain: Annotated[Any, PlainValidator(_chain)] = Field(default_factory=list)
    populations: dict[Any, PopulationDoc] = Field(default_factory=dict)
    synapses: dict[Any, SynapsesDoc] = Field(default_factory=dict)
    task: TaskDoc | None = None
    cost: CostDoc | None = None
    measure: Expressions = Field(default_factory=dict)
    trial: TrialDoc | None = None
    learning: dict[Any, LearningDoc] = Field(default_factory=dict)
    hardware: HardwareDoc | None = None
    record: list[Annotated[Any, PlainValidator(_record)]] = Field(default_factory=list)


def known_keys(model: type[Doc]) -> list[str]:
    """The keys of a map, in the order of the reference."""
    return [f.alias or n for n, f in model.model_fields.items() if not (f.alias or n).startswith("\0")]


D = TypeVar("D", bound=Doc)


def read_document(tree: Map, report: Report) -> Document | None:
    """Validate the tree; what is wrong goes to the report, is mended or left out, and the rest is read."""
    return validate(Document, tree, report)


def validate(model: type[D], tree: Map, report: Report) -> D | None:
    """Read a map as `model`. A misspelt key is read as the nearest known one, so that one slip is one problem."""
    for _ in range(100):
        try:
            return model.model_validate(tree)
        except ValidationError as error:
            before = len(report)
            for item in error.errors():
                if not _handle(model, tree, item, report):
                    return None
            if len(report) == before:
                return None
    return None


def _handle(model: type[Doc], tree: Map, item: Any, report: Report) -> bool:
    """Report one of pydantic's errors and take its cause out of the tree; False if that is not possible."""
    path = [part for part in item["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    holder, key, value, owner = _locate(model, tree, path)
    at = position(value) or position(key) or position(holder) or tree.at
    context = item.get("ctx", {})
    if item["type"] == "extra_forbidden":
        allowed = known_keys(owner)
        close = nearest(str(key), [name for name in allowed if name not in (holder or ())])
        mend = f"did you mean `{close}`?" if close else ""
        report.add(UNKNOWN_KEY, position(key, at), f"unknown key `{key}`", f"one of {', '.join(allowed)}", mend)
        if not isinstance(holder, Map) or key not in holder:
            return False
        if close and close not in holder:
            holder[Text(close, position(key, at))] = holder[key]
        del holder[key]
        return True
    if item["type"] == "missing":
        report.add(MISSING_KEY, position(holder, tree.at), f"the key `{path[-1]}` is missing", f"`{path[-1]}: ...`")
        if isinstance(holder, Map):
            holder[Text(str(path[-1]), holder.at)] = Text("1", holder.at)
        return isinstance(holder, Map)
    if item["type"] == "wrong_form":
        where = f" in `{key}`" if isinstance(key, Text) else ""
        report.add(WRONG_FORM, context.get("at", at), context["found"] + where, context["expected"], context["mend"])
    else:
        expected = {"list_type": "a list", "dict_type": "a map", "model_type": "a map"}.get(item["type"], item["msg"])
        report.add(WRONG_FORM, at, f"{_name_of(value)} as the value of `{key}`", expected)
    if (isinstance(holder, Map) and key in holder) or (isinstance(holder, List) and isinstance(key, int)):
        del holder[key]
        return True
    return False


def _locate(model: type[Doc], tree: Map, path: list[Any]) -> tuple[Any, Any, Any, type[Doc]]:
    """Follow pydantic's path: the map that holds the culprit, its key, its value and the model of the map."""
    holder: Any = tree
    key: Any = None
    value: Any = tree
    owner: type[Doc] = model
    for part in path:
        if isinstance(value, Map) and isinstance(part, str):
            found = next((k for k in value if k == part), None)
            if found is None:
                return value, part, None, _model_of(owner, part) or owner
            holder, key, value = value, found, value[found]
            inner = _model_of(owner, part)
            if inner is not None and isinstance(value, Map | List) and part is not path[-1]:
                owner = inner
        elif isinstance(value, List) and isinstance(part, int) and part < len(value):
            holder, key, value = value, part, value[part]
    return holder, key, value, owner


_NAMED_MAPS: dict[str, type[Doc]] = {
    "kinds": KindDoc, "populations": PopulationDoc, "synapses": SynapsesDoc, "learning": LearningDoc,
}  # fmt: skip
_INNER: dict[str, type[Doc]] = {
    "task": TaskDoc, "cost": CostDoc, "trial": TrialDoc, "perturb": PerturbDoc, "update": UpdateDoc,
    "hardware": HardwareDoc, "inference": InferenceDoc, "perturbation": PerturbationDoc, "write": WriteDoc,
    "device": DeviceDoc, "measurement": MeasurementDoc,
    "conv2d": ConvDoc, "pool": PoolDoc, "sparse": SparseDoc, "record": RecordDoc, "for": ForDoc,
}  # fmt: skip


def _model_of(owner: type[Doc], part: str) -> type[Doc] | None:
    """The model of the map behind a key. (Names that the netlist chooses lie one level below `_NAMED_MAPS`.)"""
    if owner is Document:
        return _NAMED_MAPS.get(part) or _INNER.get(part)
    if owner is TrialDoc:
        return PhaseDoc
    return _INNER.get(part)
