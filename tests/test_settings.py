"""Settings are the same in flags, in files and in dicts, and mean for ever what they meant."""

import dataclasses
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from conftest import run_command

import vaekit.config
from vaekit.cli import main
from vaekit.config import (
    DataConfig,
    ModelConfig,
    SvmConfig,
    TrainConfig,
    fields_by_flag,
    flatten,
    setting,
    to_dict,
)
from vaekit.errors import UserError
from vaekit.settings import from_dict, parse, read_config, write_config

CHANGED = TrainConfig(
    run="runs/with space: é",
    data=DataConfig(name="folder", root="my images", image_size=32, limit=5, skip_unreadable=True),
    model=ModelConfig(latent_dim=2, conv_channels=(8,), hidden_dims=(4, 4, 4)),
    epochs=3,
    learning_rate=2.5e-4,
    tracker="tensorboard",
)
LATER = {name for name, each in fields_by_flag(TrainConfig).items() if "before" in each.metadata}


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED])
def test_a_saved_config_reads_back_as_an_equal_object(tmp_path: Path, config: TrainConfig) -> None:
    write_config(tmp_path / "config.yaml", config)
    assert read_config(TrainConfig, tmp_path / "config.yaml") == config
    assert from_dict(TrainConfig, to_dict(config)) == config


