"""Every word of a command line is checked for spelling and type before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microstep.config.compose import Composer
from microstep.config.experiment import VERBATIM_KEYS
from microstep.config.overrides import expand_repeats, quote_verbatim, suggest_names
from microstep.config.search_path import CONF
from microstep.config.sweep_jobs import compose_jobs
from microstep.errors import ConfigError

REFUSED = [  # typed override, beginning of the error, a part of its text
    ("acum=3", "acum=3", "did you mean accum?"),
    ("lr=0.1", "lr=0.1", "did you mean optimizer.lr?"),
    ("optimiser.lr=0.1", "optimiser.lr=0.1", "optimizer.lr"),
    ("optimizer.lrr=0.1", "optimizer.lrr=0.1", "optimizer.lr"),
    ("+foo=1", "foo=1", "no such key"),
    ("++foo=1", "foo=1", "no such key"),
    ("optimizer.lr.x=1", "optimizer.lr.x=1", "no such key"),
    ("model=mlp model.width=3", "model.width=3", "model.hidden"),
    ("dataset.root=/data", "dataset.root=", "no such key"),
    ("precision=fp31", "precision=fp31", "did you mean fp32"),
    ("step=sma", "step=sma", "did you mean sam?"),
    ("dataset=cifar", "dataset=cifar", "did you mean cifar10 or cifar100?"),
    ("dataset=fashion_mnist dataset.mean=0.3", "dataset.mean=0.3", "give null or a list"),
    ("dataset=nothing", "dataset=nothing", "the options are cifar10, cifar100, digits, fashion_mnist"),
    ("precision=[fp32,amp]", "precision=[fp32,amp]", "a group takes the name of one option"),
    ("logger=jsonI", "logger=jsonI", "did you mean jsonl?"),
    ("logger=[jsonl,mlfow]", "logger=mlfow", "did you mean mlflow?"),
    ("logger=jsonl,mlflow", "logger=jsonl,mlflow", "write 'logger=[jsonl,mlflow]'"),
    ("logger=null", "logger=null", "a group takes the name of one option"),
    ("logger=jsonl logger.jsonl.pth=a", "logger.jsonl.pth=a", "did you mean logger.jsonl.path?"),
    ("logger=mlflow logger.mlflow.experiment=1", "logger.mlflow.experiment=1", "give text"),
    ("optimizer={lr:1}", "optimizer={lr:1}", "a group takes the name of one option"),
    ("device=gpu", "device=gpu", "auto, cpu, cuda, mps"),
    ("optimizer.lr=abc", "optimizer.lr=abc", "it is text; give a number"),
    ("optimizer.lr='0.1'", "optimizer.lr='0.1'", "it is text; give a number"),
    ("optimizer.lr=true", "optimizer.lr=true", "give a number"),
    ("optimizer.lr=null", "optimizer.lr=null", "it is null; give a number"),
    ("optimizer.lr=[0.1]", "optimizer.lr=[0.1]", "give a number"),
    ("optimizer.nesterov=1", "optimizer.nesterov=1", "give true or false"),
    ("accum=true", "accum=true", "give a whole number"),
    ("accum=1.5", "accum=1.5", "give a whole number"),
    ("accum=", "accum=", "give a whole number"),
    ("epochs=1e3", "epochs=1e3", "give a whole number"),
    ("deterministic=1", "deterministic=1", "give true or false"),
    ("device=1", "device=1", "give text"),
    ("model.width=big", "model.width=big", "it is text; give a whole number"),
    ("model=mlp model.hidden=3", "model.hidden=3", "give a list"),
    ("optimizer.lr=nan", "optimizer.lr=nan", "not a finite number; give a number above 0"),
    ("optimizer.lr=1e999", "optimizer.lr=inf", "not a finite number"),
    ("optimizer.lr=0", "optimizer.lr=0", "it must be above 0"),
    ("optimizer.lr=${seed}", "optimizer.lr=0", "it must be above 0"),
    ("optimizer.lr=${nope}", "optimizer.lr", "can't be resolved"),
    ("+optimizer.momentun=0.9", "optimizer.momentun=0.9", "did you mean optimizer.momentum"),
    ("+optimizer.dampening=abc", "optimizer.dampening=abc", "give a number"),
    ("+optimizer.lr=0.1", "+optimizer.lr=0.1", "it is there already; write optimizer.lr="),
    ("+optimizer.params=1", "optimizer.params=1", "no such key"),
    ("optimizer.foreach=true", "optimizer.foreach=true", "add it with +optimizer.foreach=true"),
    ("++optimizer.lr=abc", "optimizer.lr=abc", "give a number"),
    ("~model", "~model", "needs all its parts"),
    ("~optimizer.momentum", "~optimizer.momentum", "needs all its parts"),
    ("accum=1,2", "accum=1,2", "add -m"),
    ("accum=range(1,4)", "accum=range(1,4)", "add -m"),
    ("effective_batch_size=64 accum=3", "effective_batch_size=64", "not a multiple of accum=3"),
    ("effective_batch_size=2 accum=4", "effective_batch_size=2", "not a multiple of accum=4"),
    ("effective_batch_size=64 batch_size=32", "batch_size=32", "give one of the two"),
    ("sweep=a/b", "sweep=a/b", "it can't name a directory"),
    ("accum", "accum", "not of the form key=value"),
    ("accum==3", "accum==3", "not of the form key=value"),
    ("hydra.foo=1", "hydra.foo", "foo"),
    ("hydra/launcher=nope", "hydra/launcher=nope", "the options are basic"),
    ("accum=2 accum=0", "accum=0", "it must be at least 1"),
]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    """The one that a command line gets, kept open: opening takes as long as composing."""
    with Composer.open(CONF, "train") as opened:
        yield opened


def refusal(composer: Composer, words: list[str]) -> str:
    """Return what is said of words that can't be right: one line of three parts, exit code 2."""
    with pytest.raises(ConfigError) as caught:
        composer.compose_job([quote_verbatim(word) for word in words])
    assert caught.value.exit_code == 2
    assert re.fullmatch(r"[^\n]+: [^\n]+; [^\n]+", str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(("typed", "subject", "says"), REFUSED)
def test_what_cannot_be_right_is_refused(composer: Composer, typed: str, subject: str, says: str) -> None:
    """The line begins with what was typed, gives the reason, and says what to do or what there is."""
    said = refusal(composer, typed.split())
    assert said.startswith(subject)
    assert says in said


@pytest.mark.parametrize("typed", ["precision=null", "model=null"])
def test_a_group_cannot_be_null(composer: Composer, typed: str) -> None:
    """An experiment needs one option of every group."""
    assert refusal(composer, [typed]).startswith(typed)


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("accum=4", "accum", 4),
        ("++accum=4", "accum", 4),
        ("optimizer.lr=1", "optimizer.lr", 1),
        ("optimizer.lr=3e-4", "optimizer.lr", 3e-4),
        ("max_grad_norm=1", "max_grad_norm", 1.0),
        ("max_grad_norm=null", "max_grad_norm", None),
        ("+optimizer.dampening=0", "optimizer.dampening", 0),
        ("+optimizer.foreach=null", "optimizer.foreach", None),
        ("task.class_weights=balanced", "task.class_weights", "balanced"),
        ("task.class_weights=[1,2]", "task.class_weights", [1, 2]),
        ("device=cuda:1", "device", "cuda:1"),
        ("accum=${threads} threads=2", "accum", 2),
        ("model=torchvision +model.progress=false", "model.progress", False),
        ("optimizer=adam optimizer.lr=0.1 optimizer=adamw", "optimizer.weight_decay", 0.05),
    ],
)
def test_what_is_right_passes(composer: Composer, typed: str, key: str, value: object) -> None:
    """A check never stands in the way of what Hydra, the schema and the constructor allow."""
    found = composer.compose_job(typed.split())
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_a_later_word_wins(composer: Composer) -> None:
    """As with Hydra, the last of several values is taken."""
    assert composer.compose_job(["accum=2", "accum=3"]).accum == 3


