"""`evaluate.py run=A baseline=B`: compares two runs, or groups of runs over seeds."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import f1_score

from microstep.config.allowlist import ALLOW_ALL, allowlist_from
from microstep.config.search_path import CONF
from microstep.errors import CheckpointRefused, ConfigError, DataError
from microstep.evaluation.comparison.compare import WrittenComparisons, compare_runs, fetch_flip_images
from microstep.evaluation.comparison.flips import find_flips
from microstep.evaluation.comparison.output_files import get_comparison_directory
from microstep.evaluation.comparison.predictions_file import read_report
from microstep.evaluation.comparison.significance import correct_holm
from microstep.evaluation.comparison.text import comparison_report_text
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.utils.terminal import called

FILES = ["comparison.json", "comparison.txt", "flips.csv", "flips.png", "per_class.csv"]
SWEEP = "outputs/sweeps/s"


@pytest.fixture(scope="module")
def home(zygote, tmp_path_factory) -> Path:
    """A directory with a sweep of two settings over two seeds."""
    home = tmp_path_factory.mktemp("my runs, (1)")
    words = ("-m", "sweep=s", "epochs=1,4", "seed=0,1", "model=mlp", "threads=1", "progress=false")
    assert zygote.run("train.py", *words, cwd=home) == 0, (home / "output.txt").read_text()
    (home / "output.txt").unlink()
    return home


@pytest.fixture
def here(home, tmp_path, monkeypatch) -> Path:
    """A copy of it, as the working directory."""
    copy = shutil.copytree(home / SWEEP, tmp_path / "here" / SWEEP).parents[2]
    monkeypatch.chdir(copy)
    return copy


def name(epochs: int, seed: int | str) -> str:
    return f"{SWEEP}/epochs-{epochs}_seed-{seed}"


def compared(
    run: str, baseline: str, split: str = "test", checkpoint: str = "best", gate=ALLOW_ALL, other: str | None = None
) -> WrittenComparisons:
    """Compare in this process; `other` is the checkpoint of the baseline."""
    return compare_runs(run, baseline, split, checkpoint, lambda others: gate, other)


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def columns(run: Path, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Return labels and predictions in the order of their indices."""
    rows = sorted(table(run / "reports" / split / "predictions.csv"), key=lambda row: int(row["index"]))
    labels, predictions = (np.array([int(row[column]) for row in rows]) for column in ("label", "prediction"))
    return labels, predictions


def test_two_runs_are_compared_sample_by_sample(zygote, home):
    """The numbers are those of scikit-learn and SciPy for both predictions.csv; the sentence comes last."""
    kept = {path: path.read_bytes() for path in (home / SWEEP).rglob("*") if path.is_file()}
    assert zygote.run("evaluate.py", f"run={name(4, 0)}", f"baseline={name(1, 0)}", cwd=home) == 0
    said = (home / "output.txt").read_text().splitlines()
    directory = home / "outputs" / "comparisons" / "epochs-4-against-epochs-1"
    found = json.loads((directory / "comparison.json").read_text())
    labels, run = columns(home / name(4, 0))
    _, baseline = columns(home / name(1, 0))
    only = int(((run == labels) & (baseline != labels)).sum()), int(((run != labels) & (baseline == labels)).sum())
    assert found["by_seed"] == [
        {"seed": 0, "only_run": only[0], "only_baseline": only[1], "mcnemar": binomtest(only[0], sum(only)).pvalue}
    ]
    assert found["accuracy"]["difference"] == pytest.approx((only[0] - only[1]) / 180)
    assert found["macro_f1"]["run"] == pytest.approx(f1_score(labels, run, average="macro"))
    assert said[-1] == found["sentence"]
    assert said[-1].startswith("epochs=4 is better than epochs=1: +")
    assert sorted(path.name for path in directory.iterdir()) == FILES
    assert (directory / "comparison.txt").read_text().splitlines()[-1] == said[-1]
    assert {path: path.read_bytes() for path in (home / SWEEP).rglob("*") if path.is_file()} == kept


