"""What is said of a sweep, in order: what is best, what did it, how it went there, what it cost, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from microstep.files import shortened
from microstep.summary import tables
from microstep.summary.batch import Confounded, confounded
from microstep.summary.document import Block, Charts, Command, Document, Facts, Paragraph, Section, counted, spread
from microstep.summary.effects import Effect, main_effects
from microstep.summary.reading import STATUSES, Run
from microstep.summary.study import Study

LEVELS, LETTERS = 8, 24  #: of a key's values in the lead
SHARED = {"dataset": "data", "model": "model", "precision": "precision", "optimizer": "optimizer"}  #: groups → words


def document_of(study: Study) -> Document:
    """Return a sweep's whole summary."""
    sections = (leaderboard(study), effects(study), curves(study), costs(study), missing(study), everything(study))
    return Document(study.sweep.name, tuple(lead(study)), tuple(section for section in sections if section.blocks))


def lead(study: Study) -> Iterator[Block]:
    """Yield what comes first: the command, how it went, what is best."""
    if study.sweep.command:
        yield Command(study.sweep.command)
    yield Paragraph(f"{how_it_went(study)}.")
    yield from verdict(study)
    yield facts(study)


def how_it_went(study: Study) -> str:
    """Return how many runs there are of each status."""
    counts = Counter(run.status for run in study.runs)
    said = [f"{counts[status]:,} {status}" for status in STATUSES if counts[status]]
    return f"{counted(len(study.runs), 'run')}: {', '.join(said)}" if said else "No run yet"


def verdict(study: Study) -> Iterator[Block]:
    """Yield which setting is best, and whether these runs can tell."""
    if not study.settings:
        yield Paragraph("No run has finished yet: there is nothing to compare.", weighty=True)
        return
    best, *rest = study.settings
    runs = f"{counted(len(best.runs), 'run')}"
    test = f"; test {spread(best.test)}" if best.test else ""
    yield Paragraph(f"Best by validation: {best.label}, {study.monitor} {spread(best.val)} over {runs}{test}.", True)
    if not rest:
        return
    deviations = [s.val.deviation for s in (best, rest[0]) if s.val.deviation is not None]
    if not deviations:
        yield Paragraph("Each setting has one run: how much of this is the seed can't be told. seed=0,1,2 would tell.")
    elif abs(best.val.mean - rest[0].val.mean) <= max(deviations):
        yield Paragraph("The second lies within the spread of its runs: these runs alone don't tell the two apart.")


def facts(study: Study) -> Facts:
    """Return what all runs have in common, and what they took."""
    rows = [("ranked on", f"validation {study.monitor}, {tables.better(study)}")] if study.monitor else []
    for group, word in SHARED.items():
        found = {option for run in study.runs if (option := run.choice(group))}
        rows += [(word, next(iter(found)))] if len(found) == 1 and group not in study.keys else []
    rows += [(f"{key}, swept", listed(study.levels(key))) for key in study.keys]
    seconds = [value for run in study.scored if (value := run.number("train_seconds")) is not None]
    rows += [("training", f"{sum(seconds):,.0f} s in {counted(len(seconds), 'run')}")] if seconds else []
    return Facts(tuple(rows))


def listed(levels: Sequence[str]) -> str:
    """Return a key's values; of many the first, of long ones both ends."""
    shown = [shortened(level, LETTERS) for level in levels[:LEVELS]]
    return ", ".join(shown) + (f" and {len(levels) - LEVELS:,} more" if len(levels) > LEVELS else "")


def leaderboard(study: Study) -> Section:
    """Return the ranking."""
    return Section("Leaderboard", (Charts("leaderboard"), tables.leaderboard(study)) if study.settings else ())


def effects(study: Study) -> Section:
    """Return what each key did, and what can't be said of it."""
    found = main_effects(study)
    blocks: list[Block] = []
    if any(effect.matches for effect in found):
        blocks += [Charts("effects"), tables.effects_table(found, study)]
    blocks += [Paragraph(text) for effect in found for text in remarks(effect)] if study.scored else []
    note = confounded(study)
    return Section("Main effects", (*blocks, *(entangled(note, study) if note else ())))


def remarks(effect: Effect) -> Iterator[str]:
    """Yield what a key's effect leaves out."""
    if effect.absent:
        yield f"{effect.key}: no run has finished at {', '.join(effect.absent)}."
    if not effect.matches:
        yield f"{effect.key}: no main effect, for no combination of the other keys has finished at all of its values."
    elif effect.used < effect.finished:
        left = effect.finished - effect.used
        yield (
            f"{effect.key}: the grid is incomplete. The effect is over {effect.used} of {effect.finished} finished "
            f"runs, those that have a partner at every value; {counted(left, 'other')} would tilt it."
        )


def entangled(note: Confounded, study: Study) -> Iterator[Block]:
    """Yield what `accum` changed besides itself, and how to tell the two apart."""
    sizes = ", ".join(map(str, note.sizes))
    yield Paragraph(
        f"accum changed the effective batch size as well ({sizes}): the effect shown is the batch size's too.",
        weighty=True,
    )
    if note.command:
        yield Paragraph("The same batch, cut differently, tells the two apart:")
        yield Command(note.command)


def curves(study: Study) -> Section:
    """Return how validation went, by epoch and by seconds."""
    drawn = any(run.number("epoch") for run in study.runs)
    return Section("Curves", (Charts("curves"),) if study.monitor and drawn else ())


def costs(study: Study) -> Section:
    """Return speed against what is reached."""
    title = f"Speed against {study.monitor}"
    return Section(title, (Charts("speed"), tables.costs(study)) if study.settings else ())


def missing(study: Study) -> Section:
    """Return the runs without a result, and what makes up for them."""
    runs = [run for run in study.runs if not run.finished]
    other = [run for run in study.runs if run.finished and run not in study.scored]
    blocks: list[Block] = [tables.missing(study)] if runs else []
    if other:
        blocks.append(Paragraph(f"Not ranked, for they are chosen by another metric: {names_of(other)}."))
    if runs and study.sweep.command:
        blocks += [Paragraph("The same command runs just these; it skips what is finished:")]
        blocks += [Command(study.sweep.command)]
    return Section("Failures", tuple(blocks))


def names_of(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs)


def everything(study: Study) -> Section:
    """Return every run by its name."""
    return Section("Runs", (tables.every_run(study),) if study.runs else ())
