from __future__ import annotations

from typing import Any

import pytest

from sslfast.methods import METHODS
from sslfast.methods.simclr import SimCLRConfig
from sslfast.recipes import RECIPES

WRONG: dict[str, Any] = {
    "epochs": "ten", "seed": None, "batch_size": 2.0, "nesterov": 1, "learning_rate": "0.1", "momentum": True,
    "betas": [0.9, 0.999], "data": 5, "data_root": 5, "projection_hidden": "wide", "temperature": None,
    "keep_checkpoints": "some", "compile": "yes",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_another_type_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} must be .*, got"):
        SimCLRConfig(**{name: WRONG[name]})


@pytest.mark.parametrize("value", [["sgd"], None, 3])
def test_a_choice_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="optimizer must be one of lars, sgd, adamw, got"):
        SimCLRConfig(optimizer=value)


def test_every_configuration_is_what_its_json_says() -> None:
    for recipe in RECIPES.values():
        config = recipe.config
        assert METHODS[config.method].Config.from_dict(config.to_dict()) == config
    assert SimCLRConfig(learning_rate=1, temperature=1).learning_rate == 1  # an int is a float