def test_the_samples_that_flipped_are_all_told_and_drawn(here):
    """flips.csv has each sample that only one side gets right, and flips.png the most decisive of them."""
    directory = compared(name(4, 0), name(1, 0)).directories[0]
    labels, run = columns(here / name(4, 0))
    _, baseline = columns(here / name(1, 0))
    rows = table(directory / "flips.csv")
    assert len(rows) == int(((run == labels) != (baseline == labels)).sum())
    assert all(row["run_right"] != row["baseline_right"] for row in rows)
    assert all((row["run"] == row["label"]) == (row["run_right"] == "1") for row in rows)
    with Image.open(directory / "flips.png") as image:
        assert image.width > 1000
        assert len(set(image.convert("L").resize((100, 100)).tobytes())) > 20


def test_the_images_are_those_of_the_samples(here):
    """The image drawn for an index is the dataset's sample with that index."""
    found = compared(name(4, 0), name(1, 0)).comparisons[0]
    chosen = find_flips(found.match)[::-1][:5]
    images = fetch_flip_images(found, chosen, ALLOW_ALL)
    assert images[:, 0].numpy() == pytest.approx(load_digits().images[[one.index for one in chosen]] / 16, abs=1e-6)


def test_samples_are_paired_by_their_index(here):
    """The order of the rows in predictions.csv does not matter."""
    before = compared(name(4, 0), name(1, 0)).text
    file = Path(name(1, 0)) / "reports/test/predictions.csv"
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *rows[::-1]]))
    assert compared(name(4, 0), name(1, 0)).text == before


def test_a_pattern_is_a_setting_over_its_seeds(here):
    """Accuracy is the mean over paired seeds, and each seed has its own test."""
    one = compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*").comparisons[0]
    found = one.result
    assert (one.names, one.match.run.seeds, one.match.baseline.seeds) == (("epochs=4", "epochs=1"), [0, 1], [0, 1])
    means = [np.mean([np.equal(*columns(here / name(epochs, seed))).mean() for seed in (0, 1)]) for epochs in (4, 1)]
    assert (found.score.run, found.score.baseline) == pytest.approx(tuple(means))
    assert [p < 0.05 for _, _, p in found.by_seed] == [True, True]
    assert "seeds, at any time   too few seeds yet" in comparison_report_text(one)


def test_several_settings_are_corrected_for(here):
    """A pattern over groups compares each with the baseline, which it may match too; p-values are corrected."""
    for seed in (0, 1):
        shutil.copytree(here / name(4, seed), here / name(2, seed))
        edited(here / name(2, seed) / "config.yaml", "\nepochs: 4\n", "\nepochs: 2\n")
    found = compared(f"{SWEEP}/*", f"{SWEEP}/epochs-1_*")
    assert [one.names for one in found.comparisons] == [("epochs=2", "epochs=1"), ("epochs=4", "epochs=1")]
    assert [path.name for path in found.directories] == ["epochs-2-against-epochs-1", "epochs-4-against-epochs-1"]
    verdicts = [one.verdict for one in found.comparisons]
    assert [one.p_value for one in verdicts] == correct_holm([one.result.p_value for one in verdicts])
    lines = found.text.splitlines()
    assert [line.split("  ")[1] for line in lines[3:6]] == ["epochs=1", "epochs=2", "epochs=4"]
    assert lines[-2:] == [one.sentence for one in found.comparisons]


def test_another_split_and_other_weights_have_a_directory_of_their_own(here, monkeypatch):
    """`split=val` compares the validation reports; the error for a missing report has the command that makes it."""
    assert compared(name(4, 0), name(1, 0), "val").directories[0].name.endswith("-against-epochs-1-val")
    monkeypatch.setattr("sys.argv", ["evaluate.py"])
    with pytest.raises(ConfigError) as caught:
        compared(name(4, 0), name(1, 0), "train", "last")
    command = f"{called('evaluate')} run={name(1, 0)} split=train checkpoint=last makes it"
    assert str(caught.value) == f"baseline={name(1, 0)}: it has no reports/train-last/predictions.csv; {command}"