def test_a_sweep_is_cut_into_checked_jobs(composer: Composer) -> None:
    """Every combination is composed, in the order in which Hydra will run them."""
    jobs = compose_jobs(composer, ["precision=fp32,amp", "accum=1,2,4"])
    found = [(job.precision._target_.rsplit(".")[-1], job.accum) for job in jobs]
    assert found == [(precision, accum) for precision in ("full", "amp") for accum in (1, 2, 4)]


def test_repeats_are_short_for_a_list(composer: Composer) -> None:
    """dataset.repeats=3 runs repeats 0, 1 and 2; without -m, or with no number, it is refused."""
    assert expand_repeats(["accum=2", "dataset.repeats=3"]) == ["accum=2", "dataset.repeat=0,1,2"]
    with pytest.raises(ConfigError, match=r"dataset\.repeats=3: it is several runs; add -m"):
        composer.compose_job(["dataset.folds=5", "dataset.fold=0", "dataset.repeats=3"])
    with pytest.raises(ConfigError, match=r"^dataset\.repeats=3: dataset\.repeat= lists them already; give one"):
        expand_repeats(["dataset.repeats=3", "dataset.repeat=0"])
    for value in ("0", "two", "-1", ""):
        with pytest.raises(ConfigError, match="not a number of repeats"):
            expand_repeats([f"dataset.repeats={value}"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["accum=1,2,0"], "accum=0: out of range"),
        (["precision=fp32,fp31"], "precision=fp31: no such option"),
        (["acum=1,2"], "acum=1: no such key"),
        (["model=small_cnn,mlp", "model.width=16"], "model.width=16 with model=mlp: no such key"),
        (["effective_batch_size=64", "accum=1,2,3"], "effective_batch_size=64: it is not a multiple of accum=3"),
        (["effective_batch_size=64", "batch_size=1,2"], "batch_size=1,2: effective_batch_size sets it"),
        (["optimizer.lr=0.1,abc"], "optimizer.lr=abc: it is text"),
    ],
)
def test_a_sweep_with_one_bad_job_is_refused_whole(composer: Composer, words: list[str], says: str) -> None:
    """The bad value is named, wherever in the sweep it stands."""
    with pytest.raises(ConfigError) as caught:
        compose_jobs(composer, words)
    assert str(caught.value).startswith(says)


