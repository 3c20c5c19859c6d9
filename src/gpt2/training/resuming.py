"""Going on with a run: its settings, whether they fit what was saved, and what they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gpt2.common.files import short
from gpt2.training.optimization import scheduled_rate
from gpt2.training.settings import TrainConfig
from gpt2.training.state import STATE_NAME, CheckpointStore, read_state

# Settings that say what a validation loss is measured on
MEASURED_ON = ("data", "eval_tokens")


def resumed_config(run: str | Path, changes: dict[str, Any]) -> TrainConfig:
    """The settings of a run's last checkpoint, with those changed that were given.

    ValueError when there is no checkpoint.
    """
    latest = CheckpointStore(run).latest()
    if latest is None:
        raise ValueError(f"{run} holds no checkpoint to resume from")
    return replace(saved_config(latest, read_state(latest)), **changes)


def saved_config(path: Path, state: Mapping[str, Any]) -> TrainConfig:
    """The settings that a checkpoint was made with. ValueError that names the file."""
    known = {spec.name for spec in fields(TrainConfig)}
    settings = {name: value for name, value in state["config"].items() if name in known}
    # on another number of ranks a step still takes the tokens that it took
    settings["total_batch_tokens"] = state.get("total_batch_tokens")
    try:
        return TrainConfig(**settings)
    except ValueError as error:
        raise ValueError(f"{path / STATE_NAME}: {error}") from None


def check_fits(path: Path, state: Mapping[str, Any], config: TrainConfig, step_tokens: int) -> None:
    """ValueError that names every setting which would make another run of this one."""
    saved = dict(state["config"])
    differ = [
        f"{spec.name} was {saved.get(spec.name)!r} and is {getattr(config, spec.name)!r}"
        for spec in fields(TrainConfig)
        if not spec.metadata.get("free")
        and spec.name != "total_batch_tokens"
        and saved.get(spec.name, spec.default) != getattr(config, spec.name)
    ]
    if state["total_batch_tokens"] != step_tokens:
        differ.append(f"tokens per step were {state['total_batch_tokens']} and are {step_tokens}")
    if differ:
        raise ValueError(f"{path} was made with other settings: {'; '.join(differ)}")


def changes(before: TrainConfig, after: TrainConfig, step: int) -> list[str]:
    """Settings of a run of so many steps, saved and now → what to tell, a line each."""
    different = [
        spec.name
        for spec in fields(TrainConfig)
        if spec.name != "total_batch_tokens"
        and getattr(before, spec.name) != getattr(after, spec.name)
    ]
    if not different:
        return []
    shown = [
        f"{name} was {_shown(before, name)} and is {_shown(after, name)}" for name in different
    ]
    lines = [f"note: going on with other settings: {'; '.join(shown)}"]
    turns = {step, before.warmup, after.warmup, before.max_steps, after.max_steps - 1}
    if any(scheduled_rate(i, before) != scheduled_rate(i, after) for i in turns):
        lines.append(_about_the_rate(before, after, step))
    if any(name in different for name in MEASURED_ON):
        lines.append(
            "note: validation losses are measured on other tokens than before; the best one so far "
            "may not be comparable"
        )
    return lines


def _about_the_rate(before: TrainConfig, after: TrainConfig, step: int) -> str:
    """What another schedule means for the learning rate of the next step."""
    was, now = scheduled_rate(step, before), scheduled_rate(step, after)
    ran = f"step {step} ran at {scheduled_rate(step - 1, before):.3e}, " if step else ""
    return (
        f"note: the learning-rate schedule has changed: it warms up for {after.warmup} steps "
        f"(before: {before.warmup}) and ends at step {after.max_steps} (before: "
        f"{before.max_steps}). {ran}step {step + 1} would have run at {was:.3e} and runs at "
        f"{now:.3e}"
    )


def _shown(config: TrainConfig, name: str) -> str:
    value = getattr(config, name)
    return "not set" if value is None else short(value)