@pytest.fixture
def worse_last(here: Path) -> str:
    """Give a run a report of its last checkpoint, which gets ten samples wrong that the best gets right."""
    reports = here / name(4, 0) / "reports"
    shutil.copytree(reports / "test", reports / "test-last")
    rows = table(reports / "test-last" / "predictions.csv")
    right = [row for row in rows if row["label"] == row["prediction"]][:10]
    for row in right:
        row["prediction"] = str((int(row["label"]) + 1) % 10)
    lines = [",".join(row.values()) for row in ({key: key for key in rows[0]}, *rows)]
    (reports / "test-last" / "predictions.csv").write_text("\n".join(lines) + "\n")
    return name(4, 0)


def test_two_checkpoints_of_a_run_are_compared(zygote, here, worse_last):
    """Every text and file tells the two sides apart, by the command line that the help names."""
    words = (f"run={worse_last}", "checkpoint=last", f"baseline={worse_last}", "baseline_checkpoint=best")
    assert zygote.run("evaluate.py", *words, cwd=here) == 0
    said = (here / "output.txt").read_text()
    assert "  they differ in    checkpoint last, not best\n" in said
    assert "last and best weights; seed 0" in said
    assert said.splitlines()[-1].startswith("checkpoint=last is worse than checkpoint=best: ")
    (directory,) = (here / "outputs" / "comparisons").iterdir()
    assert directory.name.startswith("checkpoint-last-against-checkpoint-best")
    found = json.loads((directory / "comparison.json").read_text())
    assert (found["checkpoint"], found["baseline_checkpoint"]) == ("last", "best")
    assert found["differences"] == {"checkpoint": ["last", "best"]}
    assert found["by_seed"][0]["only_baseline"] == 10
    assert sorted(path.name for path in directory.iterdir()) == FILES


def test_the_checkpoints_of_two_runs_may_differ(here, worse_last):
    """Their names have the checkpoints; a missing report is made by the command that the error names."""
    (one,) = compared(worse_last, name(1, 0), checkpoint="last", other="best").comparisons
    assert one.names == ("epochs=4 checkpoint=last", "epochs=1 checkpoint=best")
    assert get_comparison_directory(one).name == "epochs-4-checkpoint-last-against-epochs-1-checkpoint-best"
    with pytest.raises(ConfigError) as caught:
        compared(worse_last, name(1, 0), checkpoint="best", other="last")
    command = f"{called('evaluate')} run={name(1, 0)} split=test checkpoint=last"
    assert f"it has no reports/test-last/predictions.csv; {command} makes it" in str(caught.value)


def test_no_command_is_proposed_for_weights_that_are_gone(here):
    """If the checkpoint or the exported weights of a missing report are gone, that is the error."""
    checkpoints = Checkpoints(here / name(1, 0) / "checkpoints")
    checkpoints.keep({"best": checkpoints.entry("best")})
    (here / name(1, 0) / "model.safetensors").unlink()
    for checkpoint, reason in (("last", "checkpoint.keep=best has dropped the last one"), ("model.safetensors", "")):
        with pytest.raises(CheckpointRefused, match=f"{name(1, 0)}/.*{reason}"):
            compared(name(4, 0), name(1, 0), checkpoint=checkpoint)


def test_a_link_in_the_working_directory_is_none_of_a_run(here):
    """Reports are read within the run directories, whatever is called `reports` beside them."""
    (here / "reports").symlink_to(here / "elsewhere")
    assert compared(name(4, 0), name(1, 0)).comparisons


def test_what_a_long_name_leaves_out_is_in_its_hash(here, worse_last):
    """Comparisons of other checkpoints or of another split have other directories, however long the names are."""
    reports = here / worse_last / "reports"
    shutil.copytree(reports / "test-last", reports / "test-model")
    shutil.copytree(reports / "val", reports / "val-last")
    kinds = [("test", "last", "best"), ("test", "last", "model.safetensors"), ("val", "last", "best")]
    found = [compared(worse_last, worse_last, split, one, other=other) for split, one, other in kinds]
    assert len({one.directories[0] for one in found}) == len(kinds)


