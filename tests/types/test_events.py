"""Values that loggers and users receive."""

from __future__ import annotations

from tests.conftest import fit


def test_results_show_directory_epoch_and_metrics(tmp_path):
    """In a notebook, results and their parts are a few numbers, without reports and curves."""
    results = fit(["model=mlp", "epochs=1"], tmp_path / "run")
    shown = repr(results)
    assert shown.startswith(f"Results(run_dir={tmp_path / 'run'!r}, best_epoch=1, ")
    assert f"'test': SplitResult(metrics={results.test})" in shown
    assert max(map(len, (shown, repr(results.splits), repr(results.splits["test"].report)))) < 800
