"""The house itself: floors, sizes, rooms and their public names, rows and rules of layers."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import keras
import pytest

import alphorn
from alphorn import naming
from cases import LAYERS, WITHOUT_ROW
from rows_training import COMMON, LABEL_METRICS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES
from stubs import ROOMS as TABLES
from stubs import stub_text

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "alphorn"

# A module imports from lower floors, and from those before it in its own wing (a line of names).
FLOORS: list[list[str]] = [
    [
        """errors config distribution.current distribution.mesh distribution.processes
        distribution.placing distribution.strategies distribution
        files charts loading program_cache host_memory naming serialization fields""",
    ],
    [
        """core core.context core.scope core.signature core.rules core.refusal core.assignment
        core.variable core.transforms core.random core.masked core.any_size core.symbol
        core.function_call core.watching core.given_masks core.tracking core.input_spec core.calls
        core.door core.layer""",
    ],
    [
        """kernels kernels.device kernels.products kernels.geometry kernels.stepping kernels.cells kernels.blocks kernels.loops
        kernels.recurrence kernels.moments kernels.embedding kernels.formulations
        kernels.convolution kernels.gates kernels.pooling kernels.adaptive kernels.resizing
        kernels.flash kernels.attention ops.table ops.rules
        ops.operators ops.core ops.elementwise ops.shape ops.selection ops.steps ops.reduction
        ops.quantiles ops.parts ops.windows ops.signal ops.linalg ops.nn ops.network ops""",
    ],
    [
        "activations",
        "random",
        "initializers",
        "regularizers",
        "constraints",
    ],
    [
        """layers.older layers.core layers.dense layers.einsum_dense layers.embedding layers.layout
        layers.convolution layers.convolution_transpose layers.separable layers.pooling
        layers.adaptive_pooling layers.cells layers.recurrent layers.cudnn layers.convolution_cell
        layers.convolution_recurrent layers.wrappers layers.spectral_normalization layers.attention
        layers.multi_head layers.normalization layers.noise layers.mask_tools layers.reshaping
        layers.resizing layers.merging layers.activation layers.lambda_ layers""",
        """losses.pairs losses.functions losses.alignment losses.batches losses.base
        losses.classes losses metrics.base
        metrics.accuracies metrics.correlations metrics.means metrics.confusion metrics.tradeoffs
        metrics.overlaps metrics.scores metrics""",
        "schedules optimizers.schedules optimizers.state optimizers.base optimizers.rules optimizers.scaling optimizers",
    ],
    [
        """training training.interrupts training.ahead training.events training.progress training.profile training.monitors training.callbacks
        training.background training.checkpoints
        training.shapes training.ragged training.workers training.known training.trimming
        training.lengths training.groups training.data training.streams training.calls training.lanes training.step training.compiled
        training.preparing training.outputs training.cutting training.rounding training.position training.report training.table_rows training.stepping
        training.measuring training.loop training.backup training.orbax training.compile_config""",
    ],
    [
        """models.graph models.operations models.legacy_configs models.config models.nested models.older models.capture models.row_groups
        models.model models.sequential flow summary
        viz.layout viz.style viz.boxes viz.drawing viz.picture viz.models viz.dot
        viz.attention viz.projection viz.tensorboard viz callbacks
        checking.running checking.batches checking.comparing checking.wording checking
        saving.places saving.attributes saving.stores saving.legacy_weights saving.weights saving.configs
        saving.legacy_writing saving.legacy_h5 saving.archive saving.export saving models""",
        """preprocessing.image.packages preprocessing.image.arrays preprocessing.image.affine
        preprocessing.image.color preprocessing.image.resize preprocessing.image.files
        preprocessing.image.iterators preprocessing.image.batches preprocessing.image.memory
        preprocessing.image.folders preprocessing.image.frames preprocessing.image.normalization
        preprocessing.image.generator preprocessing.image preprocessing.lists preprocessing.words
        preprocessing.numbering preprocessing.tokenizer preprocessing.text preprocessing.draws preprocessing.py_dataset preprocessing.windows
        preprocessing.sequence
        preprocessing.directories preprocessing.datasets preprocessing
        utils.downloads utils.splitting
        datasets.source datasets.words datasets.cifar datasets.mnist datasets.fashion_mnist
        datasets.cifar10 datasets.cifar100 datasets.imdb datasets.reuters datasets.boston_housing
        datasets.california_housing datasets""",
    ],
    [
        "utils scikit_learn wrappers",
        """backend.nodes backend.rows backend.state backend.network backend.graphs backend""",
    ],
    [
        "",  # the package itself: names only
    ],
    [
        "legacy.tables legacy.tensorflow legacy.finder legacy __main__",
    ],
]

# Imported where they are used, so that the package works without them.
OPTIONAL = frozenset(
    "cv2 flatbuffers grain matplotlib orbax pandas PIL pydot resvg_py safetensors scipy sklearn tensorboardX tensorflow torch".split()
)
REQUIRED = frozenset("alphorn h5py jax jaxlib numpy optax rich".split())

# Layers whose call knows what becomes of a mask, or that make no outputs of their own.
WITHOUT_RULE = {
    "Lambda": "the function in it speaks of masks, as a user's own layer does",
    "Wrapper": "what a wrapped layer does is known to its subclasses only",
    "Model": "its layers have the rules, and a subclass receives the Masked itself",
}

# Names that stand where Keras 3 has none, though it has them elsewhere.
ELSEWHERE = {
    "alphorn.backend": "the room of K; Keras's config has a function of the name as well",
    "alphorn.distribution": "the room of meshes; a function in it has the name as well",
    "alphorn.InputLayer": "beside Input, as in Keras 1; it is at layers.InputLayer as well",
    "alphorn.SeedGenerator": "beside Variable: both are state that a layer of one's own may hold",
    "alphorn.preprocessing.text.one_hot": "Keras 2's place and meaning: words to numbers",
}

NAMES = {
    ".".join(p.relative_to(SOURCE).with_suffix("").parts).replace("__init__", "").strip("."): p
    for p in sorted(SOURCE.rglob("*.py"))
}
TREES = {name: ast.parse(p.read_text(encoding="utf-8")) for name, p in NAMES.items()}


def imports_of(name: str) -> set[str]:
    """Returns the modules of the package that a module imports, type-checking imports included."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            targets = [(node.module, f"{node.module}.{a.name}") for a in node.names]
        elif isinstance(node, ast.Import):
            targets = [(a.name, a.name) for a in node.names]
        else:
            continue
        for module, member in targets:
            if (module or "").split(".")[0] == "alphorn":
                inner = [t.removeprefix("alphorn").removeprefix(".") for t in (member, module)]
                found.add(inner[0] if inner[0] in NAMES else inner[1])
    return found


