"""Recipes and command lines: YAML files of options, which the command line overrides; and how a command fails."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from ..reports.escaping import printable
from ..training.hardware import bf16_helps
from ..training.run import UNUSED_OPTIONS

RECIPES = Path(__file__).parent / "recipes"
"""The packaged ones."""
_PASS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text, in quotes where YAML would read it as something else",
    dict: "a mapping",
    list: "a list",
    type(None): "null",
}
"""Type of an option → what a recipe may give."""
LARGEST, DEEPEST = 1_000_000, 20
"""Bytes and levels of a recipe."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults of the options, and descriptions with their line breaks."""


def command_parser(command: str, dataclasses: Sequence[type], description: str | None) -> HfArgumentParser:
    """The parser of a command that takes a recipe; its errors are a line, not the list of all options.

    Options of the Trainer that would have no effect are refused.

    Args:
        command: its name, as in `kept-hf NAME`.
        dataclasses: of its options.
        description: for `--help`.
    """
    parser = plain_parser(command, dataclasses, description, "%(prog)s [RECIPE] [--option value ...]")
    for action in parser._actions:
        if action.dest in UNUSED_OPTIONS:
            # `type` also sees a value that is left out: --do_train.
            action.type, action.const = partial(_refuse_unused, action.dest, action.default), ""
            action.choices, action.help = None, argparse.SUPPRESS
    return parser


def plain_parser(
    command: str, dataclasses: type | Sequence[type], description: str | None, usage: str
) -> HfArgumentParser:
    """The parser of a command without a recipe; see [`command_parser`]."""
    return HfArgumentParser(
        dataclasses, prog=f"kept-hf {command}", usage=usage, description=description, formatter_class=HelpFormatter
    )


def _refuse_unused(name: str, default: object, value: str) -> object:
    if value is default:  # argparse hands over a default that is text
        return default
    raise argparse.ArgumentTypeError(f"it has no effect here; {UNUSED_OPTIONS[name]}")


@contextmanager
def argument_errors(command: str) -> Iterator[None]:
    """Let a command end with a line and the exit status 2 where its arguments, or files that they name, do not fit.

    Only what checks arguments and reads inputs belongs into it: an error in training is to be seen with its traceback.

    Args:
        command: its name, as in `kept-hf NAME`.

    Examples:
        >>> with argument_errors("train"):  # doctest: +SKIP
        ...     corpus = load_corpus("mimic3", "no/such/folder")
    """
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"kept-hf {command}: error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(2) from error


def recipe_path(parser: argparse.ArgumentParser, recipe: str) -> Path:
    """The file of a recipe: the name of a packaged one, or a path.

    Raises:
        SystemExit: there is none; the message lists the packaged ones.
    """
    packaged = {path.stem: path for path in RECIPES.glob("[!.]*.yaml")}
    path = packaged.get(recipe, Path(recipe))
    if not path.is_file():
        parser.error(f"the recipe {recipe} is no file and none of the packaged ones: {', '.join(sorted(packaged))}")
    return path