PATHS = [
    "/a b/c",
    "a,b",
    "a=b",
    "lr=(0.1), accum=2",
    "数据/手写 数字",
    "it's",
    'the "best" one',
    "[1,2]",
    "{a:1}",
    "~/x",
    "a\\b",
    "a\\'b",
    "50%#&!*?;|<>",
    " lead and trail ",
    "null and void",
    "1",
    "true",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_means_itself(composer: Composer, path: str) -> None:
    """Spaces, commas, `=`, parentheses, quotes and any script reach the config as they were typed."""
    words = ["dataset=fashion_mnist", quote_verbatim(f"dataset.root={path}")]
    assert composer.compose_job(words).dataset.root == path


def test_any_path_means_itself(composer: Composer) -> None:
    """No mixture of these characters is read as Hydra's grammar."""

    @given(st.text(" ,=()[]{}'\"\\:#&~%é数据ab/.-!@*;|?<>+", min_size=1).filter(lambda text: not quoted(text)))
    @settings(derandomize=True, deadline=None)
    def means_itself(path: str) -> None:
        assert composer.parse(quote_verbatim(f"run={path}")).value() == path

    means_itself()


def quoted(text: str) -> bool:
    """Say whether a text stands in quotation marks, which Hydra takes off."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


@pytest.mark.parametrize("path", ['"best" of all', "'", "'tis"])
def test_a_path_that_begins_with_a_quote_means_itself(composer: Composer, path: str) -> None:
    """A name that starts with a quotation mark is a name like any other."""
    words = ["dataset=fashion_mnist", quote_verbatim(f"dataset.root={path}")]
    assert composer.compose_job(words).dataset.root == path


@pytest.mark.parametrize("word", ["run='a, b'", 'run="a, b"'])
def test_a_path_that_is_quoted_already_is_not_quoted_again(composer: Composer, word: str) -> None:
    """Hydra's own way of writing it still works."""
    assert quote_verbatim(word) == word
    assert composer.parse(word).value() == "a, b"


def test_only_paths_are_taken_verbatim() -> None:
    """Every other value is Hydra's to read, and null stays null."""
    assert quote_verbatim("accum=1,2") == "accum=1,2"
    assert quote_verbatim("resume=null") == "resume=null"
    assert quote_verbatim("-m") == "-m"
    assert all(quote_verbatim(f"{key}=a,b") == f"{key}='a,b'" for key in VERBATIM_KEYS)


def test_the_nearest_names_come_first() -> None:
    """A near name is suggested alone; where nothing is near, all are told."""
    assert suggest_names("fp31", ["amp", "fp32", "sgd"]) == "did you mean fp32?"
    assert suggest_names("zzz", ["amp", "fp32"]) == "the options are amp, fp32"
