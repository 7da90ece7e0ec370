"""The protocols by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sslfast._words import nearest
from sslfast.evaluate.few_shot import FEW, few_shot, few_shot_finetune
from sslfast.evaluate.finetune import FineTuning, finetune
from sslfast.evaluate.knn import knn
from sslfast.evaluate.linear import linear
from sslfast.evaluate.pretext import pretext


@dataclass(frozen=True)
class Protocol:
    """How networks are judged.

    Args:
        judge: takes a network, a task and its own settings as keywords, and returns JSON values: "accuracy" (or, where
            there is none, "loss") and how it went; also "predictions" (N_test,) if it makes one for every test example.
        needs: of a network its "features" only; its "weights", which it trains; or the whole "method".
        tuning: the defaults of the settings by which it trains, if it does.
    """

    judge: Callable[..., dict[str, Any]]
    needs: Literal["features", "weights", "method"] = "features"
    tuning: FineTuning | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting and its default."""
        parameters = inspect.signature(self.judge).parameters.values()
        own = {
            parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
        }
        return own | (vars(self.tuning) if self.tuning else {})


PROTOCOLS: dict[str, Protocol] = {
    "linear": Protocol(linear),
    "knn": Protocol(knn),
    "few-shot": Protocol(few_shot),
    "few-shot-finetune": Protocol(few_shot_finetune, "weights", FEW),
    "finetune": Protocol(finetune, "weights", FineTuning()),
    "pretext": Protocol(pretext, "method"),
}


def settings_of(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a protocol: `options`, and the default where one is None or not given.

    Raises:
        ValueError: there is no such protocol. TypeError: it has no such option.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}{nearest(protocol, PROTOCOLS)}"
        )
    defaults = PROTOCOLS[protocol].settings
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := [name for name in given if name not in defaults]:
        has = ", ".join(defaults) or "none"
        raise TypeError(f"protocol {protocol} has no option {', '.join(unknown)}; it has {has}")
    return defaults | given
