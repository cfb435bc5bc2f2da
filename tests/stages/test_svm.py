"""The SVM of a run: fitted, measured, and bound to what it was made from."""

import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from cuml_helpers import play_cuml
from damage_helpers import Refused, snapshot
from sklearn.dummy import DummyClassifier
from sklearn.metrics import balanced_accuracy_score
from svm_helpers import DIGIT_NAMES, Split, digits, fit_scikit_learn

from vaekit.cli import main
from vaekit.config import DataConfig, ModelConfig, SvmBackend, SvmConfig, TrainConfig
from vaekit.errors import EXIT_CODE, UserError
from vaekit.models.vae import VAE
from vaekit.progress import Progress
from vaekit.runs.folder import RunFolder
from vaekit.runs.reference import REFERENCE_MNIST
from vaekit.runs.run import Run
from vaekit.runs.weights import write_weights
from vaekit.settings import read_config, write_config
from vaekit.stages.svm import fit_svm
from vaekit.storage.files import file_sha256
from vaekit.storage.sealed import write_sealed
from vaekit.svm import cluster as clusters
from vaekit.svm import fit, one_vs_one
from vaekit.svm.backend import choose_backend
from vaekit.svm.draw import draw_rows
from vaekit.svm.fit import fit_table
from vaekit.svm.table import predict

