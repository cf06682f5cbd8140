"""Options of an import: their effects, and that an option without effect is refused."""

import shutil

import keras
import pytest
from published import published_example
from state_dicts import load, state_dict

import cct_export
from cct_export.errors import InvalidRequest
from cct_export.importers import saved_model
from cct_export.importers.source import load_model
from cct_export.specs import ImportSpec

pytest.importorskip("safetensors", reason="safetensors is not installed")


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory, digits_model):
    """A folder of Keras files of each kind."""
    folder = tmp_path_factory.mktemp("keras")
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]).save(
        folder / "other.keras"
    )
    example = published_example()
    example.save(folder / "example.keras")
    example.save_weights(folder / "example.weights.h5")
    shutil.copy(digits_model, folder / "ours.keras")
    return folder


@pytest.mark.parametrize(
    ("name", "option", "value", "reason"),
    [
        ("example.keras", "heads", 2, "the heads follow from the shapes of its weights"),
        ("example.weights.h5", "heads", 2, "the heads follow from the shapes of its weights"),
        ("ours.keras", "heads", 2, "its configuration contains it"),
        ("ours.keras", "gelu", "exact", "its configuration contains it"),
        ("other.keras", "gelu", "exact", "its configuration contains it"),
    ],
)
def test_an_option_without_effect_on_a_keras_file_is_refused(
    refused, keras_files, name, option, value, reason
):
    line = refused(keras_files / name, f"--{option}", value, code=2)
    assert line.startswith(f"error: --{option} does nothing for ")
    assert line.endswith(f"{name}: {reason}; leave it out")


def test_the_gelu_of_the_papers_block_cannot_be_set(refused, saved):
    line = refused(saved(state_dict(64)), "--gelu", "exact", code=2)
    assert line.startswith("error: --gelu does nothing for ")
    assert line.endswith("the GELU of the paper's block is the exact one; leave it out")


@pytest.mark.parametrize("option", [{"heads": 2}, {"gelu": "tanh"}])
def test_heads_and_gelu_of_a_saved_model_cannot_be_set(tmp_path, option):
    with pytest.raises(InvalidRequest, match=f"--{next(iter(option))} does nothing for .*follow"):
        saved_model.load(tmp_path, ImportSpec(**option))


@pytest.mark.parametrize(
    ("kernel", "options", "normalization"),
    [
        (3, {}, "cifar10"),
        (3, {"image_size": 33}, "cifar10"),
        (3, {"image_size": 64}, "cifar10"),
        (3, {"image_size": 64, "normalize": "imagenet"}, "imagenet (as requested)"),
        (7, {}, "imagenet"),
        (7, {"image_size": 32}, "imagenet"),
        (7, {"normalize": "none"}, "none (as requested)"),
    ],
)
def test_the_normalization_follows_from_the_tokenizer_with_a_note(
    saved, kernel, options, normalization
):
    path = saved(state_dict(64, kernel=kernel, positional=False))
    imported = load(path, **options)
    assert any(note.endswith(f"normalization {normalization}") for note in imported.notes)
    mean = {"cifar10": (0.4914,), "imagenet": (0.485,), "none": ()}[normalization.split()[0]]
    assert imported.model.spec.mean[:1] == mean


def test_a_small_tokenizer_with_a_hundred_classes_gets_the_normalization_of_cifar100(saved):
    path = saved(state_dict(64, classes=100, positional=False))
    imported = load(path, image_size=33)
    assert imported.model.spec.mean[0] == 0.5071
    assert "normalization cifar100" in imported.notes[0]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("cat\ndog\ncat\n", "label 'cat' occurs twice"),
        ("cat\n dog\nhen\n\tdog \n", "label 'dog' occurs twice"),
        ("cat\n\x1b[31mdog\n", r"label '\x1b[31mdog' cannot be shown"),
        ("cat\nd\x07og\n", r"label 'd\x07og' cannot be shown"),
        ("cat\ndog\u202egpj\n", r"label 'dog\u202egpj' cannot be shown"),
    ],
)
def test_repeated_and_unprintable_labels_are_refused(refused, saved, names, reason):
    path = saved(state_dict(64))
    (path.parent / "names.txt").write_text(names)
    assert reason in refused(path, "--labels", "names.txt", code=2)


def test_labels_may_be_of_any_script_but_not_empty(saved):
    path = saved(state_dict(64, classes=3))
    labels = ("Kätzchen", "狗 🐕", "a b")
    assert load(path, labels=labels).model.spec.labels == labels
    with pytest.raises(InvalidRequest, match="label ' ' cannot be shown"):
        cct_export.import_model(path, output=path.with_suffix(".keras"), labels=("a", " ", "c"))


@pytest.mark.parametrize("suffix", ["SAFETENSORS", "SafeTensors"])
def test_the_suffix_of_a_state_dict_is_recognized_in_any_case(
    saved, tmp_path, in_process, monkeypatch, suffix
):
    monkeypatch.chdir(tmp_path)
    saved(state_dict(64)).rename(f"X.{suffix}")
    ended = in_process("export", "import", f"X.{suffix}")
    assert ended.code == 0, ended.err
    assert load_model("X.keras").model.output_shape == (None, 10)


@pytest.mark.parametrize("name", ["ours.keras", "other.keras", "example.keras"])
def test_the_suffix_of_a_keras_file_is_recognized_in_any_case(keras_files, tmp_path, name):
    shutil.copy(keras_files / name, tmp_path / "M.Keras")
    assert load_model(str(tmp_path / "M.Keras")).source == str(tmp_path / "M.Keras")
    shutil.copy(keras_files / "example.weights.h5", tmp_path / "M.WEIGHTS.H5")
    assert load_model(str(tmp_path / "M.WEIGHTS.H5")).model.count_params() == 416_331
