"""The typed schema: every value in its range, every yaml well, nothing left open."""

from __future__ import annotations

import math
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from microstep.config.compose import compose
from microstep.config.experiment import NEUTRAL_KEYS, extract_experiment, flatten, micro_batch_size
from microstep.config.ranges import RANGES, Range
from microstep.config.schema import (
    SCHEMAS,
    CheckpointConfig,
    DecideConfig,
    EvaluateOtherConfig,
    SearchConfig,
    TrainConfig,
)
from microstep.config.search_path import CONF
from microstep.config.signatures import find_signature
from microstep.config.validation import check_config, check_value
from microstep.errors import ConfigError

REQUIRED = {"evaluate": ["run=x"], "evaluate_other": ["run=x", "dataset.file=labels.csv"]}
ROOTS = [file.stem for file in sorted(CONF.glob("*.yaml"))]
YAMLS = [file.relative_to(CONF) for file in sorted(CONF.glob("*/**/*.yaml"))]
OPTIONS = [str(file.with_suffix("")) for file in YAMLS if file.parts[0] != "hydra"]  # tests/sweep has those
RANGED = {field.name: field.metadata["range"] for field in fields(TrainConfig) if "range" in field.metadata}


def outside(allowed: Range) -> list[float]:
    """Return numbers just outside a range: one step past a closed bound, an open bound itself."""
    past = [allowed.minimum - 1, allowed.maximum + 1, allowed.above, allowed.below]
    return [value for value in past if math.isfinite(value)]


@pytest.mark.parametrize("name", ROOTS)
def test_every_root_composes_and_checks(name: str) -> None:
    """Each program's config is right as it is shipped, and typed by its schema."""
    schema = {**SCHEMAS, "evaluate_other": EvaluateOtherConfig}[name]
    assert OmegaConf.get_type(compose(REQUIRED.get(name, []), config_name=name)) is schema


NEEDED = {  # values that no yaml can know
    "accumulation/auto": ["effective_batch_size=64"],
    "dataset/image_folder": ["dataset.root=photos"],
    "dataset/table": ["dataset.file=labels.csv"],
    "experiment/finetune": ["dataset.root=photos"],
    "experiment/photos": ["dataset.root=photos"],
    "augment/torchvision": ["augment.transforms=[]"],
    "stop/at": ["stop.epoch=3"],
    "strategy/ddp": ["strategy.processes=2"],
    "stop/budget": ["stop.minutes=30"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_checks(option: str) -> None:
    """Each yaml of each group can be chosen, and passes every check; only one's own pictures and ends need a value."""
    group, _, name = option.rpartition("/")
    config = compose([f"{group}={name}", *NEEDED.get(option, [])])
    shipped = yaml.safe_load((CONF / f"{option}.yaml").read_text("utf-8"))
    if group in config:
        chosen = config[group][name] if group == "logger" else config[group]
        assert chosen._target_ == shipped["_target_"]


def test_a_recipe_is_run_as_its_comment_says() -> None:
    """The command at the top of each recipe is one that works."""
    for file in (CONF / "experiment").glob("*.yaml"):
        command = next(line for line in file.read_text("utf-8").splitlines() if "python train.py" in line)
        compose(command.partition("train.py")[2].split())


def test_a_recipe_changes_the_whole_experiment() -> None:
    """Its groups and its root keys are all taken over, and what is typed still wins."""
    config = compose(["experiment=fashion_amp", "epochs=3"])
    assert (config.batch_size, config.epochs) == (128, 3)
    assert config.dataset.kind == "FashionMNIST"
    assert config.precision._target_.endswith("amp")


@pytest.mark.parametrize("key", sorted(RANGED))
def test_a_root_key_outside_its_range_is_refused(key: str) -> None:
    """The error shows the key, the value and the range that it must be in."""
    for value in outside(RANGED[key]):
        with pytest.raises(ConfigError) as caught:
            compose([f"{key}={int(value)}"])
        assert str(caught.value).startswith(f"{key}={int(value)}")
        assert str(caught.value).endswith(f"out of range; it must be {RANGED[key]}")


@pytest.mark.parametrize("key", sorted(RANGES))
def test_a_group_key_outside_its_range_is_refused(key: str) -> None:
    """So is a number inside a group."""
    for value in outside(RANGES[key]):
        with pytest.raises(ConfigError, match="out of range"):
            check_value(key, value, RANGES[key], None)


@pytest.mark.parametrize("key", sorted(RANGES))
def test_a_range_belongs_to_a_key_that_exists(key: str) -> None:
    """No range is kept for a misspelt key: some option of the group has it, or its constructor takes it."""
    group, _, leaf = key.partition(".")
    nodes = [yaml.safe_load(file.read_text("utf-8")) for file in (CONF / group).glob("*.yaml")]
    takers = [
        node
        for node in nodes
        if leaf in node or leaf in getattr(find_signature(node.get("_target_", "")), "parameters", {})
    ]
    nodes = {"checkpoint": CheckpointConfig, "decide": DecideConfig, "search": SearchConfig}
    schema = {field.name for field in fields(nodes[group])} if group in nodes else set()
    assert takers or leaf in schema


def test_a_range_is_closed_or_open_as_it_says() -> None:
    """`least` and `most` are inside, `above` and `below` are not; the words say the same."""
    closed, opened = Range(minimum=0, maximum=1), Range(above=0, below=1)
    assert [value in closed for value in (0, 0.5, 1, -0.1, 1.1)] == [True, True, True, False, False]
    assert [value in opened for value in (0, 0.5, 1)] == [False, True, False]
    assert str(closed) == "at least 0 and at most 1"
    assert str(opened) == "above 0 and below 1"
    assert math.nan not in closed


@pytest.mark.parametrize("words", [["task.class_weights=[1,nan]"], ["model=mlp", "model.hidden=[128,inf]"]])
def test_a_number_in_a_list_is_checked_too(words: list[str]) -> None:
    """No NaN hides inside a list."""
    with pytest.raises(ConfigError, match=r"^(task\.class_weights|model\.hidden)\.1=(nan|inf): not a finite number; "):
        compose(words)


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ([], 64),
        (["batch_size=16", "accum=4"], 16),
        (["effective_batch_size=64", "accum=4"], 16),
        (["effective_batch_size=64"], 64),
        (["effective_batch_size=null", "batch_size=8"], 8),
        (["experiment=fashion_amp", "effective_batch_size=64", "accum=2"], 32),
    ],
)
def test_a_micro_batch_is_what_was_asked_for(words: list[str], size: int) -> None:
    """`batch_size` is one micro-batch; with `effective_batch_size`, accumulation alone cuts the batch."""
    assert micro_batch_size(compose(words)) == size