def test_the_saved_config_is_whole_and_plain_yaml(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", TrainConfig())
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert list(values) == [field.name for field in dataclasses.fields(TrainConfig)]
    assert values["run"] == "runs/mnist"
    assert values["model"]["architecture"] == "auto"


def test_flags_win_over_the_config_file_before_them(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", CHANGED)
    config = parse(TrainConfig, ["--config", str(tmp_path / "config.yaml"), "--epochs", "9"])
    assert config == dataclasses.replace(CHANGED, epochs=9)


def test_the_default_run_folder_is_named_after_the_images() -> None:
    assert parse(TrainConfig, ["--data.name", "kmnist"]).run == "runs/kmnist"
    assert parse(TrainConfig, ["--data.name", "kmnist", "--run", "x"]).run == "x"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--epochs -1", "--epochs -1: expected at least 1"),
        ("--epochs 0", "--epochs 0: expected at least 1"),
        ("--batch_size 0", "--batch_size 0: expected at least 1"),
        ("--model.latent_dim 0", "--model.latent_dim 0: expected at least 1"),
        ("--model.conv_channels []", "expected at least one width"),
        ("--model.hidden_dims [16,0]", "--model.hidden_dims 0: expected at least 1"),
        ("--learning_rate .nan", "--learning_rate nan: expected a finite number above 0"),
        ("--adam_beta2 1", "--adam_beta2 1.0: expected a number from 0 to below 1"),
        ("--ema_decay 1", "--ema_decay 1.0: expected a number from 0 to below 1"),
        ("--input_noise -0.1", "--input_noise -0.1: expected at least 0"),
        ("--beta -1", "--beta -1.0: expected at least 0"),
        ("--free_bits .inf", "--free_bits inf: expected at least 0"),
        ("--augment_share 0", "--augment_share 0.0: expected a share above 0, at most 1"),
        ("--augment_until 1.5", "--augment_until 1.5: expected a share above 0, at most 1"),
        (
            "--augment false --augment_share 0.5",
            "--augment false with --augment_share 0.5: there is no share of none; give "
            "--augment true, or --augment_share auto",
        ),
        (
            "--augment false --augment_share 0.5 --augment_until 0.25",
            "--augment false with --augment_share 0.5 and --augment_until 0.25: there is no share "
            "of none; give --augment true, or --augment_share auto and --augment_until auto",
        ),
        ("--kl_warmup 1.5", "--kl_warmup 1.5: expected a share of the run, from 0 to 1"),
        ("--temperature 0", "--temperature 0.0: expected a number above 0, at most 1"),
        ("--temperature 1.5", "--temperature 1.5: expected a number above 0, at most 1"),
        (
            "--importance_weighted --num_samples 2 --temperature 0.5",
            "--temperature 0.5: the importance-weighted bound has no KL to weigh",
        ),
        ("--num_samples 0", "--num_samples 0: expected at least 1"),
        ("--importance_weighted", "--num_samples 1: the importance-weighted bound of a single"),
        ("--importance_weighted --num_samples 2 --beta 2", "--beta 2.0: the importance-weighted"),
        (
            "--importance_weighted --num_samples 2 --kl_gradient path",
            "--kl_gradient path: the importance-weighted bound has no KL to weigh",
        ),
        ("--kl_gradient path --free_bits 0.1", "--kl_gradient path: --free_bits 0.1 is of the KL"),
        ("--data.limit 0", "--data.limit 0: expected at least 1"),
        ("--data.name imagenet", "'mnist', 'fashion-mnist', 'kmnist', 'digits', 'folder'"),
        ("--epoch 3", "unrecognized arguments: --epoch 3"),
        ("--epochs three", "--epochs: expected int | auto, given: three"),
        ("--model.block_norm maybe", "block_norm: expected true | false | auto, given: maybe"),
        ("--config missing.yaml", "--config missing.yaml: no such file"),
    ],
)
def test_a_bad_value_or_a_typo_is_refused_by_name(flags: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(TrainConfig, flags.split())
    assert words in str(error.value)


def parsed(values: dict[str, Any], folder: Path) -> TrainConfig:
    (folder / "some.yaml").write_text(yaml.safe_dump(values))
    config: TrainConfig = parse(TrainConfig, ["--config", str(folder / "some.yaml")])
    return config


def whole(values: dict[str, Any]) -> dict[str, Any]:
    settings = to_dict(TrainConfig())
    for name, value in values.items():
        both = isinstance(value, dict) and name in ("data", "model")
        settings[name] = settings[name] | value if both else value
    return settings


def read(values: dict[str, Any], folder: Path) -> TrainConfig:
    (folder / "config.yaml").write_text(yaml.safe_dump(whole(values)))
    return read_config(TrainConfig, folder / "config.yaml")


def from_json(values: dict[str, Any], _: Path) -> TrainConfig:
    return from_dict(TrainConfig, json.loads(json.dumps(whole(values))))


FROM_FILES = pytest.mark.parametrize("given", [parsed, read, from_json])


@FROM_FILES
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochz": 3}, "epochz is no setting"),
        ({"data": {"nam": "digits"}}, "data.nam is no setting"),
        ({"config": "other.yaml"}, "config is no setting"),
        ({"model": "vaekit.config.ModelConfig"}, "model holds no settings"),
        ({"model": {"class_path": "vaekit.config.ModelConfig"}}, "class_path is no setting"),
        ({"epochs": "three"}, "--epochs 'three': expected int | auto"),
        ({"epochs": 3.0}, "--epochs 3.0: expected int | auto"),
        ({"epochs": True}, "--epochs True: expected int | auto"),
        ({"epochs": {}}, "--epochs {}: expected int | auto"),
        ({"epochs": [3]}, "--epochs [3]: expected int | auto"),
        ({"learning_rate": False}, "--learning_rate False: expected float"),
        ({"learning_rate": 10**400}, ": expected float"),
        ({"run": 3}, "--run 3: expected str | None"),
        ({"run": "runs/x", "checkpoint_every": 2.5}, "--checkpoint_every 2.5: expected int | str"),
        ({"data": {"limit": True}}, "--data.limit True: expected int | None"),
        ({"data": {"skip_unreadable": 1}}, "--data.skip_unreadable 1: expected true | false"),
        ({"data": {"name": "imagenet"}}, "value among 'mnist', 'fashion-mnist', 'kmnist'"),
        ({"mixed_precision": False}, "--mixed_precision False: expected value among 'auto', 'no'"),
        ({"model": {"hidden_dims": 3}}, "--model.hidden_dims 3: expected tuple[int, ...]"),
        ({"model": {"hidden_dims": [3, True]}}, "--model.hidden_dims [3, True]: expected tuple"),
        ({"model": {"hidden_dims": [3, 0]}}, "--model.hidden_dims 0: expected at least 1"),
    ],
)
def test_a_file_or_a_dict_is_refused_by_the_name_of_what_is_wrong_in_it(
    given: Callable[[dict[str, Any], Path], TrainConfig],
    values: dict[str, Any],
    words: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError) as error:
        given(values, tmp_path)
    assert words in str(error.value)
    assert len(str(error.value)) < 400


@FROM_FILES
def test_a_number_is_taken_as_it_may_be_written(
    given: Callable[[dict[str, Any], Path], TrainConfig], tmp_path: Path
) -> None:
    """For PyYAML 1e-3 is text, and 1 is no float."""
    config = given({"learning_rate": "1e-3", "weight_decay": 1, "checkpoint_every": "2"}, tmp_path)
    assert config == dataclasses.replace(
        TrainConfig(), learning_rate=1e-3, weight_decay=1.0, checkpoint_every=2
    )


