import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from cuml_helpers import play_cuml
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from vaekit.config import DataConfig, ModelConfig, SvmConfig, TrainConfig
from vaekit.errors import UserError
from vaekit.models.vae import VAE
from vaekit.runs.folder import RunFolder
from vaekit.runs.reference import REFERENCE_MNIST, reference_for
from vaekit.settings import write_config
from vaekit.stages import svm
from vaekit.stages.latents import read_latents
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed
from vaekit.storage.tensors import read_tensors, write_tensors
from vaekit.svm.backend import choose_backend

NUM_TRAIN = 900
DIGIT_NAMES = tuple("0123456789")


class Split(NamedTuple):
    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]


load_digits_once = cache(load_digits)


def digits(num_features: int, classes: tuple[int, ...] = tuple(range(10))) -> Split:
    """Principal components of 8x8 digits in the place of latents, of unlike scales."""
    pixels, labels = load_digits_once(return_X_y=True)
    kept = np.isin(labels, classes)
    # float64 first: scikit-learn chooses its solver by type, the rounding is ours
    features = PCA(num_features, svd_solver="full").fit_transform(pixels)[kept].astype(np.float32)
    labels = labels[kept].astype(np.int64)
    num_train = NUM_TRAIN * len(features) // len(pixels)
    return Split(features[:num_train], labels[:num_train], features[num_train:], labels[num_train:])


def fit_scikit_learn(split: Split, config: SvmConfig, break_ties: bool = True) -> Pipeline:
    gamma = config.gamma / split.train.shape[1]
    model = make_pipeline(StandardScaler(), SVC(C=config.C, gamma=gamma, break_ties=break_ties))
    return model.fit(split.train.astype(np.float64), split.train_labels)


def fit_table(split: Split, config: SvmConfig) -> svm.SvmTable:
    return svm.fit_table(split.train, split.train_labels, config)


@pytest.fixture(scope="module")
def fitted() -> svm.Svm:
    split = digits(20)
    return svm.Svm(fit_table(split, SvmConfig()), DIGIT_NAMES, "a" * 64, "b" * 64)


@pytest.mark.parametrize("classes", [(3, 8), (0, 4, 9), tuple(range(10))])
@pytest.mark.parametrize("config", [SvmConfig(), SvmConfig(C=0.1, gamma=3.0)])
def test_labels_scores_and_decisions_are_those_of_scikit_learn(
    classes: tuple[int, ...], config: SvmConfig
) -> None:
    split = digits(20, classes)
    prediction = svm.predict(fit_table(split, config), split.test)
    oracle = fit_scikit_learn(split, config)
    test = split.test.astype(np.float64)

    np.testing.assert_array_equal(prediction.labels, oracle.predict(test))
    num_pairs = len(classes) * (len(classes) - 1) // 2
    assert prediction.decisions.shape == (len(test), num_pairs)
    assert prediction.scores.shape == (len(test), len(classes))
    if len(classes) > 2:
        np.testing.assert_allclose(prediction.scores, oracle.decision_function(test), atol=1e-9)
        oracle["svc"].set_params(decision_function_shape="ovo", break_ties=False)
    decisions = oracle.decision_function(test).reshape(len(test), num_pairs)
    np.testing.assert_allclose(prediction.decisions, decisions, atol=1e-9)


def test_tied_votes_are_broken_as_scikit_learn_breaks_them() -> None:
    split = digits(2)
    oracle = fit_scikit_learn(split, SvmConfig()).predict(split.test.astype(np.float64))
    first_wins = fit_scikit_learn(split, SvmConfig(), break_ties=False).predict(
        split.test.astype(np.float64)
    )
    assert (oracle != first_wins).any()  # else there is no tie to break

    prediction = svm.predict(fit_table(split, SvmConfig()), split.test)

    np.testing.assert_array_equal(prediction.labels, oracle)