def test_windows_are_cut_as_the_effective_batch_size_says() -> None:
    """The reported effective batch size can't differ from the one used in training."""
    with pytest.raises(ConfigError):
        compose(["accumulation.micro_batches=3"])


def test_what_describes_an_experiment_leaves_the_neutral_keys_out() -> None:
    """Workers, bars, names and the backend are in no hash; whatever else is changed, is."""
    neutral = ["num_workers=4", "progress=false", "log_every_steps=3", "sweep=s", "dataset.resident=false"]
    neutral += [
        "allocator=default",
        "profile=3:4",
        "expected_time=true",
        "replay=run",
        "window=7",
        "checkpoint.every_epochs=2",
        "checkpoint.every_minutes=5",
        "checkpoint.every_steps=7",
        "checkpoint.keep=best",
    ]
    assert extract_experiment(compose(neutral)) == extract_experiment(compose())
    assert extract_experiment(compose(["compile=true"])) != extract_experiment(compose(["compile=false"]))
    assert extract_experiment(compose(["compile=false"])) == extract_experiment(compose())
    assert extract_experiment(compose(["seed=1"])) != extract_experiment(compose())
    assert extract_experiment(compose(["optimizer.lr=0.031"])) != extract_experiment(compose())
    assert not NEUTRAL_KEYS & extract_experiment(compose()).keys()


def test_a_flat_config_has_a_dotted_key_for_each_leaf() -> None:
    """References are resolved, lists stay whole and plain; a leaf is its own."""
    node = OmegaConf.create({"a": {"b": 1, 2: {"c": [1, {"d": 3}]}}, "e": "${a.b}", "f": {}})
    assert dict(flatten(node)) == {"a.b": 1, "a.2.c": [1, {"d": 3}], "e": 1}
    assert list(flatten(node.a, "x")) == [("x.b", 1), ("x.2.c", [1, {"d": 3}])]
    assert list(flatten(7, "x")) == [("x", 7)]
    assert type(dict(flatten(node))["a.2.c"]) is list


