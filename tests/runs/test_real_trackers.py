"""The trackers that people have, for real and without a network, where they are installed."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_FLAGS, vaekit

from vaekit.runs.run import Run
from vaekit.runs.verdict import final_figures

pytestmark = pytest.mark.slow


def of_tensorboard(place: Path) -> dict[str, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in place.glob("run/trackers/vaekit/events*")}
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    return {
        "losses": [each.value for each in events.Scalars("test_loss")],
        "steps": [each.step for each in events.Scalars("kl")],
        "pictures": sorted(tags["images"]),
        "final": {
            tag: [each.value for each in events.Scalars(tag)]
            for tag in tags["scalars"]
            if tag.startswith("final/")
        },
    }


def of_mlflow(place: Path) -> dict[str, Any]:
    import mlflow

    client = mlflow.MlflowClient(f"file:{place / 'mlruns'}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.data.params["epochs"] == "2"
    history = client.get_metric_history
    return {
        "losses": [each.value for each in history(run.info.run_id, "test_loss")],
        "steps": [each.step for each in history(run.info.run_id, "kl")],
        "pictures": sorted(each.path for each in client.list_artifacts(run.info.run_id)),
        "final": {
            key: [each.value for each in history(run.info.run_id, key)]
            for key in run.data.metrics
            if key.startswith("final/")
        },
    }


def of_trackio(place: Path) -> dict[str, Any]:
    import sqlite3

    (database,) = place.rglob("vaekit*.db")
    with sqlite3.connect(database) as opened:
        rows = opened.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    opened.close()
    logged = [(step, json.loads(values)) for step, values in rows]
    return {
        "losses": [values["test_loss"] for _, values in logged if "test_loss" in values],
        "steps": [step for step, values in logged if "kl" in values],
        "pictures": sorted({key for _, values in logged for key in values} & PICTURES),
        "final": {
            key: [value]
            for _, values in logged
            for key, value in values.items()
            if key.startswith("final/")
        },
    }


def of_wandb(place: Path) -> dict[str, Any]:
    """A binary log, of which only the pictures are files."""
    (media,) = place.glob("wandb/offline-run-*/files/media/images")
    return {"pictures": sorted({path.name.split("_")[0] for path in media.iterdir()})}


PICTURES = {"samples", "reconstructions"}
READERS = {
    "tensorboard": of_tensorboard,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
    "wandb": of_wandb,
}


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_has_every_loss_apart_and_the_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # no server, and no database either
    pytest.importorskip(name)
    flags = [*TINY_FLAGS, "--run", "run", "--tracker", name]
    offline = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path / 'mlruns'}",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HOME": str(tmp_path / "hub"),
    }
    result = vaekit("train", *flags, cwd=tmp_path, **offline)
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = READERS[name](tmp_path)
    assert found["pictures"] == sorted(PICTURES)
    if "losses" in found:
        assert found["losses"] == pytest.approx([row["test_loss"] for row in rows], rel=1e-5)
        assert found["steps"] == [6, 12]
        assert found["final"] == {
            name: [pytest.approx(value, rel=1e-5)]
            for name, value in final_figures(rows, Run(tmp_path / "run").baselines).items()
        }
        assert "final/test_mse_of_pca" in found["final"]