def test_of_two_classes_the_predicted_one_has_the_vote_and_the_higher_score() -> None:
    split = digits(2, (3, 8))
    prediction = svm.predict(fit_table(split, SvmConfig()), split.test)
    second = prediction.labels == 8

    assert set(prediction.labels) == {3, 8}
    np.testing.assert_array_equal(prediction.decisions[:, 0] > 0, second)
    np.testing.assert_array_equal(prediction.scores[:, 1] > 0.5, second)
    np.testing.assert_array_equal(prediction.scores[:, 0] > 0.5, ~second)
    np.testing.assert_allclose(prediction.scores.sum(axis=1), 1)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.injects(16)
def test_latents_that_are_all_the_same_get_the_label_that_scikit_learn_gives(
    num_classes: int,
) -> None:
    same = np.full((6 * num_classes, 4), 0.25, np.float32)  # every feature constant
    labels = np.arange(6 * num_classes) % num_classes
    split = Split(same, labels, same, labels)

    prediction = svm.predict(fit_table(split, SvmConfig()), same)

    oracle = fit_scikit_learn(split, SvmConfig()).predict(same)
    np.testing.assert_array_equal(prediction.labels, oracle)


def test_classes_of_very_unequal_size_are_told_apart_as_by_scikit_learn() -> None:
    whole = digits(20, (1, 5, 8))
    rare = np.flatnonzero(whole.train_labels == 5)[:4]
    kept = np.sort(np.concatenate([np.flatnonzero(whole.train_labels != 5), rare]))
    split = whole._replace(train=whole.train[kept], train_labels=whole.train_labels[kept])

    table = fit_table(split, SvmConfig())

    assert table.num_support.min() <= 4 < table.num_support.max()
    oracle = fit_scikit_learn(split, SvmConfig()).predict(split.test.astype(np.float64))
    np.testing.assert_array_equal(svm.predict(table, split.test).labels, oracle)


def test_labels_are_indices_into_all_class_names_where_some_have_no_training_images() -> None:
    split = digits(20, (2, 7))
    table = fit_table(split, SvmConfig())
    assert table.classes.tolist() == [2, 7]
    assert set(svm.predict(table, split.test).labels) == {2, 7}