@pytest.mark.parametrize("task", ["mine.Regression", "microstep.components.task.Classification"])
def test_a_task_without_predictions_is_not_told_to_evaluate(here, task):
    """No command makes a predictions.csv that a task of one's own does not write; one makes a report that was lost."""
    for file in (here / name(4, 0)).glob("reports/*/predictions.csv"):
        file.unlink()
    edited(here / name(4, 0) / "config.yaml", "microstep.components.task.Classification", task)
    with pytest.raises(ConfigError) as caught:
        compared(name(1, 0), name(4, 0))
    lost = f"it has no reports/test/predictions.csv; {called('evaluate')} run={name(4, 0)} split=test makes it"
    none = "its task (mine.Regression) writes no predictions.csv or scores.csv; compare metrics.test in run.json of "
    assert str(caught.value).startswith(f"baseline={name(4, 0)}: {none if task[:4] == 'mine' else lost}")
    assert "f1_macro" in json.loads((here / name(4, 0) / "run.json").read_text())["metrics"]["test"]


def test_seeds_that_only_one_side_has_are_left_out(here, caplog):
    """A warning names them, and the others are paired."""
    shutil.rmtree(here / name(1, 1))
    shutil.copytree(here / name(4, 0), here / "outputs/sweeps/s/epochs-4_third")
    edited(here / "outputs/sweeps/s/epochs-4_third/config.yaml", "\nseed: 0\n", "\nseed: 2\n")
    one = compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*").comparisons[0]
    assert one.match.run.seeds == [0]
    assert "seeds or folds that only one side has are left out: 1, 2" in caplog.text


def test_one_run_each_of_different_seeds_is_compared_with_a_warning(here, caplog):
    """The difference may come from the seed, so a warning and the report name both seeds."""
    found = compared(name(4, 0), name(4, 1))
    assert "its seed is 0, the baseline's 1: chance in training differs too" in caplog.text
    assert "seeds 0 and 1, which says nothing of other seeds" in found.text
    assert "they differ in    nothing but the seed" in found.text


def test_runs_that_are_not_finished_are_left_out_of_a_pattern(here, caplog):
    """A warning names them; a run given by its own directory is compared with a warning."""
    edited(here / name(4, 1) / "run.json", '"status": "finished"', '"status": "interrupted"')
    assert compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*").comparisons[0].match.run.seeds == [0]
    assert "left out because they are not finished: epochs-4_seed-1" in caplog.text
    compared(name(4, 1), name(1, 1))
    assert "the run is not finished; its report is compared as it is" in caplog.text


