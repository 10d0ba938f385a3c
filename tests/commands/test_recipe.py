"""Recipes: what they may hold, which there are, and that the command line wins."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field

import pytest
import yaml

from kept_hf.commands.recipe import RECIPES, command_parser, parse_recipe, recipe_path
from kept_hf.training.run import RunArguments

PACKAGED = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


@dataclass
class Options:
    """Of a command that does nothing."""

    name: str = "demo"
    size: int | None = 4
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    share: float = 0.5
    is_used: bool = False
    is_kept: bool = True


def parse(folder, content, *argv):
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    parser = command_parser("nothing", (Options, RunArguments), None)
    return parse_recipe(parser, [str(path), "--use_cpu", "True", *argv], None)


def test_values_keep_their_types(tmp_path):
    content = {"name": 3, "sizes": [3, 14], "share": 1, "is_used": True, "seed": 7}
    options, training = parse(tmp_path, content)
    assert options == Options(name="3", sizes=[3, 14], share=1.0, is_used=True)
    assert isinstance(options.share, float) and training.seed == 7


def test_a_single_value_is_a_list_of_one(tmp_path):
    assert parse(tmp_path, {"sizes": 3})[0].sizes == [3]


def test_lists_where_the_trainer_takes_them(tmp_path):
    content = {"report_to": ["none"], "label_names": ["labels"], "fsdp_config": {"min_num_params": 0}}
    _, training = parse(tmp_path, content)
    assert training.report_to == [] and training.label_names == ["labels"]
    assert training.fsdp_config["min_num_params"] == 0


def test_an_option_that_is_on_by_default(tmp_path):
    assert parse(tmp_path, {"is_kept": "no"})[0].is_kept is False
    assert parse(tmp_path, {"is_kept": False})[0].is_kept is False


def test_null_is_none(tmp_path):
    assert parse(tmp_path, "size: null\n")[0].size is None
    assert parse(tmp_path, "size:\n")[0].size is None


def test_mappings(tmp_path):
    content = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}
    _, training = parse(tmp_path, content)
    assert training.lr_scheduler_kwargs == {"min_lr_rate": 0.1}


def test_the_command_line_wins(tmp_path):
    options, training = parse(tmp_path, {"size": 5, "seed": 7}, "--seed", "8")
    assert options.size == 5 and training.seed == 8


def test_an_empty_recipe(tmp_path):
    assert parse(tmp_path, "# nothing\n")[0] == Options()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sise": 3}, "has sise, which is no option here; did you mean size"),
        ({"sources": "hpo"}, "has sources, which is no option here (is it a recipe of another command?)"),
        ({"help": True}, "has help, which is no option here"),
        ({"name": None}, "has name: null; pass a text, in quotes where"),
        ({"sizes": None}, "has sizes: null; pass a list, or omit it for the default"),
        ({"share": [1, 2]}, "has share: [1, 2]; pass a number, or omit it"),
        ({"learning_rate": {"a": 1}}, 'has learning_rate: {"a": 1}; pass a number, or omit it'),
        ({"sizes": {"a": 1}}, 'has sizes: {"a": 1}; pass a list'),
        ({"sizes": [1, None]}, "has sizes: [1, null]; pass a list"),
        ({"max_steps": True}, "has max_steps: true; pass an integer"),
        ({"size": True}, "has size: true; pass an integer or null"),
        ("eval_strategy: no", "has eval_strategy: false; pass a text, in quotes where"),
        ({"is_used": None}, "has is_used: null; pass true or false"),
        ({"is_kept": "perhaps"}, "argument --is_kept/--is-kept: "),
        ({"size": "large"}, "argument --size: invalid int value: 'large'"),
        ({"sizes": [3, "x"]}, "argument --sizes: invalid int value: 'x'"),
        ({"seed": 0.5}, "argument --seed: invalid int value: '0.5'"),
        ({"is_used": "perhaps"}, "argument --is_used/--is-used: "),
        ({"lr_scheduler_type": "circular"}, "circular"),
        (["size"], "is a list; write option: value"),
        ("size: [1", "is no YAML"),
        ("null", "is null; write option: value"),
        ("just words", "is a text; write option: value"),
        ("3", "is a single value; write option: value"),
        ("size: 3\nname: a\nsize: 4\n", "has size twice, the second time in line 3; leave one out"),
        ("lr_scheduler_kwargs: {a: 1, a: 2}", "has a twice, the second time in line 1"),
        ("name: &a [x]\nsizes: *a\n", "has an alias of a list or of a mapping in line 2; write its value there"),
        ("[" * 100_000, "is nested more than 20 levels deep in line 1"),
        ("a: " * 1_000_000, "has more than 1,000,000 bytes"),
        ("name: 2026-13-45", "has a value that is none of its type (month must be in 1..12); put it in quotes"),
        ("name: !!timestamp soon", "has a value that is none of its type; put it in quotes"),
        ("size: !!python/object:os.system x", "is no YAML: could not determine a constructor"),
        ("size: {2026-01-01: 1}", "has size: {}; pass an integer or null"),
        ("warmup_steps: -1", "warmup_steps = -1"),
        ({"do_train": True}, "has do_train, which has no effect here; kept-hf evaluate"),
        (
            {"push_to_hub": False},
            "has push_to_hub, which has no effect here; publish the finished run with kept-hf push",
        ),
    ],
)
def test_what_does_not_fit_is_a_line(tmp_path, capsys, content, message):
    with pytest.raises(SystemExit) as error:
        parse(tmp_path, content)
    assert error.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed.splitlines()[-1] and "recipe.yaml" in printed
    assert len(printed.splitlines()) == 2, "the usage is a line, not the list of all options"


def test_a_recipe_in_another_encoding_is_named(tmp_path, capsys):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(SystemExit):
        parse_recipe(command_parser("nothing", (Options, RunArguments), None), [str(path)], None)
    assert "latin.yaml is no text in UTF-8" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_recipe_in_a_wide_encoding_is_named(tmp_path, capsys, encoding):
    path = tmp_path / "wide.yaml"
    path.write_bytes("size: 3\n".encode(encoding))
    with pytest.raises(SystemExit):
        parse_recipe(command_parser("nothing", (Options, RunArguments), None), [str(path)], None)
    printed = capsys.readouterr().err.splitlines()
    assert "wide.yaml is no " in printed[-1] and len(printed) == 2


def test_aliases_of_single_values_stay(tmp_path):
    options, training = parse(tmp_path, "size: &number 7\nseed: *number\n")
    assert options.size == training.seed == 7


@pytest.mark.parametrize("helps", [True, False])
def test_bf16_where_it_helps(tmp_path, monkeypatch, helps):
    monkeypatch.setattr("kept_hf.commands.recipe.bf16_helps", lambda: helps)
    assert parse(tmp_path, {})[1].bf16 is helps
    assert not parse(tmp_path, {"bf16": False})[1].bf16
    assert not parse(tmp_path, {}, "--bf16", "False")[1].bf16
    assert not parse(tmp_path, {}, "--bf16=False")[1].bf16


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_recipes_fit_their_commands(name):
    prefixes = {"hsap": "pretrain_hsap", "mlm": "pretrain_mlm", "msmn": "train_msmn"}
    zero_shot = {"matching": "pretrain_zero_shot", "zero_shot": "pretrain_zero_shot"}
    command = zero_shot.get(name) or prefixes.get(name.partition("_")[0], "train")
    module = importlib.import_module(f"kept_hf.commands.{command}")
    parsed = module.parse_arguments([name, "--use_cpu", "True", "--bf16", "False", "--fp16", "False"])
    values = {field: value for arguments in parsed for field, value in vars(arguments).items()}
    content = yaml.safe_load(PACKAGED[name].read_text(encoding="utf-8"))
    changed = {"lr_scheduler_type", "num_train_epochs", "fp16"}  # by a limit in minutes, and above
    for option in content.keys() - changed:
        expected = content[option]
        assert values[option] == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_a_name_is_a_packaged_recipe_and_a_path_is_a_file(tmp_path, capsys, monkeypatch):
    parser = command_parser("nothing", (Options, RunArguments), None)
    assert recipe_path(parser, "demo") == RECIPES / "demo.yaml"
    (tmp_path / "mine.yaml").write_text("size: 3\n")
    assert recipe_path(parser, str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    with pytest.raises(SystemExit):
        recipe_path(parser, "codiesp_isolate")
    printed = capsys.readouterr().err
    assert "the recipe codiesp_isolate is no file and none of the packaged ones: " in printed
    assert all(name in printed for name in PACKAGED)


@pytest.mark.parametrize("corpus", [["--corpus", "mimic3"], ["--corpus=mimic3"]])
@pytest.mark.parametrize("bf16", [["--bf16", "False"], ["--bf16=False"], []])
def test_the_recipe_of_a_corpus_in_any_spelling(train, monkeypatch, corpus, bf16):
    monkeypatch.setattr("kept_hf.commands.recipe.bf16_helps", lambda: True)
    model, data, training = train.parse_arguments([*corpus, *bf16, "--use_cpu", "True"])
    assert data.corpus_options == ["config=50"]
    assert model.model_name_or_path == "whaleloops/keptlongformer"
    assert training.bf16 == (not bf16)


@pytest.mark.parametrize("corpus", ["demo", "codiesp", "mimic3", "mimic4"])
def test_each_corpus_has_a_recipe(train, corpus):
    model, data, _ = train.parse_arguments(["--corpus", corpus, "--use_cpu", "True", "--bf16", "False"])
    assert data.corpus == corpus
    assert model.max_length != 8192 or model.model_name_or_path == "whaleloops/keptlongformer"