def test_every_neutral_key_is_a_key() -> None:
    """A misspelt neutral key would change hashes in silence: each one is in some schema."""
    roots = {field.name for schema in SCHEMAS.values() for field in fields(schema)}
    parameters = {
        f"dataset.{name}"
        for name in (find_signature("microstep.components.dataset.file_dataset.file_dataset").parameters)
    }
    saving = {f"checkpoint.{field.name}" for field in fields(CheckpointConfig)}
    assert roots | parameters | saving | {"dataset.download", "strategy.run_on"} >= NEUTRAL_KEYS


def test_a_misspelt_root_attribute_is_an_error() -> None:
    """A config can't be read or written by a name that it doesn't have."""
    config = compose()
    with pytest.raises(Exception, match="acum"):
        _ = config.acum
    with pytest.raises(Exception, match="acum"):
        config.acum = 3


def test_a_config_is_composed_beside_another_hydra() -> None:
    """A notebook that has Hydra initialised for something else can compose too, and keeps its own."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose(["accum=2"]).accum == 2
        assert GlobalHydra.instance().is_initialized()


def test_a_seed_that_cannot_split_is_refused_by_its_own_name() -> None:
    """A seed beyond 32 bits is told of as such, not as a wrong number of samples."""
    with pytest.raises(ConfigError, match=r"^dataset\.split_seed=4294967296: out of range"):
        compose(["dataset.split_seed=4294967296"])


def test_a_missing_value_is_asked_for() -> None:
    """`evaluate.py` without a run says which key to give."""
    with pytest.raises(ConfigError, match=r"^run=\?\?\?: it has no value; give one: run="):
        compose(config_name="evaluate")


def test_a_plain_config_is_checked_as_well() -> None:
    """A root without a schema is held to the groups' ranges."""
    with pytest.raises(ConfigError, match=r"^optimizer\.lr=-1: out of range"):
        check_config(OmegaConf.create({"optimizer": {"lr": -1}}))


def mended(tmp_path: Path, file: str, text: str, *words: str) -> str:
    """Return what is said of a conf/ in which one file has got some more text."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    with (conf / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        compose(words, conf)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("width: ???", "model.width=???: it has no value; "),
        ("width: ${nope}", "model.width: can't be resolved: "),
        ("width: .nan", "model.width=nan: not a finite number; "),
        ("deep: {width: -.inf}", "model.deep.width=-inf: not a finite number; "),
    ],
)
def test_a_yaml_of_ones_own_is_checked_like_a_word(tmp_path: Path, text: str, said: str) -> None:
    """An error in a yaml is named by its key, as if it had been typed."""
    assert mended(tmp_path, "model/mine.yaml", f"_target_: mine.Net\n{text}", "model=mine").startswith(said)


def test_a_key_of_a_foreign_component_has_no_range(tmp_path: Path) -> None:
    """A component of one's own may give another meaning to a key that ours have, too."""
    shutil.copytree(CONF, conf := tmp_path / "conf")
    (conf / "model" / "mine.yaml").write_text("_target_: mine.Net\nwidth: 0\n", encoding="utf-8")
    assert compose(["model=mine"], conf).model.width == 0


def test_a_range_holds_in_a_yaml_too(tmp_path: Path) -> None:
    """A default that is out of range never gets as far as a run."""
    assert mended(tmp_path, "train.yaml", "epochs: 0") == "epochs=0: out of range; it must be at least 1"


@pytest.mark.parametrize("text", ["epochs: many", "epochs: 1.5", "epoch: 3"])
def test_a_wrong_type_or_name_in_a_yaml_is_named(tmp_path: Path, text: str) -> None:
    """The error says which key of train.yaml can't be right."""
    said = mended(tmp_path, "train.yaml", text)
    assert text.split(":")[0] in said
    assert "raised while composing config:;" not in said


@pytest.mark.parametrize("text", ["a: [b", "a: b: c", "\tx: 1"])
def test_a_yaml_that_is_no_yaml_is_named(tmp_path: Path, text: str) -> None:
    """A slip of the pen in one's own yaml is a config error that says where."""
    assert "mine.yaml" in mended(tmp_path, "model/mine.yaml", text, "model=mine")