def test_an_earlier_comparison_of_other_runs_stays(here):
    """A second comparison with that name gets eight letters of a hash; the same comparison replaces its own files."""
    first = compared(name(4, 0), name(1, 0)).directories[0]
    for path in (name(4, 0), name(1, 0)):
        (here / "other" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(here / path, here / "other" / path)
    before = (first / "comparison.json").read_bytes()
    second = compared(f"other/{name(4, 0)}", f"other/{name(1, 0)}").directories[0]
    assert second.name.startswith(f"{first.name}-")
    assert compared(name(4, 0), name(1, 0)).directories == [first]
    assert (first / "comparison.json").read_bytes() == before


def test_names_are_safe_and_bounded(here):
    """Whatever a run directory is called, the name of the comparison is ASCII with at most 80 characters."""
    for number, seed in enumerate((0, 1)):
        shutil.copytree(here / name(4, seed), here / f"run {number}, (é)/{'long ' * 20}{number}")
    found = compared(*(f"run {number}, (é)/{'long ' * 20}{number}" for number in (0, 1)))
    assert len(found.directories[0].name) <= 80
    assert found.directories[0].name.isascii()
    assert sorted(path.name for path in found.directories[0].iterdir()) == FILES


def test_without_its_data_a_comparison_lacks_only_the_images(here, caplog):
    """If the data changed, a warning is logged, all numbers are written, and an earlier flips.png is removed."""
    directory = compared(name(4, 0), name(1, 0)).directories[0]
    before = (directory / "comparison.json").read_bytes()
    edited(here / name(1, 0) / "run.json", fingerprint(here / name(1, 0)), "0" * 64)
    edited(here / name(4, 0) / "run.json", fingerprint(here / name(4, 0)), "0" * 64)
    assert compared(name(4, 0), name(1, 0)).directories == [directory]
    assert "flips.png is left out: " in caplog.text
    assert sorted(path.name for path in directory.iterdir()) == [name for name in FILES if name != "flips.png"]
    assert json.loads(before)["accuracy"] == json.loads((directory / "comparison.json").read_text())["accuracy"]


def test_samples_that_are_not_images_have_no_flips_png(here, monkeypatch):
    """If the samples are not images, the other files are written."""
    monkeypatch.setattr("microstep.evaluation.comparison.compare.fetch_flip_images", lambda *words: None)
    directory = compared(name(4, 0), name(1, 0)).directories[0]
    assert "flips.png" not in [path.name for path in directory.iterdir()]


def test_a_run_directory_is_not_trusted(here, caplog):
    """The dataset of the images must be on the allowlist; the numbers need no dataset."""
    edited(here / name(1, 0) / "config.yaml", "_target_: microstep.components.dataset.digits", "_target_: os.system")
    compared(name(4, 0), name(1, 0), gate=allowlist_from([CONF]))
    assert "dataset._target_=os.system: the run directory names it, your own conf/ does not" in caplog.text


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, text
    file.write_text(text.replace(old, new), encoding="utf-8")


def fingerprint(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["data"]["fingerprint"])


A, B = name(4, 0), name(1, 0)
REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "no run": (("nowhere", B), "run=nowhere: config.yaml is not there; give the directory that a run left behind"),
    "no baseline": ((A, "nowhere"), "baseline=nowhere: config.yaml is not there; "),
    "neither": (("nowhere", "nowhere"), "baseline=nowhere: config.yaml is not there; give the directory"),
    "no match": ((f"{SWEEP}/x*", B), f"run={SWEEP}/x*: it matches no run directory; "),
    "a file in the way": ((f"{SWEEP}/*/x", B), f"run={SWEEP}/*/x: it matches no run directory; "),
    "itself": ((A, A), f"run={A}: it names only runs of the baseline; "),
    "several baselines": (
        (A, f"{SWEEP}/*d-1*"),
        f"baseline={SWEEP}/*d-1*: it matches 2 settings: epochs=1, epochs=4; ",
    ),
    "split": ((A, B, "tset"), "split=tset: no such split; the options are train, val, test"),
    "escape": ((A, B, "../../x"), "split=../../x: no such split; "),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_compared_is_one_line(here, words, said):
    """The error names the key that was typed, the reason and a remedy; nothing is written."""
    with pytest.raises(ConfigError) as caught:
        compared(*words)
    assert str(caught.value).startswith(said)
    assert not Path("outputs/comparisons").exists()


def test_a_pattern_that_matches_nothing_lists_the_nearest_names(here):
    """However little they are alike; if there are none, a run directory is asked for. Quoting is never advised."""
    with pytest.raises(ConfigError, match=f"it matches no run directory; the nearest are {SWEEP}/epochs-"):
        compared(A, f"{SWEEP}/*zz?*")
    with pytest.raises(ConfigError, match="it matches no run directory; give directories with a config"):
        compared(A, f"{SWEEP}/*/reports/test/*")
    edited(here / B / "run.json", '"status": "finished"', '"status": "interrupted"')
    with pytest.raises(ConfigError, match="it matches no run that is finished; resume one of them"):
        compared(A, f"{B}*")


def test_the_same_run_twice_is_refused(here):
    """Two runs of one experiment with the same seed would count twice, so they are refused."""
    shutil.copytree(here / A, here / SWEEP / "epochs-4_again")
    with pytest.raises(ConfigError, match=f"{name(4, 0)} is the same experiment with the same seed=0; narrow"):
        compared(f"{SWEEP}/epochs-4_*", B)


def test_no_common_seed_is_refused(here):
    """Several seeds are compared seed by seed."""
    for seed in (0, 1):
        edited(here / name(1, seed) / "config.yaml", f"\nseed: {seed}\n", f"\nseed: {seed + 7}\n")
    with pytest.raises(ConfigError, match="its seeds 0, 1 and the baseline's 7, 8 have none in common; train both"):
        compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*")


def other_data(run: Path) -> None:
    edited(run / "run.json", fingerprint(run), "0123456789abcdef" * 4)


def other_classes(run: Path) -> None:
    edited(run / "reports/test/confusion_matrix.csv", ",8,9\n", ",eight,9\n")


def other_labels(run: Path) -> None:
    file = run / "reports/test/predictions.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0], *(row.replace(",4,", ",5,", 1) for row in rows[1:])]))


def other_samples(run: Path) -> None:
    file = run / "reports/test/predictions.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))


OTHERS = {
    "data": (other_data, "its data are not those of", "0123456789abcdef"),
    "classes": (other_classes, "its classes are not those of", ""),
    "labels": (other_labels, "its report is of other samples or labels than that of", ""),
    "samples": (other_samples, "its report is of other samples or labels than that of", ""),
}


@pytest.mark.parametrize(("change", "said", "theirs"), OTHERS.values(), ids=OTHERS)
def test_other_data_are_refused_with_both_fingerprints(here, change, said, theirs):
    """Different data, classes, samples or labels cannot be compared."""
    known = fingerprint(here / A)[:16]
    change(here / B)
    with pytest.raises(ConfigError) as caught:
        compared(A, B)
    assert str(caught.value).startswith(f"run={A}: {said} baseline={B} (data {theirs or known}, not {known}); ")


HEAD = "index,label,prediction,confidence\n"
DAMAGES = {
    "empty": "",
    "no table": "\0\0",
    "other columns": "index,label,guess,confidence\n0,0,0,0.5\n1,1,1,0.5\n",
    "one sample": f"{HEAD}0,0,0,0.5\n",
    "no number": f"{HEAD}0,0,0,0.5\n1,one,1,0.5\n",
    "a huge number": f"{HEAD}0,0,0,0.5\n{10**30},1,1,0.5\n",
    "no class": f"{HEAD}0,0,0,0.5\n1,1,10,0.5\n",
    "a negative class": f"{HEAD}0,0,0,0.5\n1,-1,1,0.5\n",
    "a sample twice": f"{HEAD}1,1,0,0.5\n1,1,1,0.5\n",
    "no confidence": f"{HEAD}0,0,0,nan\n1,1,1,0.5\n",
    "a short row": f"{HEAD}0,0,0,0.5\n1,1\n",
    "an open quote": f'{HEAD}0,0,0,0.5\n1,1,1,"0.5\n',
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_report_is_one_line(here, content):
    """Any predictions.csv that is not a valid table of classes is refused with its name."""
    file = Path(A) / "reports/test/predictions.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        compared(A, B)
    assert str(caught.value).startswith(f"{file}: it is damaged: ")
    assert "\n" not in str(caught.value)


def test_classes_that_are_not_named_are_refused(here):
    """The confusion matrix must name the classes."""
    (here / A / "reports/test/confusion_matrix.csv").write_text("")
    with pytest.raises(DataError, match="it is damaged: it names no classes; evaluate the run again"):
        compared(A, B)


PROGRAM = {
    "data": (("run=a", "baseline=b"), "run=a: its data are not those of baseline=b (data "),
    "input": (("run=a", "baseline=b", "input=x"), "input=x: images without labels can't compare runs; "),
}


@pytest.mark.parametrize(("words", "said"), PROGRAM.values(), ids=PROGRAM)
def test_the_program_refuses_with_exit_code_2(zygote, here, words, said):
    """One line on stderr, and nothing is written."""
    for link, run in (("a", A), ("b", B)):
        shutil.copytree(here / run, here / link)
    other_data(here / "b")
    assert zygote.run("evaluate.py", *words, cwd=here) == 2
    lines = (here / "output.txt").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {said}")
    assert not (here / "outputs/comparisons").exists()


def test_runs_trained_by_different_source_or_versions_are_told_of(here):
    """The text and comparison.json have what differs; nothing is said if nothing does."""
    pattern = f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*"
    made = compared(*pattern)
    assert "warning" not in made.text
    assert json.loads((made.directories[0] / "comparison.json").read_text())["training_differences"] == {}
    file = here / name(4, 1) / "run.json"
    facts = json.loads(file.read_text())
    source, torch = facts["source_hash"][:8], facts["versions"]["torch"]
    facts["versions"]["torch"] = "1.0\x1b"
    file.write_text(json.dumps(facts | {"source_hash": "0123456789"}))
    made = compared(*pattern)
    told = f"the runs were not all trained by the same source {source}, 01234567; torch {torch}, 1.0\\x1b"
    assert told in made.text
    assert told in (made.directories[0] / "comparison.txt").read_text()
    found = json.loads((made.directories[0] / "comparison.json").read_text())["training_differences"]
    assert found == {"source": f"{source}, 01234567", "torch": f"{torch}, 1.0\\x1b"}


def model_of_ones_own(run, source):
    """Let a run be of a model named as ours, whose source is hashed with microstep's."""
    edited(run / "config.yaml", "_target_: microstep.components.model.mlp", "_target_: mine.mlp")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"source_hash": source}))