def test_predictions_do_not_depend_on_how_many_images_are_predicted_at_once(
    fitted: svm.Svm, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = digits(20).test
    whole = svm.predict(fitted.table, test)
    monkeypatch.setattr(svm, "MAX_KERNEL_VALUES", 7 * len(fitted.table.support_vectors) + 1)
    chunked = svm.predict(fitted.table, test)
    monkeypatch.setattr(svm, "MAX_KERNEL_VALUES", 1)
    one_by_one = svm.predict(fitted.table, test[:20])

    np.testing.assert_array_equal(chunked.labels, whole.labels)
    np.testing.assert_allclose(chunked.decisions, whole.decisions, atol=1e-12)
    np.testing.assert_array_equal(one_by_one.labels, whole.labels[:20])
    np.testing.assert_allclose(one_by_one.decisions, whole.decisions[:20], atol=1e-12)


def test_no_images_get_no_labels(fitted: svm.Svm) -> None:
    prediction = svm.predict(fitted.table, np.empty((0, 20), np.float32))
    assert prediction.labels.shape == (0,)
    assert prediction.scores.shape == (0, 10)
    assert prediction.decisions.shape == (0, 45)


@pytest.mark.injects(16)
def test_latents_that_are_not_finite_are_refused_with_their_number(fitted: svm.Svm) -> None:
    split = digits(20)
    split.train[3, 0] = np.nan
    split.train[8, [1, 2]] = np.inf
    with pytest.raises(UserError, match=r"training latents: 2 of 900 rows are not finite"):
        fit_table(split, SvmConfig())
    with pytest.raises(UserError, match=r"2 of 900 rows are not finite"):
        svm.predict(fitted.table, split.train)


@pytest.mark.injects(16)
def test_one_class_alone_is_refused() -> None:
    split = digits(20, (4,))
    with pytest.raises(UserError, match="an SVM needs at least two classes"):
        fit_table(split, SvmConfig())


def test_a_table_read_back_is_the_one_that_was_written(fitted: svm.Svm, tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    svm.write_table(path, fitted)
    read = svm.read_table(path)

    assert read[1:] == fitted[1:]
    for name, array in vars(fitted.table).items():
        np.testing.assert_array_equal(getattr(read.table, name), array, strict=True)
    test = digits(20).test
    before, after = svm.predict(fitted.table, test), svm.predict(read.table, test)
    np.testing.assert_array_equal(after.decisions, before.decisions)


@pytest.mark.injects(5)
def test_a_truncated_table_is_refused(fitted: svm.Svm, tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    svm.write_table(path, fitted)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"svm\.safetensors: not a whole safetensors file"):
        svm.read_table(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("intercepts", None, "holds the tensors"),
        ("bias", np.zeros(1), "holds the tensors"),
        ("intercepts", np.zeros(44), r"intercepts is \(44,\), expected \(45,\)"),
        ("intercepts", np.zeros(45, np.float32), "intercepts is torch.float32"),
        ("support_vectors", np.zeros((10, 20)), "dual_coefficients is"),
        ("support_vectors", np.zeros(20), "support_vectors is"),
        ("num_support", np.ones(10, np.int64), "num_support does not part"),
        ("feature_mean", np.full(20, np.nan), "feature_mean has values that are not finite"),
        ("feature_scale", np.zeros(20), "feature_scale or gamma is not above 0"),
        ("classes", np.arange(1, 11), "expected indices into 10 names"),
        ("classes", np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 8]), "expected indices into 10 names"),
    ],
)
@pytest.mark.injects(16)
def test_a_damaged_table_is_refused_with_what_is_wrong(
    fitted: svm.Svm, tmp_path: Path, name: str, value: NDArray[np.float64] | None, message: str
) -> None:
    path = tmp_path / "svm.safetensors"
    svm.write_table(path, fitted)
    kind = {"format_name": "vaekit-svm", "version": 1}
    arrays, facts = read_tensors(path, **kind, remedy="")
    if value is None:
        del arrays[name]
    else:
        arrays[name] = torch.from_numpy(value)
    write_tensors(path, arrays, facts, **kind)

    with pytest.raises(UserError, match=message):
        svm.read_table(path)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "svm.safetensors"
    write_tensors(path, {"gamma": torch.ones(1)}, {}, format_name="vaekit-svm", version=2)
    with pytest.raises(UserError, match="expected vaekit-svm version 1"):
        svm.read_table(path)


def write_latents(run: RunFolder, split: Split, class_names: tuple[str, ...]) -> None:
    """What `vaekit latents` writes, of given values."""
    run.latents.mkdir(exist_ok=True)
    arrays = {
        "train_latents.npy": split.train,
        "train_labels.npy": split.train_labels,
        "test_latents.npy": split.test,
        "test_labels.npy": split.test_labels,
    }
    if not class_names:
        del arrays["train_labels.npy"], arrays["test_labels.npy"]
    for name, array in arrays.items():
        np.save(run.latents / name, array)
    write_sealed(
        run.latents / "latents.json",
        {
            "format_version": 2,
            "model_sha256": file_sha256(run.model),
            "class_names": class_names,
            "files": {name: file_sha256(run.latents / name) for name in arrays},
        },
    )