def test_every_module_has_its_place() -> None:
    placed = [n for floor in FLOORS for wing in floor for n in wing.split() or [""]]
    assert sorted(placed) == sorted(NAMES), "FLOORS lists each module once"


def test_imports_go_down() -> None:
    below: set[str] = set()
    wrong = []
    for floor in FLOORS:
        for wing in floor:
            before = set(below)
            for name in wing.split() or [""]:
                wrong += [f"{name} imports {i}" for i in sorted(imports_of(name) - before)]
                before.add(name)
        below.update(n for wing in floor for n in wing.split() or [""])
    assert not wrong


def outer_imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, a.name.split(".")[0]) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, (node.module or "").split(".")[0]


def test_only_optional_extras_are_imported_inside_functions() -> None:
    wrong = []
    for name, tree in TREES.items():
        functions = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        inside = {node: module for f in functions for node, module in outer_imports(f)}
        wrong += [f"{name}:{n.lineno}: {m} inside" for n, m in inside.items() if m not in OPTIONAL]
        wrong += [
            f"{name}:{node.lineno}: {module} at the top"
            for node, module in outer_imports(tree)
            if node not in inside and module not in REQUIRED | sys.stdlib_module_names
        ]
    assert not wrong


def lines_of_code(name: str) -> int:
    """Returns how many lines hold code: no blanks, comments or docstrings."""
    lines = NAMES[name].read_text(encoding="utf-8").splitlines()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(TREES[name]):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (
                (text.end_lineno or text.lineno) - text.lineno + 1
            )
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)


def test_rooms_are_small_and_the_house_too() -> None:
    files = [*NAMES.values(), *sorted((ROOT / "tests").glob("*.py"))]
    long = {p.name: n for p in files if (n := len(p.read_text("utf-8").splitlines())) > 500}
    assert not long
    assert sum(map(lines_of_code, NAMES)) < 33_000