def test_the_source_is_compared_between_runs_of_the_same_packages(here):
    """A model of one's own adds its package to the source, which is no edit; an edit of it is one."""
    for seed in (0, 1):
        model_of_ones_own(here / name(4, seed), "of microstep and mine")
    made = compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*")
    assert "warning" not in made.text
    record = json.loads((here / name(4, 1) / "run.json").read_text())
    (here / name(4, 1) / "run.json").write_text(json.dumps(record | {"source_hash": "edited"}))
    made = compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*")
    assert "the runs were not all trained by the same source of micro, edited" in made.text


def test_components_of_one_name_are_told_apart_by_their_targets(here):
    """A model of one's own may have the name of a built-in one."""
    model_of_ones_own(here / name(4, 0), "of both")
    (one,) = compared(name(4, 0), name(1, 0)).comparisons
    assert "model mine.mlp, not microstep.components.model.mlp; " in comparison_report_text(one)


def test_names_come_from_settings_not_from_directories(here):
    """A sweep over seeds names its runs `seed-0` and `seed-1`."""
    for sweep, epochs in (("short", 1), ("long", 4)):
        for seed in (0, 1):
            shutil.copytree(here / name(epochs, seed), here / sweep / f"seed-{seed}")
    (one,) = compared("long/*", "short/*").comparisons
    assert one.names == ("epochs=4", "epochs=1")