def split_recipe(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe that a command line begins with, if it does, and the options.

    Examples:
        >>> split_recipe(["codiesp", "--seed", "1"]), split_recipe(["--seed", "1"])
        (('codiesp', ['--seed', '1']), (None, ['--seed', '1']))
    """
    if argv and not argv[0].startswith("-"):
        return argv[0], list(argv[1:])
    return None, list(argv)


def given_option(argv: Sequence[str], *names: str) -> str | None:
    """The value of the first of some options that a command line has, in any spelling that argparse takes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?", const="")
    given = vars(parser.parse_known_args(list(argv))[0])
    return next((given[name] for name in names if name in given), None)


def parse_recipe(parser: HfArgumentParser, argv: Sequence[str], default: str | Path | None) -> tuple:
    """Recipe and command line as the parser's dataclasses; the command line wins. bf16 is added where it helps.

    Args:
        parser: of dataclasses, one of them `TrainingArguments`.
        argv: the command line, which may begin with a recipe: the name of a packaged one, or a file.
        default: the recipe without that; None for none.

    Raises:
        SystemExit: an option, or an entry of the recipe, that there is not, or whose value does not fit.
    """
    recipe, options = split_recipe(argv)
    recipe = recipe or default
    values = {}
    if recipe is not None:
        path = recipe_path(parser, str(recipe))
        values = read_recipe(parser, path)
        parser.set_defaults(**values)
    is_chosen = {"bf16", "fp16"} & values.keys() or given_option(options, "bf16", "fp16") is not None
    if not is_chosen and bf16_helps():
        parser.set_defaults(bf16=True)
    try:
        *parsed, unknown = parser.parse_args_into_dataclasses(
            options, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, OSError, ImportError) as error:  # options that do not go together
        where = "" if recipe is None else f"with the recipe {path}: "
        parser.error(where + " ".join(str(error).split()))
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    for name, value in ((name, value) for part in parsed for name, value in vars(part).items()):
        if isinstance(value, float) and not math.isfinite(value):
            parser.error(f"{name}={value} is no finite number")
        if name.startswith("per_device_") and isinstance(value, int) and value < 1:
            parser.error(f"{name}={value} is less than 1")
    return tuple(parsed)


def read_recipe(parser: HfArgumentParser, path: Path) -> dict[str, object]:
    """The entries of a recipe, as defaults for the parser. null stands for None.

    Raises:
        SystemExit: a file that is no YAML in UTF-8, or no mapping; that has an option twice, an alias of a list or of a
            mapping, more than `LARGEST` bytes or `DEEPEST` levels; an option that the dataclasses do not have, or a
            value that does not fit. One line that names the file.
    """
    try:
        content = _mapping_of(path)
    except _RecipeError as error:
        parser.error(f"the recipe {path} {' '.join(str(error).split())}")
    types_of = {name: hint for fields in parser.dataclass_types for name, hint in get_type_hints(fields).items()}
    actions: dict[str, argparse.Action] = {}
    for action in parser._actions:
        if action.dest in types_of:  # --help is no entry
            actions.setdefault(action.dest, action)  # a second one is --no_NAME
    values = {}
    for name, value in content.items():
        if name not in actions:
            near = difflib.get_close_matches(str(name), actions, n=1)
            hint = (f"; did you mean {near[0]}?" if near else "") + " (is it a recipe of another command?)"
            parser.error(f"the recipe {path} has {name}, which is no option here{hint}")
        if name in UNUSED_OPTIONS:
            parser.error(f"the recipe {path} has {name}, which has no effect here; {UNUSED_OPTIONS[name]}")
        kinds = _kinds(types_of[name])
        if actions[name].default is None:
            kinds.add(type(None))
        if not _fits(value, kinds, types_of[name]):
            shown = json.dumps(value, default=str, skipkeys=True, ensure_ascii=False)
            legal = " or ".join(text for kind, text in _PASS.items() if kind in kinds)
            parser.error(f"the recipe {path} has {name}: {shown}; pass {legal}, or omit it for the default")
        try:
            values[name] = _value(parser, actions[name], value)
        except argparse.ArgumentError as error:
            parser.error(f"the recipe {path}: {error}")
    return values


class _RecipeError(ValueError):
    """What is wrong with a recipe, as a sentence that begins with its path goes on."""


def _mapping_of(path: Path) -> dict:
    """What a recipe holds; nothing where it is empty."""
    try:
        if path.stat().st_size > LARGEST:
            raise _RecipeError(f"has more than {LARGEST:,} bytes; write option: value, a line each")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise _RecipeError(f"is no text in UTF-8 ({reason}); save it as UTF-8") from error
    except OSError as error:
        raise _RecipeError(f"cannot be read: {error.strerror}") from error
    try:
        _check_events(text)
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:  # comments alone
            return {}
        _refuse_repeated_keys(node)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _RecipeError(f"is no YAML: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, _RecipeError):
            raise
        # 2026-13-45, or !!bool perhaps: yaml raises what its conversions happen to raise.
        why = f" ({error})" if type(error) is ValueError else ""
        raise _RecipeError(f"has a value that is none of its type{why}; put it in quotes") from error
    if not isinstance(content, dict):
        kinds = {list: "a list", str: "a text", type(None): "null"}
        raise _RecipeError(f"is {kinds.get(type(content), 'a single value')}; write option: value")
    return content


def _check_events(text: str) -> None:
    """Refuse what could be much greater in memory, or in a message, than in the file."""
    depth, collections = 0, set()
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            collections.add(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent) and event.anchor in collections:
            line = event.start_mark.line + 1
            raise _RecipeError(f"has an alias of a list or of a mapping in line {line}; write its value there")
        if depth > DEEPEST:
            raise _RecipeError(f"is nested more than {DEEPEST} levels deep in line {event.start_mark.line + 1}")


def _refuse_repeated_keys(node: yaml.Node) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                line = key.start_mark.line + 1
                raise _RecipeError(f"has {key.value} twice, the second time in line {line}; leave one out")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            _refuse_repeated_keys(value)


def _kinds(hint: object) -> set[type]:
    """The types of Python that a type hint allows. An enumeration is given as text."""
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(_kinds, get_args(hint)))
    if get_origin(hint) is Literal:
        return set(map(type, get_args(hint)))
    kind = get_origin(hint) or hint
    return {kind if kind in _PASS else str}


def _fits(value: object, kinds: set[type], hint: object) -> bool:
    """Whether null, a mapping, a list or a boolean, which have no other form on the command line, fit an option."""
    if isinstance(value, list) and get_origin(hint) is list:  # an item is no mapping, and so on
        return all(_fits(item, set().union(*map(_kinds, get_args(hint))), None) for item in value)
    if get_origin(hint) is list:  # a single value is a list of one
        return _fits(value, set().union(kinds - {list}, *map(_kinds, get_args(hint))), None)
    return next((kind in kinds for kind in (type(None), dict, list, bool) if isinstance(value, kind)), True)


def _value(parser: argparse.ArgumentParser, action: argparse.Action, value: object) -> object:
    """A value of YAML as the command line would give it."""
    if value is None or isinstance(value, dict):
        return value
    if action.nargs in ("+", "*"):
        return [_value_of_text(parser, action, item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, (bool, list)):  # what `_fits` allowed
        return value
    return _value_of_text(parser, action, value)


def _value_of_text(parser: argparse.ArgumentParser, action: argparse.Action, value: object) -> object:
    result = parser._get_value(action, str(value))
    parser._check_value(action, result)
    return result
