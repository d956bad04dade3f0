"""Models as programs of their own: StableHLO, which plain JAX runs, and ONNX."""

import contextlib
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.extend.core import jaxpr_as_fun

from alphorn.core.any_size import any_size
from alphorn.core.input_spec import InputSpec
from alphorn.core.masked import Masked, is_masked, mask_of, unmask
from alphorn.core.symbol import Symbol, is_symbol, symbols_in, symbols_like
from alphorn.core.transforms import functional
from alphorn.core.variable import hold
from alphorn.errors import (
    ArgumentError,
    MaskError,
    StateError,
    UnexpectedArgumentError,
    not_installed,
)
from alphorn.files import whole_file
from alphorn.kernels.device import any_device
from alphorn.models.model import Model
from alphorn.saving.weights import may_write
from alphorn.training.compiled import fill_outputs

__all__ = ["export_model"]

_OTHERS = {
    "tf_saved_model": "format='stablehlo', which plain JAX loads",
    "torch": "format='stablehlo'; or save_weights('m.safetensors') for a module of yours in torch",
    "litert": "format='stablehlo'; or save('m.keras') and Keras's own export, in its environment",
    "openvino": "format='stablehlo'; or save('m.keras') and Keras's own export, in its environment",
}


def export_model(
    model: Any,
    filepath: Any,
    format: str = "tf_saved_model",
    verbose: bool | None = None,
    input_signature: Any = None,
    **kwargs: Any,
) -> None:
    """Writes what a model computes, with its weights, as a program that needs no Alphorn.

    Args:
        model: One that is built.
        filepath: Of the file, which is written beside and renamed.
        format: "stablehlo"; or "onnx", for the layers that docs/export.md names.
        verbose: Whether it says what the program takes and gives; by default it does.
        input_signature: In the structure of the inputs: `InputSpec`, `Input(...)`, arrays,
            `Masked`, or `jax.ShapeDtypeStruct` with sizes of `jax.export.symbolic_shape`. By
            default what the model was made of or called on last, of any batch and, where the
            model leaves it open, any number of steps.
        **kwargs: For StableHLO `platforms`, of "cpu", "cuda", "rocm" and "tpu"; by default "cpu"
            alone. For ONNX `opset_version`.

    Raises:
        ArgumentError: another format, a model that does not run on sizes not known yet, or one in
            which something has no ONNX.
        StateError: a model that changes when it is called: one that is stateful, or draws.
    """
    writers = {"stablehlo": (_stablehlo, "platforms"), "onnx": (_onnx, "opset_version")}
    if format not in writers:
        raise ArgumentError(
            "export: format",
            received=repr(format),
            expected="'stablehlo' or 'onnx'",
            fix=_OTHERS.get(format, "model.export('model.stablehlo', format='stablehlo')"),
        )
    write, option = writers[format]
    if unknown := ", ".join(name for name in kwargs if name != option):
        raise UnexpectedArgumentError("export", unknown, option)
    model.need_built("export")
    path = Path(filepath)
    may_write("export", path, True)
    told = write(model, path, input_signature, **kwargs)
    if verbose is None or verbose:
        print(f"{path}: {told}")


def _stablehlo(model: Any, path: Path, signature: Any, platforms: Any = ("cpu",)) -> str:
    _need("flatbuffers", "stablehlo", "export")
    platforms = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    program = _traced(
        model,
        signature,
        lambda run, given: export.export(jax.jit(run), platforms=platforms)(*given),
    )
    with whole_file(path) as beside:
        beside.write_bytes(program.serialize())
    return _described(program.in_tree, program.in_avals, program.out_tree, program.out_avals)


