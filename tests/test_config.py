"""Settings are validated, complete in YAML, and the same when read back."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from vaekit.arguments import parse
from vaekit.config import (
    DataConfig,
    ModelConfig,
    SvmConfig,
    TrainConfig,
    flatten,
    from_dict,
    read_config,
    to_dict,
    trajectory_differences,
    write_config,
)
from vaekit.errors import UserError

CHANGED = TrainConfig(
    run="runs/with space: é",
    data=DataConfig(name="folder", root="my images", image_size=32, limit=5, skip_unreadable=True),
    model=ModelConfig(latent_dim=2, conv_channels=(8,), hidden_dims=(4, 4, 4)),
    epochs=3,
    learning_rate=2.5e-4,
    tracker="tensorboard",
)


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
    assert values["model"]["conv_channels"] == [16, 32]


def test_flags_win_over_the_config_file(tmp_path: Path) -> None:
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
        ("--ema_decay 1", "--ema_decay 1.0: expected a number from 0 to below 1"),
        ("--input_noise -0.1", "--input_noise -0.1: expected at least 0"),
        ("--data.limit 0", "--data.limit 0: expected at least 1"),
        ("--data.name imagenet", "'mnist', 'fashion-mnist', 'kmnist', 'digits', 'folder'"),
        ("--epoch 3", "unrecognized arguments: --epoch 3"),
        ("--epochs three", "--epochs: Expected a int. Got value: three"),
        ("--config missing.yaml", "missing.yaml"),
    ],
)
def test_a_bad_value_or_a_typo_is_refused_by_name(flags: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(TrainConfig, flags.split())
    assert words in str(error.value)


def test_a_config_file_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochz: 3\n")
    with pytest.raises(UserError, match="epochz"):
        parse(TrainConfig, ["--config", str(tmp_path / "config.yaml")])


def test_a_setting_without_its_value_is_refused_by_name_where_it_needs_one(tmp_path: Path) -> None:
    """As in a file that was cut off behind a colon."""
    file = tmp_path / "config.yaml"
    for name, default in flatten(to_dict(TrainConfig())).items():
        group, _, last = name.rpartition(".")
        file.write_text(f"{group}:\n  {last}:\n" if group else f"{last}:\n")
        arguments = ["--config", str(file)]
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


def test_only_settings_that_change_a_weight_are_differences_of_the_trajectory() -> None:
    config = TrainConfig()
    moved = dataclasses.replace(
        config,
        run="elsewhere",
        data=dataclasses.replace(config.data, root="elsewhere"),
        sample_every=1,
        checkpoint_every=3,
        tracker="tensorboard",
    )
    assert trajectory_differences(config, moved) == []
    other = dataclasses.replace(config, seed=1, model=ModelConfig(latent_dim=2))
    assert trajectory_differences(config, other) == ["model.latent_dim: 10 -> 2", "seed: 0 -> 1"]


@pytest.mark.parametrize("config_type", [DataConfig, ModelConfig, TrainConfig])
def test_every_setting_has_a_one_line_help_text(
    config_type: type, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(TrainConfig, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    source = Path(str(parse.__globals__["__file__"])).with_name("config.py").read_text()
    for field in dataclasses.fields(config_type):
        if field.name in ("data", "model"):  # groups of flags
            continue
        after = source.split(f"    {field.name}: ", 1)[1].split("\n")[1].strip()
        assert after.startswith('"""'), field.name
        assert after.endswith('"""'), field.name
        assert " ".join(after.strip('"').split()) in text, field.name


def test_svm_settings_must_be_positive() -> None:
    with pytest.raises(UserError, match="--C 0: expected a finite number above 0"):
        SvmConfig(C=0)