def write_other_weights(run: RunFolder) -> None:
    vae = VAE(ModelConfig(latent_dim=10, conv_channels=(1,), hidden_dims=(2,)), (1, 8, 8))
    run.write_weights(vae, DIGIT_NAMES, "abc")  # other initial values at every call


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A trained run of digits with its latents."""
    run = RunFolder(tmp_path / "run")
    write_config(run.config, TrainConfig(run=str(run.path), data=DataConfig(name="digits")))
    write_other_weights(run)
    write_latents(run, digits(20), DIGIT_NAMES)
    return run


def test_the_stage_writes_the_table_its_config_and_its_figures(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = SvmConfig(C=3.0, gamma=0.5)
    svm.fit_svm(run.path, config)

    split = digits(20)
    expected = fit_scikit_learn(split, config).predict(split.test.astype(np.float64))
    written = svm.read_svm(run)
    np.testing.assert_array_equal(svm.predict(written.table, split.test).labels, expected)
    assert written.class_names == DIGIT_NAMES
    assert written.latents_sha256 == read_latents(run).sha256

    metrics = svm.read_metrics(run)
    accuracy = (expected == split.test_labels).mean()
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["num_train"] == len(split.train)
    assert metrics["num_test"] == len(split.test)
    assert metrics["num_support_vectors"] == len(written.table.support_vectors)
    assert [each["name"] for each in metrics["per_class"]] == list(DIGIT_NAMES)
    assert np.trace(metrics["confusion_matrix"]) == (expected == split.test_labels).sum()
    assert metrics["reference"] is None
    assert yaml.safe_load((run.svm / "config.yaml").read_text()) == {"C": 3.0, "gamma": 0.5}
    out = capsys.readouterr().out
    assert f"accuracy {accuracy:.4f}, precision" in out
    assert "latents of 10 classes with scikit-learn (not cuML: " in out
    assert metrics["backend"] == "scikit-learn"


def test_figures_on_mnist_stand_beside_those_of_the_reference(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(run.config, TrainConfig(run=str(run.path), data=DataConfig(name="mnist")))
    svm.fit_svm(run.path, SvmConfig())

    assert svm.read_metrics(run)["reference"]["accuracy"] == 0.9316
    assert "(the reference: 0.9316)" in capsys.readouterr().out


def test_only_a_run_on_the_whole_of_mnist_is_compared_with_the_reference() -> None:
    assert reference_for(DataConfig(name="mnist")) == REFERENCE_MNIST
    assert reference_for(DataConfig(name="fashion-mnist")) is None
    assert reference_for(DataConfig(name="mnist", holdout=5000)) is None
    assert reference_for(DataConfig(name="mnist", limit=100)) is None


def test_fitting_again_gives_the_same_table_bit_for_bit(run: RunFolder) -> None:
    svm.fit_svm(run.path, SvmConfig())
    first = svm.read_svm(run)
    svm.fit_svm(run.path, SvmConfig())
    again = svm.read_svm(run)
    for name, array in vars(first.table).items():
        np.testing.assert_array_equal(getattr(again.table, name), array, strict=True)


def test_the_number_of_jobs_changes_no_bit_of_the_file(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    svm.fit_svm(run.path, SvmConfig(), backend="sklearn", jobs=1)
    first = (run.svm / "svm.safetensors").read_bytes()
    svm.fit_svm(run.path, SvmConfig(), backend="sklearn", jobs=2)
    assert (run.svm / "svm.safetensors").read_bytes() == first
    assert "with scikit-learn (as told by --backend)" in capsys.readouterr().out


def test_where_cuml_is_usable_it_fits_the_svm_and_this_is_said(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cuml(monkeypatch)
    svm.fit_svm(run.path, SvmConfig())
    assert "latents of 10 classes with cuML (on a fast GPU)" in capsys.readouterr().out
    assert svm.read_metrics(run)["backend"] == "cuML"
    split = digits(20)
    expected = fit_scikit_learn(split, SvmConfig()).predict(split.test.astype(np.float64))
    np.testing.assert_array_equal(svm.predict(svm.read_svm(run).table, split.test).labels, expected)


@pytest.mark.cuda
@pytest.mark.filterwarnings("default")  # cuML's own
def test_labels_of_cuml_are_those_of_scikit_learn_but_for_one_in_a_thousand() -> None:
    choice = choose_backend("auto")
    if choice.backend != "cuml":
        pytest.skip(choice.reason)
    split = digits(20)
    images = np.concatenate([split.train, split.test])
    on_device, on_cpu = (
        svm.fit_table(split.train, split.train_labels, SvmConfig(), backend)
        for backend in ("cuml", "sklearn")
    )
    agree = svm.predict(on_device, images).labels == svm.predict(on_cpu, images).labels
    assert agree.mean() >= 0.999
    resident = svm.fit_table(
        split.train,
        split.train_labels,
        SvmConfig(),
        "cuml",
        on_device=torch.from_numpy(split.train).cuda(),
    )
    same = svm.predict(resident, images).labels == svm.predict(on_device, images).labels
    assert same.mean() >= 0.999


@pytest.mark.injects(17)
def test_a_demanded_cuml_that_is_not_usable_leaves_the_earlier_svm(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    svm.fit_svm(run.path, SvmConfig())
    before = (run.svm / "svm.safetensors").read_bytes()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--backend cuml: there is no CUDA device"):
        svm.fit_svm(run.path, SvmConfig(C=1.0), backend="cuml")
    assert (run.svm / "svm.safetensors").read_bytes() == before


def test_before_there_is_an_svm_its_command_is_named(run: RunFolder) -> None:
    command = rf"`vaekit svm {run.path}`"
    with pytest.raises(UserError, match=command):
        svm.read_svm(run)
    with pytest.raises(UserError, match=command):
        svm.read_metrics(run)


def test_of_latents_that_are_missing_their_command_is_named(run: RunFolder) -> None:
    (run.latents / "test_latents.npy").unlink()
    with pytest.raises(UserError, match=rf"`vaekit latents {run.path}`"):
        svm.fit_svm(run.path, SvmConfig())


def test_a_folder_that_is_no_run_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        svm.fit_svm(tmp_path / "nowhere", SvmConfig())
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.injects(7)
def test_a_run_folder_in_use_is_refused(run: RunFolder) -> None:
    with run.lock(), pytest.raises(UserError, match="another process is writing"):
        svm.fit_svm(run.path, SvmConfig())


@pytest.mark.injects(16)
def test_unlabelled_latents_are_refused_and_leave_the_earlier_svm(run: RunFolder) -> None:
    svm.fit_svm(run.path, SvmConfig())
    before = (run.svm / "svm.safetensors").read_bytes()
    write_latents(run, digits(20), class_names=())
    with pytest.raises(UserError, match=r"labels, which come from folders: .*ROOT/train/CLASS"):
        svm.fit_svm(run.path, SvmConfig())
    assert (run.svm / "svm.safetensors").read_bytes() == before


@pytest.mark.injects(16)
def test_test_latents_that_are_not_finite_are_refused_before_the_fit(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    split = digits(20)
    split.test[5] = np.nan
    write_latents(run, split, DIGIT_NAMES)
    with pytest.raises(UserError, match="test latents: 1 of 897 rows are not finite"):
        svm.fit_svm(run.path, SvmConfig())
    assert "fitting" not in capsys.readouterr().out


@pytest.mark.injects(8)
def test_an_svm_of_other_weights_is_refused(run: RunFolder) -> None:
    svm.fit_svm(run.path, SvmConfig())
    write_other_weights(run)
    with pytest.raises(UserError, match=rf"other weights .*`vaekit svm {run.path}`"):
        svm.read_svm(run)
    with pytest.raises(UserError, match="other weights"):
        svm.read_metrics(run)
    with pytest.raises(UserError, match="other weights"):
        svm.fit_svm(run.path, SvmConfig())


@pytest.mark.injects(8)
def test_figures_of_other_latents_are_refused(run: RunFolder) -> None:
    svm.fit_svm(run.path, SvmConfig())
    split = digits(20)
    split.test[0, 0] += 1
    write_latents(run, split, DIGIT_NAMES)
    with pytest.raises(UserError, match=rf"of other latents .*`vaekit svm {run.path}`"):
        svm.read_metrics(run)


@pytest.mark.injects(8)
def test_figures_of_another_svm_are_refused(run: RunFolder) -> None:
    svm.fit_svm(run.path, SvmConfig())
    earlier = (run.svm / "svm.safetensors").read_bytes()
    svm.fit_svm(run.path, SvmConfig(C=1.0))
    (run.svm / "svm.safetensors").write_bytes(earlier)
    with pytest.raises(UserError, match=rf"of another SVM .*`vaekit svm {run.path}`"):
        svm.read_metrics(run)


@pytest.mark.parametrize("text", ["{", json.dumps({"format_version": 99})])
@pytest.mark.injects(5)
def test_figures_that_cannot_be_read_are_refused(run: RunFolder, text: str) -> None:
    svm.fit_svm(run.path, SvmConfig())
    (run.svm / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=rf"metrics\.json: .*`vaekit svm {run.path}`"):
        svm.read_metrics(run)
