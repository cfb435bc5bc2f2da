"""A run that is worse than what takes no training is told so, with what to change."""

from typing import Any

import pytest

from vaekit.config import ModelConfig, TrainConfig
from vaekit.runs.verdict import judge, lines


def rows(*test_losses: float, kl: float = 20.0, steps: int = 1000) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "step": steps * epoch, "test_loss": loss, "test_kl": kl}
        for epoch, loss in enumerate(test_losses)
    ]


def baselines(vae: float, pca: float | None = 0.02, mean: float = 0.05) -> dict[str, Any]:
    return {
        "vae": {"mse": vae, "psnr": 17.0},
        "mean_image": {"mse": mean, "psnr": 13.0, "nats": None},
        "pca": [] if pca is None else [{"components": 10, "mse": pca, "psnr": 16.0}],
    }


WELL = rows(200, 110, 105, 104, 103)


@pytest.mark.parametrize(
    ("measured", "table", "words"),
    [
        (baselines(0.01), WELL, ["better than PCA with as many numbers", "MSE 0.0100"]),
        (baselines(0.01, None), WELL, ["better than the mean image"]),
        (baselines(0.03), WELL, ["WORSE than PCA", "10 components 0.0200", "--learning_rate"]),
        (baselines(0.06), WELL, ["WORSE than the mean image", "mean image 0.0500"]),
        (baselines(0.05), WELL, ["WORSE than the mean image"]),
        (baselines(0.06, None), WELL, ["WORSE than the mean image"]),
        (baselines(0.03), WELL[:3], ["go on to the end, 2 of 4 epochs are done"]),
        (
            baselines(0.03),
            rows(200, 110, 105, 104, 103, steps=13),
            ["--epochs 154, since 52 steps teach little"],
        ),
        (
            baselines(0.03),
            rows(200, 110, 105, 104, 103, kl=0.3),
            ["a lower --learning_rate, since the latents hold next to nothing (0.30 nats"],
        ),
        (
            baselines(0.03),
            rows(200, 110, 105, 109, 115),
            ["--data.validation 0.1, to keep the best epoch", "rose after epoch 2"],
        ),
        (baselines(0.03), [], ["WORSE than PCA"]),
    ],
)
def test_reconstructions_are_judged_by_pca_and_the_mean_image(
    measured: dict[str, Any], table: list[dict[str, Any]], words: list[str]
) -> None:
    verdicts = judge(TrainConfig(epochs=4, augment=False), table, measured)
    told = "\n".join(lines(verdicts))
    for each in words:
        assert each in told
    assert ("to change" in told) == told.startswith("WORSE")


def test_who_loses_to_components_is_told_how_to_start_from_them() -> None:
    def told(*model: Any, thumbnail: bool = False) -> str:
        config = TrainConfig(
            epochs=4, augment=False, model=ModelConfig(*model, thumbnail=thumbnail)
        )
        return "\n".join(lines(judge(config, WELL, baselines(0.03))))

    assert "--model.likelihood gaussian" in told("conv", "bernoulli")
    assert "--model.likelihood gaussian" not in told("conv", "gaussian")
    assert "--model.likelihood gaussian" not in told("reference", "bernoulli")
    assert "--model.thumbnail false" in told("conv", "gaussian", thumbnail=True)
    assert "--model.thumbnail false" not in told("conv", "gaussian")
    assert "--model.thumbnail" not in told("conv", "bernoulli", thumbnail=True)


def svm(own: float, pca: tuple[float, ...], majority: float, **more: Any) -> dict[str, Any]:
    def both(accuracy: float) -> dict[str, float]:
        return {"accuracy": accuracy, "balanced_accuracy": accuracy / 2}

    simpler = [{"components": 10 * n, **both(each)} for n, each in enumerate(pca, 1)]
    found = {"majority": {"name": "cat", **both(majority)}, "pca": simpler}
    return {**both(own), "class_weight": None, "baselines": found, **more}


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (svm(0.95, (0.90, 0.94), 0.2), "better than the same SVM on PCA: the SVM's accuracy is"),
        (svm(0.95, (0.90, 0.96), 0.2), "WORSE than the same SVM on PCA"),
        (svm(0.95, (0.90, 0.96), 0.2), "on 20 components 0.9600, saying cat of each 0.2000"),
        (svm(0.95, (0.90, 0.95), 0.2), "no better than the same SVM on PCA"),
        (svm(0.30, (), 0.2), "better than naming the commonest class"),
        (svm(0.20, (0.1,), 0.2), "WORSE than naming the commonest class"),
        (svm(0.9, (), 0.2, class_weight="balanced"), "the SVM's balanced accuracy is 0.4500"),
    ],
)
def test_the_svm_is_judged_by_the_same_one_on_pca(metrics: dict[str, Any], words: str) -> None:
    assert words in "\n".join(lines(judge(TrainConfig(), [], None, metrics)))


def test_of_an_old_svm_nothing_is_said() -> None:
    assert judge(TrainConfig(), [], None, {"accuracy": 0.5}) == []