def _onnx(model: Any, path: Path, signature: Any, opset_version: int | None = None) -> str:
    """Writes ONNX: of plain JAX's trace, since jax2onnx's own takes layers for others."""
    to_onnx = _need("jax2onnx", "onnx", "onnx").to_onnx

    def traced(run: Callable, given: list) -> Any:
        leaves, tree = jax.tree.flatten(given)
        program, shapes = jax.make_jaxpr(
            lambda *leaves: run(*jax.tree.unflatten(tree, leaves)), return_shape=True
        )(*leaves)
        return program, shapes, jax.tree.structure((tuple(given), {})), leaves

    program, shapes, tree, leaves = _traced(model, signature, traced)
    outputs, out_tree = jax.tree.flatten(shapes)
    names = _names(jax.tree.unflatten(tree, leaves)[0], ("input", "mask"))
    out_names = _names(shapes if _is_pair(shapes) else (shapes,), ("output", "output_mask"))
    known = {id(v): name for v, name in zip(program.jaxpr.invars, names, strict=True)}
    # A mask that comes out as it came in is one value, which has one name.
    ends = zip(program.jaxpr.outvars, out_names, strict=True)
    out_names = [known.get(id(v), name) for v, name in ends]
    try:
        converted = to_onnx(
            jaxpr_as_fun(program),
            leaves,
            model_name=model.name,
            opset=opset_version or 21,
            input_names=names,
            output_names=None if len({*out_names}) < len(out_names) else out_names,
        )
    except Exception as error:
        raise ArgumentError(
            f"export of '{model.name}': format='onnx'",
            received=f"{_culprit(error)}{type(error).__name__}: {f'{error}'.split(chr(10))[0]}",
            expected="layers of which jax2onnx knows every operation: docs/export.md lists them",
            fix="format='stablehlo' writes all layers; or name sizes by input_signature=",
        ) from error
    with whole_file(path) as beside:
        beside.write_bytes(converted.SerializeToString())
    return _described(tree, leaves, out_tree, outputs)


def _culprit(error: BaseException) -> str:
    """Returns the operation at which a conversion failed, and the code that asked for it."""
    found, trace = "", error.__traceback__
    while trace is not None:
        equation: Any = trace.tb_frame.f_locals.get("eqn")
        if hasattr(equation, "primitive"):
            frames = getattr(equation.source_info.traceback, "frames", ())
            asked = [f for f in frames if "alphorn/layers" in f.file_name.replace(os.sep, "/")]
            where = f" in layers.{Path(asked[-1].file_name).stem}" if asked else ""
            found = f"`{equation.primitive.name}`{where}: "
        trace = trace.tb_next
    return found


def _is_pair(outputs: Any) -> bool:
    """Returns whether masks stand beside the outputs."""
    if not (isinstance(outputs, tuple) and len(outputs) == 2):
        return False
    masks = jax.tree.leaves(outputs[1])
    return bool(masks) and all(m.dtype == bool for m in masks)


def _names(trees: Sequence[Any], kinds: Sequence[str]) -> list[str]:
    """Returns names of data and masks: `input`, `mask`; of several `input_1`, or by their keys."""
    names = []
    for tree, kind in zip(trees, kinds, strict=False):
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        for path in paths:
            parts = [str(getattr(k, "key", getattr(k, "idx", k))) for k in path]
            names.append("_".join([kind, *(parts if len(paths) > 1 else [])]))
    return names