OURS = {
    c.__name__: c for c in naming.names_of("layers").values() if c.__module__.startswith("alphorn.")
}


def is_sentence(reason: str) -> bool:
    return len(reason.split()) >= 4


def test_every_layer_has_a_row_or_a_reason() -> None:
    rows = {c.name for c in LAYERS}
    assert set(OURS) - rows == set(WITHOUT_ROW)
    assert not rows - set(OURS)


def test_every_layer_has_a_mask_rule_or_a_reason() -> None:
    without = {n for n, c in OURS.items() if c.masking is None}
    assert without == set(WITHOUT_RULE)


def test_exemptions_have_reasons() -> None:
    rows = (LAYERS, LOSSES, METRICS, LABEL_METRICS, OPTIMIZERS, COMMON, SCHEDULES)
    reasons = [r for table in rows for row in table for r in row.exempt.values()]
    reasons += [*WITHOUT_ROW.values(), *WITHOUT_RULE.values(), *ELSEWHERE.values()]
    assert not [r for r in reasons if not is_sentence(r)]


def rooms(module: ModuleType = alphorn, path: str = "alphorn") -> Iterator[tuple[str, ModuleType]]:
    """Yields the public modules: the package's, and those in the `__all__` of such a one."""
    yield path, module
    for name in module.__all__:
        inner = getattr(module, name)
        if isinstance(inner, ModuleType):
            yield from rooms(inner, f"{path}.{name}")


ROOMS = dict(rooms())


def ruff_order(name: str) -> tuple:
    """Returns what ruff sorts `__all__` by: CONSTANTS, Classes, the rest, numbers as numbers."""
    kind = 0 if re.fullmatch(r"[A-Z0-9_]{2,}", name) else 1 if name[0].isupper() else 2
    return kind, [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("path", ROOMS)
def test_a_room_names_what_it_has(path: str) -> None:
    room = ROOMS[path]
    names = list(room.__all__)
    assert names in (sorted(set(names)), sorted(set(names), key=ruff_order))
    for name in names:
        target = getattr(room, name)
        if inspect.isclass(target) or inspect.isroutine(target):
            assert (target.__doc__ or "").strip(), f"{path}.{name} has no docstring"
        elif isinstance(target, ModuleType):
            assert importlib.import_module(f"{path}.{name}") is target


def keras_rooms(module: ModuleType = keras, path: str = "keras") -> Iterator[tuple[str, list[str]]]:
    """Yields the public modules of Keras with the names in each."""
    public = {n: v for n, v in vars(module).items() if not n.startswith("_") and n != "src"}
    yield path, [n for n, v in public.items() if not isinstance(v, ModuleType)]
    for name, inner in public.items():
        if isinstance(inner, ModuleType) and inner.__name__ == f"{path}.{name}":
            yield from keras_rooms(inner, f"{path}.{name}")


def test_names_stand_where_keras_has_them() -> None:
    places: dict[str, set[str]] = {}
    for path, names in keras_rooms():
        for name in names:
            places.setdefault(name, set()).add(path.replace("keras", "alphorn", 1))
    moved = {
        f"{path}.{name}"
        for path, room in ROOMS.items()
        for name in room.__all__
        if name in places and path not in places[name] and path != "alphorn.backend"
    }  # the backend's names are Keras 2's, of which Keras 3 has many in ops
    assert moved == set(ELSEWHERE)


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.parent.name)
def test_a_stub_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == stub_text(TABLES[path]), "run: make stubs"
    assert (SOURCE / "py.typed").exists()


# One letter of each stands in brackets, so that this line does not match itself.
UNDONE = re.compile(
    r"\bTOD[O]\b|\bFIXM[E]\b|NotImplementedErro[r]|\bski[p](if)?\(|importorski[p]|xfai[l]"
)
MACHINE = re.compile(r"(?<![\w.~/$}-])/(home|root|tmp|work|Users|opt|mnt|data)/\w")


def test_nothing_is_left_undone_and_no_machine_is_named() -> None:
    texts = [ROOT / n for n in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile")]
    for folder in ("src", "tests", "examples", "benchmarks", "docs"):
        texts += [
            p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".pyi", ".md", ".toml")
        ]
    wrong = [
        f"{p.relative_to(ROOT)}:{i}"
        for p in texts
        for i, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)
        if UNDONE.search(line) or MACHINE.search(line)
    ]
    assert not wrong
