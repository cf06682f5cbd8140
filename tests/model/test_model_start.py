"""How Keras is started: by which backend, and without what no command uses."""

import importlib
import sys
from pathlib import Path

import pytest

from cct_export import model


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """The folder of Keras' file of settings; no variable names a backend."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "expected"), [("tensorflow", True), ("jax", False)])
def test_the_variable_chooses_the_backend(settings, monkeypatch, name, expected):
    (settings / "keras.json").write_text('{"backend": "torch"}')
    monkeypatch.setenv("KERAS_BACKEND", name)
    assert model._is_tensorflow() is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"backend": "tensorflow"}', True),
        ('{"backend": "jax"}', False),
        ("{}", True),
        ("[]", False),
        ("{", False),
    ],
)
def test_the_file_of_settings_chooses_the_backend(settings, text, expected):
    (settings / "keras.json").write_text(text)
    assert model._is_tensorflow() is expected


def test_tensorflow_is_the_backend_where_nothing_names_one(settings):
    assert model._is_tensorflow()


def test_a_user_needs_no_home(settings, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert model._is_tensorflow()


def test_hidden_libraries_are_missing_only_while_keras_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with model._without(["this", "json"]):
        with pytest.raises(ImportError):
            importlib.import_module("this")
        assert sys.modules["json"], "what is imported already stays"
    assert "this" not in sys.modules