def test_runs_are_grouped_by_the_content_of_their_files(here):
    """Seeds that began with the same weights in other places are one group; with other weights they are two."""
    for seed, place in ((0, "a.pt"), (1, "b/c.pt")):
        edited(here / name(4, seed) / "config.yaml", "dropout: 0.0", f"dropout: 0.0\n  weights: {place}")
        edited(here / name(4, seed) / "run.json", '"files": {}', '"files": {"model.weights": "1234"}')
    (found,) = compared(f"{SWEEP}/epochs-4_*", f"{SWEEP}/epochs-1_*").comparisons
    assert found.match.run.seeds == [0, 1]
    assert "files.model.weights 1234, not null" in comparison_report_text(found)
    edited(here / name(4, 1) / "run.json", '"1234"', '"5678"')
    with pytest.raises(ConfigError, match="it matches 2 settings"):
        compared(f"{SWEEP}/epochs-1_*", f"{SWEEP}/epochs-4_*")


@pytest.mark.parametrize(
    "content",
    ["", "index,f1\n", "index\n1\n", "index,f1\n1,1\n", "i,f\n1,1\n1,0\n", "i,f\n1,nan\n2,1\n", "i,f\n1,x\n2,1\n"],
)
def test_damaged_scores_are_one_line(tmp_path, content) -> None:
    """Scores that are missing, no numbers or of a sample twice are named with the way out."""
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(DataError, match=r"scores\.csv: it is damaged: .*; evaluate the run again"):
        read_report(tmp_path)
