"""The report of a run: its settings, figures and pictures on one page that opens offline."""

from pathlib import Path

import yaml

from vaekit.config import to_dict
from vaekit.evaluation.probes import NUM_DRAWS
from vaekit.report import standouts
from vaekit.report.circumstances import commands, settings
from vaekit.report.drawings import (
    draw_confusion,
    draw_losses,
    draw_map,
    draw_originals,
    draw_reconstructions,
    draw_traversal,
    read_samples,
)
from vaekit.report.embedding import render
from vaekit.report.tables import commonest_confusions, comparisons, rivals, tiles
from vaekit.runs.baselines import measure_baselines
from vaekit.runs.reference import reference_for
from vaekit.runs.run import Run
from vaekit.runs.verdict import judge, lines
from vaekit.storage.files import write_text
from vaekit.training.augmentation import augmentation_told


def write_report(run: Run) -> Path:
    """Draw the figures of a run and write its report.html; the stage behind `vaekit report`.

    Parts whose input is not made yet are left out, with a sentence that says which command
    makes it. Returns the path of the page. Raises `UserError` where the run has no weights
    yet, or where something in it is damaged or does not belong to the rest.
    """
    folder, config = run.folder, run.config
    with folder.lock():
        measure_missing_baselines(run)
        rows = run.metrics
        verdicts = judge(config, rows, run.baselines, run.svm_metrics if run.has_svm else None)
        page = {
            "name": folder.path.resolve().name,
            "run": folder.quoted,
            "train_again": folder.train_again,
            "settings": settings(run),
            "config_yaml": yaml.safe_dump(to_dict(config), sort_keys=False),
            "reading": run.reading,
            "verdicts": verdicts,
            "tiles": tiles(run),
            "rivals": rivals(run),
            "num_fitted": run.baselines and run.baselines["num_fitted"],
            "comparisons": comparisons(run),
            "reference": reference_for(run.config),
            "has_labels": run.images.test.labels is not None,
            "has_latents": run.has_latents,
            "evaluation": run.evaluation if run.has_evaluation else None,
            "num_draws": NUM_DRAWS,
            "map": draw_map(run),
            "originals": draw_originals(run),
            "reconstructions": draw_reconstructions(run),
            "samples": read_samples(run),
            "losses": draw_losses(run),
            "train_images": augmentation_told(config, ", on augmented images"),
            "untrained_loss": rows[0]["test_loss"] if rows else None,
            "num_test": len(run.images.test.pixels),
            "traversal": draw_traversal(run),
            "latent_dim": config.model.latent_dim,
            "unit": run.weights.vae.likelihood.unit,
            "strangest": standouts.strangest(run),
            "examined_step": standouts.examined_step(len(run.images.test.pixels)),
            "mislabelled": standouts.mislabelled(run),
            "svm": run.svm_metrics if run.has_svm else None,
            "confusion": draw_confusion(run),
            "confusions": commonest_confusions(run),
            "commands": commands(run),
        }
        write_text(folder.report, render("vaekit.report", "page.html.jinja", page))
    for line in lines(verdicts):
        print(line, flush=True)
    print(f"report: {folder.report}", flush=True)
    return folder.report


def measure_missing_baselines(run: Run) -> None:
    """For a run of before there were any, or one whose training went on since."""
    if run.baselines is None:
        weights = run.weights
        measure_baselines(run.folder, weights.vae, run.images, weights.images_sha256)
        run.forget("baselines", "pca_scores")