TINY_MODEL = ModelConfig(latent_dim=10, conv_channels=(1,), hidden_dims=(2,))


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


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A trained run of digits with its latents."""
    run = RunFolder(tmp_path / "run")
    write_config(
        run.config, TrainConfig(run=str(run.path), data=DataConfig(name="digits"), model=TINY_MODEL)
    )
    write_weights(run, VAE(TINY_MODEL, (1, 8, 8)), DIGIT_NAMES, "abc")
    write_latents(run, digits(20), DIGIT_NAMES)
    return run


def test_the_stage_writes_the_table_its_config_and_its_figures(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = SvmConfig(C=3.0, gamma=0.5)
    fit_svm(Run(run.path), config)

    split = digits(20)
    expected = fit_scikit_learn(split, config, weight=0.5).predict(split.test.astype(np.float64))
    written = Run(run.path).svm
    np.testing.assert_array_equal(predict(written.table, split.test).labels, expected)
    assert written.class_names == DIGIT_NAMES
    assert written.latents_sha256 == Run(run.path).latents.sha256

    metrics = Run(run.path).svm_metrics
    accuracy = (expected == split.test_labels).mean()
    assert metrics["accuracy"] == pytest.approx(accuracy)
    assert metrics["num_train"] == len(split.train)
    assert metrics["num_test"] == len(split.test)
    assert metrics["num_support_vectors"] == len(written.table.support_vectors)
    assert [each["name"] for each in metrics["per_class"]] == list(DIGIT_NAMES)
    assert np.trace(metrics["confusion_matrix"]) == (expected == split.test_labels).sum()
    assert metrics["reference"] is None
    assert yaml.safe_load((run.svm / "config.yaml").read_text()) == {
        "C": 3.0,
        "gamma": 0.5,
        "class_weight": None,
        "max_train": 100_000,
        "log_variances": 0.5,
    }
    out = capsys.readouterr().out
    assert f"accuracy {accuracy:.4f}, precision" in out
    assert "latents of 10 classes with scikit-learn (not cuML: " in out
    assert metrics["backend"] == "scikit-learn"


@pytest.mark.slow
def test_balanced_classes_give_the_svm_of_scikit_learns_balanced_class_weight(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    split = rare_zeros()
    write_latents(run, split, DIGIT_NAMES)
    plain, config = SvmConfig(C=0.1), SvmConfig(C=0.1, class_weight="balanced")
    recalls = []
    for each in (plain, config):
        fit_svm(Run(run.path), each)
        fitted = fit_scikit_learn(split, each, weight=0.5)
        expected = fitted.predict(split.test.astype(np.float64))
        written, metrics = Run(run.path).svm, Run(run.path).svm_metrics
        np.testing.assert_array_equal(predict(written.table, split.test).labels, expected)
        assert (written.class_weight, metrics["class_weight"]) == (each.class_weight,) * 2
        balanced = balanced_accuracy_score(split.test_labels, expected)
        assert metrics["balanced_accuracy"] == pytest.approx(balanced)
        recalls.append(metrics["per_class"][0]["recall"])
    assert recalls[1] > recalls[0] + 0.2
    main(["svm", str(run.path), "--C", "0.1", "--class_weight", "balanced"])
    for name, array in vars(written.table).items():
        np.testing.assert_array_equal(getattr(Run(run.path).svm.table, name), array)


@pytest.mark.parametrize("backend", ["sklearn", "cuml"])
def test_of_many_latents_a_draw_is_fitted_and_this_is_said_and_recorded(
    backend: SvmBackend,
    run: RunFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play_cuml(monkeypatch)
    fit_svm(Run(run.path), SvmConfig(max_train=300), backend)
    split = digits(20)
    assert f"on 300 of {len(split.train)} x 20 latents" in capsys.readouterr().out
    metrics = Run(run.path).svm_metrics
    recorded = metrics["num_train"], metrics["num_to_draw_from"], metrics["max_train"]
    assert recorded == (300, len(split.train), 300)
    drawn = draw_rows(split.train_labels, 300)
    half = np.repeat([1.0, 0.5], 10)
    expected = fit_table(split.train[drawn], split.train_labels[drawn], SvmConfig(), weights=half)
    written = Run(run.path).svm.table
    agree = predict(written, split.test).labels == predict(expected, split.test).labels
    assert agree.all()

    with pytest.raises(UserError, match=r"max_train 9: .* 10 classes"):
        fit_svm(Run(run.path), SvmConfig(max_train=9))
    assert Run(run.path).svm_metrics == metrics


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_log_variances_have_the_weight_that_is_asked_for(run: RunFolder, weight: float) -> None:
    config = SvmConfig(log_variances=weight)
    fit_svm(Run(run.path), config)
    split = digits(20)
    fitted = fit_scikit_learn(split, config, weight=weight)
    expected = fitted.predict(split.test.astype(np.float64))
    np.testing.assert_array_equal(predict(Run(run.path).svm.table, split.test).labels, expected)
    assert Run(run.path).svm_metrics["log_variances"] == weight
    assert read_config(SvmConfig, run.svm / "config.yaml") == config


def test_log_variances_of_many_latents_weigh_as_much_as_means(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit.FEW_LATENTS == 10_000
    for few, weight in ((len(digits(20).train), 1.0), (len(digits(20).train) + 1, 0.5)):
        monkeypatch.setattr(fit, "FEW_LATENTS", few)
        fit_svm(Run(run.path), SvmConfig())
        assert Run(run.path).svm_metrics["log_variances"] == weight


def test_the_same_svm_on_pca_and_the_commonest_class_stand_beside_it(finished_run: Path) -> None:
    run = Run(finished_run)
    assert run.pca_scores is not None
    labels, test_labels = run.latents.train_labels, run.latents.test_labels
    assert labels is not None
    assert test_labels is not None
    simpler = run.svm_metrics["baselines"]
    commonest = DummyClassifier(strategy="most_frequent").fit(labels[:, None], labels)
    expected = commonest.predict(test_labels[:, None])
    assert simpler["majority"]["accuracy"] == pytest.approx((expected == test_labels).mean())
    assert simpler["majority"]["name"] == str(expected[0])
    assert [each["components"] for each in simpler["pca"]] == [3, 6]
    for each in simpler["pca"]:
        train, test = (scores[:, : each["components"]] for scores in run.pca_scores)
        split = Split(train, labels, test, test_labels)
        expected = fit_scikit_learn(split, SvmConfig()).predict(test.astype(np.float64))
        assert each["accuracy"] == pytest.approx((expected == test_labels).mean())
        balanced = balanced_accuracy_score(test_labels, expected)
        assert each["balanced_accuracy"] == pytest.approx(balanced)


def rare_zeros() -> Split:
    """Digits, with few zeros to learn from."""
    split = digits(20)
    is_kept = split.train_labels != 0
    is_kept[np.flatnonzero(~is_kept)[:5]] = True
    return split._replace(train=split.train[is_kept], train_labels=split.train_labels[is_kept])


def test_figures_on_mnist_stand_beside_those_of_the_reference(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaekit.stages.svm.reference_for", lambda config: REFERENCE_MNIST)
    fit_svm(Run(run.path), SvmConfig())

    assert Run(run.path).svm_metrics["reference"]["accuracy"] == 0.9316
    assert "(the reference: 0.9316)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def dask_cluster() -> Iterator[Any]:
    """Two workers on this machine; one that is killed is started again."""
    from distributed import LocalCluster  # of the extra dask

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        yield cluster


HEAD = """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """One of two workers on this machine, which RAY_ADDRESS names: its first process."""
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it writes a token into the home folder
    command = [sys.executable, "-c", HEAD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as head:
        assert head.stdin is not None
        assert head.stdout is not None
        monkeypatch.setenv("RAY_ADDRESS", head.stdout.readline().strip())
        yield psutil.Process(head.pid)
        head.stdin.close()


def address_of(cluster: Any) -> str:
    return str(cluster.scheduler_address).replace("tcp:", "dask:")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["dask", pytest.param("ray", marks=pytest.mark.filterwarnings("default"))],  # Ray's own
)
def test_a_cluster_of_two_processes_fits_the_same_file(
    kind: str, run: RunFolder, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = request.getfixturevalue(f"{kind}_cluster")
    monkeypatch.setattr(one_vs_one, "MIN_ROWS_OF_A_PAIR", 0)
    fit_svm(Run(run.path), SvmConfig(), backend="sklearn")
    first = (run.svm / "svm.safetensors").read_bytes()
    monkeypatch.setattr(one_vs_one, "SVC", None)  # here; the workers import their own
    fit_svm(Run(run.path), SvmConfig(), cluster=address_of(cluster) if kind == "dask" else kind)
    assert (run.svm / "svm.safetensors").read_bytes() == first
    assert Run(run.path).svm_metrics["backend"] == "scikit-learn"


@pytest.mark.slow
@pytest.mark.injects(9)
def test_a_worker_that_is_lost_in_the_middle_of_a_fit_is_done_without(
    run: RunFolder, dask_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_vs_one, "MIN_ROWS_OF_A_PAIR", 0)
    fit_svm(Run(run.path), SvmConfig(), backend="sklearn")
    first = (run.svm / "svm.safetensors").read_bytes()
    victim = psutil.Process(dask_cluster.workers[0].pid)
    kill_after(8, victim.kill, monkeypatch)
    fit_svm(Run(run.path), SvmConfig(), cluster=address_of(dask_cluster))
    assert not victim.is_running()
    assert (run.svm / "svm.safetensors").read_bytes() == first


def kill_after(num_pairs: int, kill: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `kill` once so many pairs of classes are handed out."""

    class Deadly(Progress):
        def advance(self, count: int, note: str = "") -> None:
            super().advance(count, note)
            if self._done == num_pairs:
                kill()

    monkeypatch.setattr(one_vs_one, "Progress", Deadly)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.injects(9)
def test_a_worker_of_ray_that_is_lost_is_one_line_and_leaves_the_earlier_svm(
    run: RunFolder, ray_cluster: psutil.Process, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    def kill() -> None:
        for process in ray_cluster.children(recursive=True):
            if process.cmdline()[0].startswith("ray::PoolActor"):
                process.kill()

    monkeypatch.setattr(one_vs_one, "MIN_ROWS_OF_A_PAIR", 0)
    fit_svm(Run(run.path), SvmConfig(), backend="sklearn")
    first = snapshot(run.svm)
    kill_after(8, kill, monkeypatch)
    assert "a worker or the scheduler was lost" in refused("svm", run.path, "--cluster", "ray")
    assert snapshot(run.svm) == first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "cluster", "words"),
    [
        ("auto", "dask://127.0.0.1:1", "no Dask scheduler answers there within 0.5 seconds"),
        ("auto", "dask://127.0.0.1", "expected dask://HOST:PORT"),
        ("auto", "spark://127.0.0.1:7077", "expected dask://HOST:PORT"),
        ("auto", "ray", r"ray is not installed; `pip install 'vaekit\[ray\]'`"),
        ("cuml", "ray", "leave out one of the two"),
    ],
)
def test_a_cluster_that_cannot_be_had_leaves_the_earlier_svm(
    backend: SvmBackend,
    cluster: str,
    words: str,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clusters, "SECONDS_TO_ANSWER", 0.5)
    monkeypatch.setitem(sys.modules, "ray", None)
    (run.svm).mkdir()
    (run.svm / "svm.safetensors").write_text("the earlier one")
    with pytest.raises(UserError, match=words):
        fit_svm(Run(run.path), SvmConfig(), backend, cluster=cluster)
    assert (run.svm / "svm.safetensors").read_text() == "the earlier one"


@pytest.mark.slow
def test_another_server_at_the_address_of_a_cluster_is_one_line(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    class Greeting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.request.recv(1000)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"dask://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(SystemExit) as ended:
            main(["svm", str(run.path), "--cluster", address])
        server.shutdown()
    assert ended.value.code == EXIT_CODE
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{address}: no Dask scheduler answers there" in line


def test_where_cuml_is_usable_it_fits_the_svm_and_this_is_said(
    run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cuml(monkeypatch)
    fit_svm(Run(run.path), SvmConfig())
    assert "latents of 10 classes with cuML (on a fast GPU)" in capsys.readouterr().out
    assert Run(run.path).svm_metrics["backend"] == "cuML"
    split = digits(20)
    fitted = fit_scikit_learn(split, SvmConfig(), weight=0.5)
    expected = fitted.predict(split.test.astype(np.float64))
    np.testing.assert_array_equal(predict(Run(run.path).svm.table, split.test).labels, expected)


@pytest.mark.cuda
@pytest.mark.filterwarnings("default")  # cuML's own
def test_labels_of_cuml_are_those_of_scikit_learn_but_for_one_in_a_thousand() -> None:
    choice = choose_backend("auto")
    if choice.backend != "cuml":
        pytest.skip(choice.reason)
    split = digits(20)
    images = np.concatenate([split.train, split.test])
    on_device, on_cpu = (
        fit_table(split.train, split.train_labels, SvmConfig(), backend)
        for backend in ("cuml", "sklearn")
    )
    agree = predict(on_device, images).labels == predict(on_cpu, images).labels
    assert agree.mean() >= 0.999
    resident = fit_table(
        split.train,
        split.train_labels,
        SvmConfig(),
        "cuml",
        on_device=torch.from_numpy(split.train).cuda(),
    )
    same = predict(resident, images).labels == predict(on_device, images).labels
    assert same.mean() >= 0.999


@pytest.mark.injects(16)
def test_unlabelled_latents_are_refused_and_leave_the_earlier_svm(run: RunFolder) -> None:
    fit_svm(Run(run.path), SvmConfig())
    before = (run.svm / "svm.safetensors").read_bytes()
    write_latents(run, digits(20), class_names=())
    with pytest.raises(UserError, match=r"labels, as folders ROOT/CLASS.*`vaekit encode`"):
        fit_svm(Run(run.path), SvmConfig())
    assert (run.svm / "svm.safetensors").read_bytes() == before


@pytest.mark.injects(16)
def test_test_latents_that_are_not_finite_are_refused_before_the_fit(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    split = digits(20)
    split.test[5] = np.nan
    write_latents(run, split, DIGIT_NAMES)
    with pytest.raises(UserError, match="test latents: 1 of 897 rows are not finite"):
        fit_svm(Run(run.path), SvmConfig())
    assert "fitting" not in capsys.readouterr().out


def test_more_classes_than_fit_into_memory_are_refused_before_the_fit(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_svm(Run(run.path), SvmConfig())
    before = (run.svm / "svm.safetensors").read_bytes()
    monkeypatch.setattr("vaekit.stages.svm.fit_table", None)
    monkeypatch.setattr("vaekit.stages.svm.available", lambda _: 1000)
    words = r"an SVM of 10 classes and \d+ training images takes up to 0\.0 GB of memory"
    with pytest.raises(UserError, match=words):
        fit_svm(Run(run.path), SvmConfig())
    assert (run.svm / "svm.safetensors").read_bytes() == before
