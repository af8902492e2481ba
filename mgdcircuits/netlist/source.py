"""YAML text to a tree in which every key and every value knows the file and the line it was written in.

Scalars stay text: whether ``49`` is a number or ``2*d`` an expression is decided by the reader of the value, so that
none of YAML's own conversions (dates, booleans, sexagesimal numbers) can change what was written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import LiteralScalarString

from mgdcircuits.netlist.checks.registry import Report, reading_rule
from mgdcircuits.netlist.spec import Position

SYNTAX = reading_rule("yaml-syntax", "the text must be YAML 1.2")
DUPLICATE = reading_rule("duplicate-key", "a key stands once in a map")
TRAP = reading_rule("yaml-trap", "a line must not mean something else in YAML than it seems to")
MISSING_FILE = reading_rule("missing-file", "the file and the files it includes must exist and be readable")
INCLUDE_CYCLE = reading_rule("include-cycle", "a file must not include itself")

TEXT_NAME = "<text>"


class Text(str):
    """A scalar as it was written. `at` is the line of its first character (of a block `|`: of its first line)."""

    at: Position
    quoted: bool

    def __new__(cls, value: str, at: Position, quoted: bool = False) -> Text:
        self = super().__new__(cls, value)
        self.at = at
        self.quoted = quoted
        return self

    def same_place(self, value: str) -> Text:
        """Another text at this position."""
        return Text(value, self.at, self.quoted)

    def __reduce__(self) -> tuple[Any, ...]:
        return Text, (str(self), self.at, self.quoted)


class Map(dict[Text, Any]):
    """A map whose keys are `Text`; `at` is where it begins."""

    at: Position

    def __init__(self, items: Any, at: Position) -> None:
        super().__init__(items)
        self.at = at

    if TYPE_CHECKING:  # a text is found by any string that equals it

        def get(self, key: str, default: Any = None, /) -> Any: ...


class List(list[Any]):
    """A list; `at` is where it begins."""

    at: Position

    def __init__(self, items: Any, at: Position) -> None:
        super().__init__(items)
        self.at = at


@overload
def position(value: Any, default: Position) -> Position: ...


@overload
def position(value: Any, default: Position | None = None) -> Position | None: ...


def position(value: Any, default: Position | None = None) -> Position | None:
    """Where a value of the tree was written."""
    return getattr(value, "at", default)


def read(path_or_text: str | Path, report: Report) -> tuple[Map, str, str]:
    """Read a netlist and what it includes.

    Returns
    -------
    tree, text, file
        The merged tree; the text (of a netlist with includes: the merged text); the name of the file.
    """
    if _is_text(path_or_text):
        text, file = str(path_or_text), TEXT_NAME
    else:
        file = str(path_or_text)
        text = _read_file(Path(file), Position(file, 1), report) or ""
        report.stop_if_any()
    tree = parse(text, file, report)
    report.stop_if_any()
    if "include" not in tree:
        return tree, text, file
    merged = _with_includes(tree, (Path(file).resolve(),) if file != TEXT_NAME else (), report)
    report.stop_if_any()
    return merged, dump(merged), file


def _is_text(path_or_text: str | Path) -> bool:
    if isinstance(path_or_text, Path):
        return False
    if "\n" in path_or_text:
        return True
    return not path_or_text.endswith((".yaml", ".yml")) and ": " in path_or_text


def _read_file(path: Path, asked_at: Position, report: Report) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        similar = sorted(str(other) for other in path.parent.glob("*.yaml"))[:8] if path.parent.is_dir() else []
        mend = f"the folder has {', '.join(similar)}" if similar else "check the path"
        report.add(MISSING_FILE, asked_at, f"there is no file {path}", "a netlist", mend)
    except (OSError, ValueError) as error:
        report.add(MISSING_FILE, asked_at, f"{path} cannot be read ({error})", "a text file in UTF-8")
    return None


def parse(text: str, file: str, report: Report) -> Map:
    """One file to a tree; problems go to the report, and an empty map stands for what could not be read."""
    empty = Map({}, Position(file, 1))
    yaml = YAML(typ="rt", pure=True)
    try:
        node = yaml.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        _report_syntax(error, text, file, report)
        return empty
    except RecursionError:
        report.add(SYNTAX, Position(file, 1), "maps or lists are nested too deeply", "at most a dozen levels")
        return empty
    except (YAMLError, ValueError, IndexError, KeyError, AttributeError, TypeError, AssertionError) as error:
        # ruamel.yaml itself stumbles over some malformed texts (`KeyError` for an unknown escape, and the like).
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        report.add(SYNTAX, Position(file, 1), f"not YAML ({first[0]})", "plain UTF-8 text without control characters")
        return empty
    if node is None:
        report.add(SYNTAX, Position(file, 1), "the netlist is empty", "a map with the key `circuit`")
        return empty
    try:
        tree = _Builder(text, file, report).tree(node)
    except RecursionError:
        report.add(SYNTAX, Position(file, 1), "maps or lists are nested too deeply", "at most a dozen levels")
        return empty
    if not isinstance(tree, Map):
        at = Position(file, node.start_mark.line + 1)
        report.add(SYNTAX, at, "the netlist is not a map", "keys such as `circuit:`, `kinds:`, `chain:`")
        return empty
    return tree


class _Builder:
    """Turns ruamel's nodes into `Map`, `List` and `Text`, and reports what YAML read otherwise than it seems."""

    def __init__(self, text: str, file: str, report: Report) -> None:
        self.lines = text.splitlines()
        self.file = file
        self.report = report
        self.visited: set[int] = set()

    def tree(self, node: Node) -> Map | List | Text:
        at = self._at(node)
        if id(node) in self.visited or getattr(node, "anchor", None):
            self.report.add(
                TRAP,
                at,
                "a YAML anchor or alias (`&`, `*` before a name)",
                "no YAML references in a netlist",
                "reuse with `use`, `like` or `include`; put an expression that begins with * or & in quotes",
            )
            return Text("", at)
        self.visited.add(id(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, at)
        if isinstance(node, SequenceNode):
            for item in node.value if node.flow_style else ():
                if isinstance(item, ScalarNode) and item.style is None and _open_brackets(item.value):
                    self.report.add(
                        TRAP,
                        self._at(item),
                        f"inside brackets YAML ends a value at a comma, and so cut one after `{item.value}`",
                        "quotes around an expression with commas",
                        'write `["f(a, b)", c]`',
                    )
            return List([self.tree(item) for item in node.value], at)
        assert isinstance(node, MappingNode)
        return self._map(node, at)

    def _at(self, node: Node) -> Position:
        line = node.start_mark.line + 1
        if isinstance(node, ScalarNode) and node.style in ("|", ">"):
            line += 1
        return Position(self.file, line)

    def _scalar(self, node: ScalarNode, at: Position) -> Text:
        tag = str(node.tag or "")
        if tag.startswith("!") and not tag.startswith("!!") and tag != "!":
            self.report.add(TRAP, at, f"YAML read `{tag}` as a tag", "a value", "put the value in quotes")
        value = node.value
        return Text(value, at, quoted=node.style is not None)

    def _map(self, node: MappingNode, at: Position) -> Map:
        self._split_at_commas(node)
        result = Map({}, at)
        for key_node, value_node in node.value:
            key_at = self._at(key_node)
            if not isinstance(key_node, ScalarNode):
                self.report.add(TRAP, key_at, "a key that is a list or a map", "a name as key", "write `name: value`")
                continue
            key = self._scalar(key_node, key_at)
            if key in result:
                first = next(k for k in result if k == key)
                self.report.add(
                    DUPLICATE,
                    key_at,
                    f"the key `{key}` stands twice in one map",
                    "each key once",
                    f"the first is on line {first.at.line}; merge the two or rename one",
                )
                continue
            missing_space = node.flow_style and value_node.value in ("", None) and not key.quoted and ":" in key
            if missing_space and isinstance(value_node, ScalarNode) and value_node.style is None:
                name, _, rest = key.partition(":")
                self.report.add(
                    TRAP, key_at, f"YAML read `{key}` as one key", "a space after the colon", f"write `{name}: {rest}`"
                )
                continue
            value = self.tree(value_node)
            if isinstance(value, Text) and not value and not value.quoted:
                value = Text("", key_at)  # YAML sees an empty value where the next key begins
            result[key] = value
        return result

    def _split_at_commas(self, node: MappingNode) -> None:
        """Find `{C: f(a, b)}`: inside braces YAML ends an unquoted value at a comma."""
        if not node.flow_style:
            return
        merged: list[tuple[Node, Node]] = []
        pairs = list(node.value)
        while pairs:
            key, value = pairs.pop(0)
            merged.append((key, value))
            if not (isinstance(value, ScalarNode) and value.style is None and _open_brackets(value.value)):
                continue
            pieces = [value.value]
            while pairs and _open_brackets(", ".join(pieces)) and isinstance(pairs[0][0], ScalarNode):
                pieces.append(str(pairs.pop(0)[0].value))
            whole = ", ".join(pieces)
            self.report.add(
                TRAP,
                self._at(value),
                f"inside braces YAML ends a value at a comma, and so cut `{whole}` after `{value.value}`",
                "quotes around an expression with commas",
                f'write `{key.value}: "{whole}"`' if isinstance(key, ScalarNode) else "",
            )
            value.value = whole
        node.value = merged


def _open_brackets(text: str) -> bool:
    return text.count("(") > text.count(")") or text.count("[") > text.count("]")


_SYNTAX_HINTS: tuple[tuple[str, str, str, str], ...] = (
    # part of ruamel's message, found, expected, mend
    ("'\\t'", "a tab where YAML wants spaces", "spaces", "replace the tab by spaces"),
    (
        "mapping values are not allowed",
        "a second `: ` on one line, or a line that is indented too far",
        "one `key: value` a line",
        'put a value that contains a colon in quotes, for instance `equations: "V : volt"`; or a `key:value` on the '
        "line before lacks its space",
    ),
    (
        "sequence entries are not allowed",
        "`- ` at the start of a value, which YAML reads as a list",
        "a value",
        "write the minus sign without a space after it, or put the value in quotes",
    ),
    ("undefined alias", "`*` at the start of a value, which YAML reads as a reference", "a value", "put it in quotes"),
    ("another document", "a second document (`---`)", "one circuit a file", "remove the line `---`"),
    ("while scanning a quoted scalar", "a quote that is not closed", "a closing quote", "close the quote"),
    ("unexpected end of stream", "a quote that is not closed", "a closing quote", "close the quote"),
    (
        "expected ',' or '}'",
        "a map in braces that YAML cannot read",
        "`{key: value, key: value}`",
        "close the brace, or put a value that contains `: ` in quotes",
    ),
    (
        "expected ',' or ']'",
        "a list in brackets that YAML cannot read",
        "`[a, b]`",
        "close the bracket, or put in quotes a value that contains brackets",
    ),
    (
        "expected <block end>",
        "a line that does not continue what stands above it",
        "a key at the same indentation",
        "check the indentation; a value that starts with a quote or a bracket must be quoted as a whole",
    ),
    ("could not find expected ':'", "a line without `: `", "`key: value`", "put a space after the colon"),
    (
        "cannot start any token",
        "a value that starts with a character which YAML reserves",
        "a value",
        "put the value in quotes",
    ),
    ("chomping or indentation", "text behind `|` or `>`", "the block on the lines below", "begin it on the next line"),
)


def _report_syntax(error: MarkedYAMLError, text: str, file: str, report: Report) -> None:
    message = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    line = (mark.line if mark else 0) + 1
    lines = text.splitlines() or [""]
    for number, content in enumerate(lines, start=1):
        # A tab in the indentation is met by ruamel as several different errors.
        if re.match(r" *\t", content) and content.strip() and number <= line + 1:
            report.add(SYNTAX, Position(file, number), *_SYNTAX_HINTS[0][1:])
            return
    opened = error.context_mark.line if error.context_mark is not None else line - 1
    for number in sorted({opened, line - 1}):
        if number < len(lines) and re.sub(r"\\.", "", lines[number]).split(" #")[0].count('"') % 2:
            report.add(
                SYNTAX, Position(file, number + 1), "a quote that is not closed", "a closing quote", "close the quote"
            )
            return
    for part, found, expected, mend in _SYNTAX_HINTS:
        if part in message:
            unclosed = "not closed" in found or "in braces" in found or "in brackets" in found
            if unclosed and error.context_mark is not None:
                line = error.context_mark.line + 1
            if "second `: `" in found and line > 1 and re.match(r"\s*[\w.]+:[^\s]", lines[min(line, len(lines)) - 2]):
                line -= 1
            report.add(SYNTAX, Position(file, min(line, len(lines))), found, expected, mend)
            return
    found = "YAML cannot read this" + (f" ({error.problem})" if error.problem else "")
    report.add(SYNTAX, Position(file, min(line, len(lines))), found, "YAML 1.2", "check quotes, colons and indentation")


def _with_includes(tree: Map, above: tuple[Path, ...], report: Report) -> Map:
    """The tree merged over what it includes, in the order in which the files are named."""
    included = tree.get("include")
    rest = Map({key: value for key, value in tree.items() if key != "include"}, tree.at)
    if included is None:
        return rest
    result = Map({}, tree.at)
    for name in included if isinstance(included, List) else [included]:
        if not isinstance(name, Text):
            report.add(MISSING_FILE, position(name, tree.at), "an `include` that is not a file name", "a path")
            continue
        path = (Path(name.at.file).parent if name.at.file != TEXT_NAME else Path()) / name
        if path.resolve() in above:
            chain = " -> ".join(p.name for p in (*above, path))
            report.add(INCLUDE_CYCLE, name.at, f"files include each other: {chain}", "no cycle", "remove one `include`")
            continue
        text = _read_file(path, name.at, report)
        if text is None:
            continue
        other = _with_includes(parse(text, str(path), report), (*above, path.resolve()), report)
        result = merge(result, other)
    return merge(result, rest)


KEEP_NONE = ("accuracy", "parallel", "data")
"""Keys of which `none` is a value of its own; so it is for every name under `replace`."""


def merge(base: Map, over: Map, inside: str = "") -> Map:
    """`over` on top of `base`: maps are merged by key, anything else is replaced, and `none` takes a key out."""
    result = Map(base, over.at)
    for key, value in over.items():
        old = base.get(key)
        removes = isinstance(value, Text) and value.strip() == "none" and key not in KEEP_NONE and inside != "replace"
        if old is not None and removes:
            result.pop(key)
            continue
        if isinstance(old, Map) and isinstance(value, Map):
            value = merge(old, value, str(key))
        result.pop(key, None) if key not in base else None
        result[key] = value
    return result


def dump(tree: Map) -> str:
    """The tree as YAML text; reading it gives the same tree, but for positions."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        text = str(value)
        return LiteralScalarString(text) if "\n" in text else text

    yaml = YAML(typ="rt", pure=True)
    yaml.width = 100_000
    stream = io.StringIO()
    yaml.dump(plain(tree), stream)
    return stream.getvalue()


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Text]]:
    """Every scalar with the keys that lead to it."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, str(key)))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, (*path, str(index)))
    elif isinstance(tree, Text):
        yield path, tree
