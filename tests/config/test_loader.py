"""A config that is composed from a cached one is the same as Hydra's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from microstep.config.compose import Composer
from microstep.config.loader import CachingLoader
from microstep.config.search_path import CONF, search_path

JOBS = (
    ["seed=1"],
    ["seed=2", "precision=amp", "epochs=3", "hydra.sweep.subdir='a b'"],
    ["optimizer.lr=0.5", "batch_size=7"],
    ["~scheduler", "seed=3"],
    ["seed=4", "threads=${seed}", "hydra.mode=MULTIRUN"],
    ["model=mlp", "model.hidden=[8,9]", "+dataset.x={a: 1}"],
    ["seed=5", "seed=6", "hydra.job.chdir=true"],
)


@pytest.fixture
def loaders() -> Iterator[tuple[ConfigLoaderImpl, CachingLoader]]:
    with Composer.open(CONF, "train"):
        yield ConfigLoaderImpl(search_path(CONF, None)), CachingLoader(search_path(CONF, None))


def load(loader: ConfigLoaderImpl, overrides: list[str]) -> DictConfig:
    return loader.load_configuration("train", overrides, RunMode.RUN, from_shell=False)


def test_a_job_has_hydras_config(loaders: tuple[ConfigLoaderImpl, CachingLoader]) -> None:
    """Values, options and Hydra's own node are those of a fresh composition, whatever was composed before."""
    for overrides in (*JOBS, *JOBS):
        expected, found = (load(loader, overrides) for loader in loaders)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
        assert OmegaConf.is_struct(found)
        found.seed = 99  # a job may change its config


@pytest.mark.parametrize("overrides", [["seed=x"], ["sead=1"], ["optimizer.lr.x=1"], ["model=none"], ["seed={a: 1}"]])
def test_a_mistake_is_hydras_error(loaders: tuple[ConfigLoaderImpl, CachingLoader], overrides: list[str]) -> None:
    """The message does not depend on the cache."""
    messages = []
    for loader in (*loaders, loaders[1]):
        with pytest.raises(HydraException) as raised:
            load(loader, overrides)
        messages.append(f"{raised.value}{raised.value.__cause__}")
    assert len(set(messages)) == 1


def test_options_in_a_further_directory_are_found(
    loaders: tuple[ConfigLoaderImpl, CachingLoader], tmp_path: Path
) -> None:
    """Options and groups below `hydra.searchpath` are those that Hydra finds."""
    (tmp_path / "model" / "part").mkdir(parents=True)
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [part: a, _self_]")
    for name in "ab":
        (tmp_path / "model" / "part" / f"{name}.yaml").write_text(f"x: {name}")
    overrides = [f"hydra.searchpath=[{tmp_path}]", "model=mine", "model/part=b", "seed=3"]
    expected, found = (load(loader, overrides) for loader in loaders)
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
    assert (found.model.part.x, found.seed) == ("b", 3)
