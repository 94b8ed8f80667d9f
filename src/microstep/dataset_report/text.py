"""Formats a data set's statistics and health as text."""

from collections import Counter
from collections.abc import Mapping, Sequence

from microstep.components.dataset.images import ImageSource
from microstep.dataset_report.health import MIN_CLASS_SIZE, DuplicateGroup, HealthReport
from microstep.dataset_report.sampling import count_labels
from microstep.dataset_report.statistics import SplitStatistics
from microstep.utils.tables import format_table

MAX_LISTED_CLASSES = 30
MAX_LISTED_LINES = 10  #: of each kind of problem


def format_statistics_row(split_statistics: SplitStatistics) -> str:
    channels, errors = split_statistics.statistics, split_statistics.errors
    mean = format_with_errors(channels.mean, errors.mean if errors else None)
    std = format_with_errors(channels.std, errors.std if errors else None)
    low, high = format_range_ends(channels.minimum), format_range_ends(channels.maximum)
    complete = channels.count == split_statistics.population and errors is None
    notes = [f"{channels.count:,}{'' if complete else f' of {split_statistics.population:,}'} images"]
    notes += ["exact"] if errors is None else []
    notes += [f"{split_statistics.unreadable:,} unreadable"] if split_statistics.unreadable else []
    return f"mean {mean}  std {std}  min {low}  max {high}  ({', '.join(notes)})"


def format_with_errors(values: Sequence[float], errors: Sequence[float] | None = None) -> str:
    if errors is None:
        return ", ".join(f"{value:.4f}" for value in values)
    return ", ".join(f"{value:.4f} ± {error:.4f}" for value, error in zip(values, errors, strict=True))


def format_range_ends(values: Sequence[float]) -> str:
    """Return minima or maxima by channel, or one number if all channels have the same."""
    return f"{values[0]:.4g}" if len(set(values)) == 1 else format_with_errors(values)


def format_yaml_snippet(statistics: Mapping[str, SplitStatistics]) -> str:
    found = find_main_split(statistics)[1].statistics
    return f"mean: [{format_with_errors(found.mean)}]\nstd: [{format_with_errors(found.std)}]"


def find_main_split(statistics: Mapping[str, SplitStatistics]) -> tuple[str, SplitStatistics]:
    name = "train" if "train" in statistics else next(iter(statistics))
    return name, statistics[name]


def format_class_table(statistics: Mapping[str, SplitStatistics], official_splits: Mapping[str, ImageSource]) -> str:
    name, one = find_main_split(statistics)
    counts = [count_labels(source.labels, len(source), len(one.class_names)) for source in official_splits.values()]
    lines = [["classes", *official_splits, f"mean ({name})"]]
    for label, mean in enumerate(one.classes.means):
        cells = [f"{count[label]:,}" for count in counts]
        lines.append([one.class_names[label], *cells, format_with_errors(mean) if mean else "–"])
    table = format_table(lines[: MAX_LISTED_CLASSES + 1], f"<{'>' * len(official_splits)}<")
    return "\n".join([*table, *format_omitted_line(len(lines) - 1 - MAX_LISTED_CLASSES, "  ")])


def format_image_sizes(sizes: Counter[tuple[int, int]]) -> str:
    if len(sizes) < 2:
        return "".join(f"all {w} × {h}" for w, h in sizes) or "unknown"
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    (least_w, least_h), (most_w, most_h) = ordered[0], ordered[-1]
    common = ", ".join(f"{w} × {h} ({count:,})" for (w, h), count in sizes.most_common(3))
    return f"{least_w} × {least_h} to {most_w} × {most_h}, {len(sizes):,} different; most often {common}"


def format_omitted_line(count: int, indent: str) -> list[str]:
    return [f"{indent}… and {count:,} more, all in the JSON"] if count > 0 else []


def format_health(health: HealthReport, options: Sequence[str]) -> str:
    """Return the problems found, with long lists truncated, the checks passed, and advice."""
    counts = {split: "" if n == of else f": {n:,} of {of:,} images" for split, (n, of) in health.checked.items()}
    lines = [f"  health of {', '.join(split + count for split, count in counts.items())}"]
    for heading, items in format_problems(health).items():
        lines += [f"    {heading}", *(f"      {one}" for one in items[:MAX_LISTED_LINES])]
        lines += format_omitted_line(len(items) - MAX_LISTED_LINES, "      ")
    if passed := format_passed_checks(health):
        lines.append(f"    no {', no '.join(passed)}")
    return "\n".join([*lines, *(f"    {advice}" for advice in format_advice(health, options))])


def format_problems(health: HealthReport) -> dict[str, list[str]]:
    """Return the problems found: heading → lines. Leaks come first among duplicates."""
    duplicates = sorted(health.duplicates, key=lambda one: not one.is_leak)
    small = [f"{name}: {count}" for name, count in health.small_classes.items()]
    problems = {
        f"unreadable: {len(health.unreadable):,}": list(map(str, health.unreadable)),
        format_duplicates_heading(health): list(map(format_duplicate_group, duplicates)),
        f"images of one color: {len(health.constant_images):,}": list(map(str, health.constant_images)),
        f"classes with fewer than {MIN_CLASS_SIZE} training images: {len(small):,}": small,
        "cropped most (dataset.fit=pad or squash shows all of an image)": list(map(str, health.cropped)),
    }
    for split, names in health.absent_classes.items():
        problems[f"classes absent in {split}: {len(names):,}"] = list(names)
    return {heading: lines for heading, lines in problems.items() if lines}


def format_duplicate_group(group: DuplicateGroup) -> str:
    names = [str(member) for member in group.members[:MAX_LISTED_LINES]]
    more = [f"{len(group.members) - MAX_LISTED_LINES:,} more"] if len(group.members) > MAX_LISTED_LINES else []
    labels = ", ".join(dict.fromkeys(member.label for member in group.members))
    return " = ".join([*names, *more]) + (f" (labels differ: {labels})" if group.is_conflicting else "")


def format_duplicates_heading(health: HealthReport) -> str:
    groups = health.count_groups()
    kinds = [f"{count:,} within {split}" for split, count in groups["within"].items() if count]
    kinds += [f"{groups['across']:,} across splits, which are leaks"] if groups["across"] else []
    kinds += [f"{groups['conflicting']:,} with different labels"] if groups["conflicting"] else []
    return f"groups of duplicates, the same pixels at this size: {len(health.duplicates):,} ({', '.join(kinds)})"


def format_passed_checks(health: HealthReport) -> list[str]:
    problems = {
        "unreadable files": health.unreadable,
        "duplicates": health.duplicates,
        "images of one color": health.constant_images,
        f"class with fewer than {MIN_CLASS_SIZE} training images": health.small_classes
        or health.absent_classes.get("train"),
    }
    return [name for name, found in problems.items() if not found]


def format_advice(health: HealthReport, options: Sequence[str]) -> list[str]:
    is_sample = any(checked < population for checked, population in health.checked.values())
    advice = ["only a sample was checked: omit ratio= to check all images"] if is_sample else []
    if len(health.checked) < len(options):
        advice.append(f"to find leaks between splits: split={','.join(options)}")
    return advice