def _need(package: str, format: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise not_installed(f"export: format={format!r}", package, extra) from None


def _described(in_tree: Any, taken: Any, out_tree: Any, given: Any) -> str:
    """Returns what a program takes and gives: `call(float32[batch, 3]) gives float32[batch, 1]`."""

    def typed(tree: Any, avals: Sequence[Any]) -> Any:
        return jax.tree.unflatten(
            tree, [f"{a.dtype}[{', '.join(map(str, a.shape))}]" for a in avals]
        )

    inputs, _ = typed(in_tree, taken)
    outputs = typed(out_tree, given)
    return f"call({', '.join(map(str, inputs))}) gives {outputs}".replace("'", "")


def _traced(model: Any, signature: Any, lower: Callable[[Callable, list], Any]) -> Any:
    """Returns what `lower(run, arguments)` makes of the model's function on sizes not known yet."""
    symbols = _default(model) if signature is None else _given(model, signature)
    run = _function(model, any(s.masked for s in symbols_in(symbols)))
    failure: Exception | None = None
    # Inputs of which each has steps of its own; or, where they meet, all as many.
    for apart in (True, False) if len(jax.tree.leaves(symbols)) > 1 else (False,):
        with any_device():
            try:
                return lower(run, _arguments(symbols, apart))
            except (StateError, MaskError):
                raise
            except Exception as error:
                failure = failure or error
    raise ArgumentError(
        f"export of '{model.name}'",
        received=f"{type(failure).__name__}: {str(failure).splitlines()[0]}",
        expected="layers that run on any batch and any number of steps",
        fix="say the sizes: input_signature=[keras.InputSpec(shape=(8, 100, 4))]",
    ) from failure


def _default(model: Any) -> Any:
    """Returns Symbols for what the model was made of; else for what it was called on last."""
    seen = {k: v for k, v in (model.seen_arguments or {}).items() if symbols_in(v)}
    if model.graph is None:
        if not seen:
            raise ArgumentError(
                f"export of '{model.name}'",
                received="a model that was never called",
                expected="one call of it, or input_signature=",
            )
        return next(iter(seen.values())) if len(seen) == 1 else seen
    inputs = model.graph.input_symbols
    called = next(iter(seen.values()), inputs)
    masks = [getattr(s, "masked", 0) for s in model.graph.flatten(called, model.name)]
    found = [
        Symbol((s.shape[0], *[None] * (rank - 1), *s.shape[max(rank, 1) :]), s.dtype, rank)
        for s, rank in zip(inputs, masks, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(model.graph.inputs), found)


def _given(model: Any, signature: Any) -> Any:
    """Returns Symbols, or what has symbolic sizes already, for an `input_signature`."""

    def symbol(x: Any) -> Any:
        if isinstance(x, InputSpec) and x.shape is not None:
            return Symbol(x.shape, x.dtype)
        if isinstance(x, jax.ShapeDtypeStruct):
            return x
        found = symbols_like(x)
        if not is_symbol(found):
            raise ArgumentError(
                "export: input_signature",
                received=repr(x),
                expected="InputSpec(shape=...), Input(...), an array, Masked or ShapeDtypeStruct",
            )
        return found

    found = jax.tree.map(symbol, signature, is_leaf=lambda x: is_masked(x) or x is None)
    if isinstance(found, list | tuple) and len(found) == 1:
        found = found[0]
    if model.graph is None:
        return found
    structure = jax.tree.structure(model.graph.inputs)
    return jax.tree.unflatten(structure, model.graph.flatten(found, model.name))


def _arguments(symbols: Any, apart: bool) -> list[Any]:
    """Returns what stands for inputs, and for their masks where there are any."""
    scope = export.SymbolicScope()
    leaves, structure = jax.tree.flatten(symbols)

    def sized(shape: Sequence[int | None], number: int) -> Any:
        own = f"_{number + 1}" if apart else ""
        names = ["batch", f"time{own}", *(f"size_{i}{own}" for i in range(2, len(shape)))]
        sizes = [
            name if size is None else str(size)
            for name, size in zip(names[: len(shape)], shape, strict=True)
        ]
        return export.symbolic_shape(", ".join(sizes), scope=scope) if sizes else ()

    data, masks = [], []
    for number, leaf in enumerate(leaves):
        if not is_symbol(leaf):
            data.append(leaf)
            masks.append(None)
            continue
        shape = sized(leaf.shape, number)
        data.append(jax.ShapeDtypeStruct(shape, leaf.dtype))
        rank = leaf.masked
        masks.append(jax.ShapeDtypeStruct(shape[:rank], bool) if rank else None)
    given = [jax.tree.unflatten(structure, data)]
    if any(m is not None for m in masks):
        given.append(jax.tree.unflatten(structure, masks))
    return given


def _function(model: Any, masked: bool) -> Callable:
    """Returns `(inputs, masks) -> outputs`, or `(outputs, masks)` where outputs have masks."""
    variables = model._program("predict_step").variables
    with hold(variables):
        values = [v.slot for v in variables]
    by_name = model.graph is None and len(model.seen_arguments or {}) > 1

    def call(x: Any) -> Any:
        with any_size() if masked else contextlib.nullcontext():
            if by_name and isinstance(x, dict) and set(x) <= set(model.seen_arguments):
                return model(**x, training=False)
            return model(x, training=False)

    def run(inputs: Any, *masks: Any) -> Any:
        if masks:
            leaves, structure = jax.tree.flatten(inputs)
            each = structure.flatten_up_to(masks[0])
            pairs = zip(leaves, each, strict=True)
            inputs = structure.unflatten([x if m is None else Masked(x, m) for x, m in pairs])
        outputs, new = functional(lambda: call(inputs), variables)(values)
        changed = [v.path for v, a, b in zip(variables, values, new, strict=True) if a is not b]
        if changed:
            raise StateError(
                f"export of '{model.name}'",
                received=f"a model that changes when it is called: {', '.join(changed)}",
                expected="a program gives the same each time it is called",
                fix="stateful=False, with states as inputs and return_state=True; of a model that"
                " draws, Model(inputs, outputs) of the part that does not",
            )
        plain = fill_outputs(outputs, model._repeats())
        out_masks = jax.tree.map(mask_of, outputs, is_leaf=is_masked)
        return (plain, out_masks) if jax.tree.leaves(out_masks) else unmask(plain)

    return run


Model.exporter = staticmethod(export_model)
