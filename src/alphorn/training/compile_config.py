"""What `compile` said, as plain data for files, and back."""

from typing import Any

from alphorn import losses, metrics, optimizers
from alphorn.naming import deserialize, serialize


def compile_config(model: Any) -> dict[str, Any]:
    """Returns the arguments of `compile` as plain data; nothing where it was not called."""
    if not model.compiled:
        return {}
    given = model._compile_arguments
    steps = model.steps_per_execution
    return {
        "optimizer": optimizers.serialize(model.optimizer),
        "loss": serialize(model.loss),
        "loss_weights": serialize(given["loss_weights"]),
        "metrics": serialize(given["metrics"]),
        "weighted_metrics": serialize(given["weighted_metrics"]),
        "run_eagerly": model.run_eagerly,
        "steps_per_execution": 1 if steps == "auto" else steps,  # Keras knows no "auto"
        "jit_compile": not model.run_eagerly,
    }


def compile_from_config(model: Any, config: dict[str, Any]) -> None:
    """Compiles a model by what `compile_config` gave, or Keras wrote."""
    steps = config.get("steps_per_execution", 1)
    model.compile(
        optimizer=optimizers.deserialize(config["optimizer"]),
        loss=_revived(config.get("loss"), losses.deserialize),
        loss_weights=deserialize(config.get("loss_weights")),
        metrics=_revived(config.get("metrics"), metrics.deserialize),
        weighted_metrics=_revived(config.get("weighted_metrics"), metrics.deserialize),
        run_eagerly=bool(config.get("run_eagerly")),
        steps_per_execution="auto" if steps in (None, 1) else steps,
        auto_scale_loss=False,  # the optimizer in the config is wrapped already
    )


def _revived(tree: Any, revive: Any) -> Any:
    """Returns losses or metrics in the structure in which they were given; names stay names."""
    if isinstance(tree, list | tuple):
        return [_revived(x, revive) for x in tree]
    if not isinstance(tree, dict):
        return tree
    if "class_name" in tree and "config" in tree:
        return revive(tree)
    return {k: _revived(v, revive) for k, v in tree.items()}