@pytest.mark.slow
def test_a_setting_without_its_value_is_refused_by_name_where_it_needs_one(tmp_path: Path) -> None:
    """As in a file that was cut off behind a colon."""
    file = tmp_path / "config.yaml"
    for name, default in flatten(to_dict(TrainConfig())).items():
        group, _, last = name.rpartition(".")
        file.write_text(f"{group}:\n  {last}:\n" if group else f"{last}:\n")
        arguments = ["--config", str(file)]
        if name in ("model.width", "model.conv_channels", "model.hidden_dims"):
            continue  # which the other architecture has not
        if default is None or name == "run":
            assert parse(TrainConfig, arguments) == TrainConfig()
            continue
        with pytest.raises(UserError, match=f"--{name} has no value"):
            parse(TrainConfig, arguments)
        if group:
            with pytest.raises(UserError, match=f"--{name} has no value"):
                parse(TrainConfig, [f"--{group}", f'{{"{last}": null}}'])
    file.write_text("data:\n")
    with pytest.raises(UserError, match=f"{file}: data holds no settings"):
        parse(TrainConfig, ["--config", str(file)])


@pytest.mark.parametrize("config_type", [DataConfig, ModelConfig, TrainConfig])
def test_every_setting_has_a_one_line_help_text(
    config_type: type, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    source = Path(vaekit.config.__file__).read_text()
    for each in dataclasses.fields(config_type):
        if each.name in ("data", "model"):  # groups of flags
            continue
        after = source.split(f"    {each.name}: ", 1)[1].split("\n")[1].strip()
        assert after.startswith('"""'), each.name
        assert after.endswith('"""'), each.name
        assert " ".join(after.strip('"').split()) in text, each.name
    for name, default in {"batch_size": "auto", "input_noise": 0.0, "tracker": "null"}.items():
        assert f"default: {default})" in text.split(f"--{name} ", 2)[2].split(" --")[0]


@pytest.mark.slow
def test_sizes_ranges_and_colours_are_taken_as_people_type_them() -> None:
    flags = "--data.image_size 32,48 --data.value_range -1.5,2e3 --data.background #20a0ff"
    config = parse(TrainConfig, flags.split())
    assert config.data.size == (32, 48)
    assert config.data.value_range == "-1.5,2e3"
    assert config.data.background == "#20a0ff"
    assert parse(TrainConfig, ["--data.image_size", "32,32"]).data.image_size == 32
    for wrong in ("32,", "a", "[32,48]", "32x48", "7,32", "32,2000", "-3"):
        with pytest.raises(UserError, match=r"--data\.image_size"):
            parse(TrainConfig, [f"--data.image_size={wrong}"])


# The flag of a group takes its settings alone


def test_a_group_of_settings_comes_from_a_file_or_from_json(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("name: digits\nlimit: 5\n")
    expected = TrainConfig(data=DataConfig(name="digits", limit=5))
    assert parse(TrainConfig, ["--data", str(tmp_path / "data.yaml")]) == expected
    assert parse(TrainConfig, ["--data", '{"name": "digits", "limit": 5}']) == expected


@pytest.mark.parametrize(
    "group",
    ["evil.Model", "evil.yaml", '{"class_path": "evil.Model"}', "file.yaml", "evil"],
)
def test_nothing_that_is_named_in_the_place_of_a_group_is_imported(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('sentinel').touch()")
    (tmp_path / "file.yaml").write_text("class_path: evil.Model")
    with pytest.raises(UserError):
        parse(TrainConfig, ["--model", group])
    assert not (tmp_path / "sentinel").exists()


# What was recorded before a setting existed


@dataclass(frozen=True)
class Inner:
    """Settings of this test."""

    size: int = 1
    """Of the first version."""

    shade: Literal["light", "dark"] = setting("dark", before="light")
    """Came later, with a better default."""


@dataclass(frozen=True)
class Outer:
    """Settings of this test."""

    inner: Inner = field(default_factory=Inner)
    """Settings of this test."""

    rate: float = 0.5
    """Of the first version."""

    limit: int | None = setting(3, before=None)
    """Came later: there was none."""


OLD = {"inner": {"size": 2}, "rate": 0.5}


def outer_of(folder: Path, values: dict[str, Any], *flags: str) -> object:
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return parse(Outer, ["--config", str(folder / "config.yaml"), *flags])


def test_what_an_old_config_lacks_means_what_was_done_before_it_existed(tmp_path: Path) -> None:
    old = Outer(Inner(size=2, shade="light"), limit=None)
    assert from_dict(Outer, OLD) == old
    assert outer_of(tmp_path, OLD) == old
    assert read_config(Outer, tmp_path / "config.yaml") == old
    dark = dataclasses.replace(old, inner=Inner(size=2, shade="dark"))
    assert outer_of(tmp_path, OLD, "--inner.shade", "dark") == dark
    assert outer_of(tmp_path, OLD | {"limit": 7}) == dataclasses.replace(old, limit=7)


def test_what_flags_and_files_of_some_settings_leave_out_is_the_default(tmp_path: Path) -> None:
    assert parse(Outer, []) == Outer()
    assert outer_of(tmp_path, {"rate": 0.1}) == Outer(rate=0.1)
    assert outer_of(tmp_path, {"inner": {"size": 2}}) == Outer(Inner(size=2))


def test_a_recorded_config_that_lacks_a_setting_of_the_first_version_is_damaged(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match=r"without inner\.size, rate; a run's config names every"):
        from_dict(Outer, {"limit": 3})
    path = tmp_path / "config.yaml"
    path.write_text("inner:\n  size: 2\n")
    with pytest.raises(UserError, match=rf"{path}: damaged, without rate; .*put a good copy there"):
        read_config(Outer, path)


def test_every_setting_that_came_after_the_first_version_says_what_was_done_before_it() -> None:
    old = flatten(to_dict(TrainConfig()))
    recorded = {name: value for name, value in old.items() if name not in LATER}
    assert sorted(LATER) == [
        *("adam_beta2", "augment", "augment_share", "augment_until"),
        *("beta", "compile", "data.background", "data.channels", "data.fit", "data.holdout"),
        *("data.image_column", "data.label_column", "data.pages"),
        *("data.reading", "data.resident_limit", "data.skip_unreadable", "data.strict"),
        *("data.validation", "data.value_range", "free_bits", "gradient_exchange"),
        *("importance_weighted", "init_from", "init_sha256", "input_noise", "keep"),
        *("kl_gradient", "kl_warmup"),
        *("model.architecture", "model.block_bottleneck", "model.block_norm", "model.likelihood"),
        *("model.thumbnail", "model.to_pixels", "model.width"),
        *("num_samples", "temperature", "weight_decay"),
    ]
    data = DataConfig(background="none", value_range="0,65535", reading="suffix")
    model = ModelConfig(
        "reference",
        "bernoulli",
        width=None,
        to_pixels="transposed",
        thumbnail=False,
        block_norm=False,
        block_bottleneck=False,
    )
    before = TrainConfig(
        data=data,
        model=model,
        keep="last",
        kl_gradient="exact",
        kl_warmup=0.0,
        temperature=1.0,
        augment=False,
        augment_share=1.0,
        augment_until=1.0,
        adam_beta2=0.999,
        weight_decay=0.0,
    )
    assert from_dict(TrainConfig, recorded) == before
    for name in recorded:
        with pytest.raises(UserError, match=f"without {name};"):
            from_dict(TrainConfig, {key: value for key, value in old.items() if key != name})


@pytest.mark.slow
@pytest.mark.parametrize("config", [TrainConfig(), CHANGED, SvmConfig(gamma=0.25)])
def test_a_config_that_was_cut_off_anywhere_is_refused_or_equal_to_the_whole(
    config: TrainConfig | SvmConfig, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    write_config(path, config)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with suppress(UserError):
            assert read_config(type(config), path) == config


@pytest.mark.slow
def test_a_run_whose_config_is_older_than_some_settings_resumes_by_the_command_it_names(
    finished_run: Path, tmp_path: Path
) -> None:
    run, old = tmp_path / "run", tmp_path / "old.yaml"
    settings = yaml.safe_load((finished_run / "config.yaml").read_text())
    for name in LATER:
        group, _, last = name.rpartition(".")
        del (settings[group] if group else settings)[last]
    old.write_text(yaml.safe_dump(settings))
    main(["train", "--config", str(old), "--run", str(run)])
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    main(["train", "--config", str(run / "config.yaml"), "--run", str(run)])
    assert (run / "model.safetensors").read_bytes() == weights
    assert yaml.safe_load((run / "config.yaml").read_text()).keys() > settings.keys()


@pytest.mark.slow
def test_a_run_goes_on_in_python_where_there_is_no_jsonargparse(
    run: Path, finished_run: Path
) -> None:
    max((run / "checkpoints").iterdir()).unlink()
    code = """
import sys
from pathlib import Path
sys.modules.update(dict.fromkeys(("jsonargparse", "docstring_parser")))
from vaekit.config import TrainConfig
from vaekit.settings import read_config
from vaekit.train import train
train(read_config(TrainConfig, Path("config.yaml")))
"""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"run": str(run)}))
    result = run_command([sys.executable, "-c", code], cwd=run)
    assert result.returncode == 0, result.stderr
    assert "6 of them done" in result.stdout
    assert (run / "model.safetensors").read_bytes() == (
        finished_run / "model.safetensors"
    ).read_bytes()
