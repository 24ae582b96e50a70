"""The weights of a ResNet in what people save: containers are opened, prefixes stripped, names made torchvision's.

Works on names and shapes alone. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from models.files import CheckpointError
from models.topology import detect

DEPTH = 4
"""Containers inside of each other that are looked into."""
SHOWN = 12
"""The most keys that an error names."""
WRAPPERS = re.compile(r"(^|\.)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
"""What DataParallel, torch.compile and others insert into names, at any place."""
FIRST = re.compile(r"^(|.*\.)(?:conv1|(?:resnet\.)?embedder\.embedder\.convolution)\.weight$")
"""The name of a network's first convolution; the group is the network's prefix."""
IN_A_BLOCK = re.compile(r"(^|\.)layer\d\.\d+\.$")
HUGGING_FACE = r"^(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\."
STEM = r"^(?:resnet\.)?embedder\.embedder\."
PARTS = {"convolution": "conv", "normalization": "bn"}
COUNTERS = ("n_averaged",)
"""Tensors beside a network's own: torch's AveragedModel counts the averaged states."""
AVERAGED = re.compile(r"ema|averag|swa", re.IGNORECASE)
"""Names of averaged weights (exponential moving average, stochastic weight averaging)."""
CLASSES = ("classes", "class_names", "class_to_idx", "idx_to_class", "id2label", "label_names", "categories")
"""Keys that name the classes, in lower case."""


class Tensor(Protocol):
    """An array or a stored tensor."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Found:
    """The weights in a file."""

    tensors: dict[str, Any]
    """By torchvision's names, if they are a ResNet's."""
    taken_from: str = ""
    """Which of several parts of the file they are, for people; empty if they are all of it."""
    classes: tuple[str, ...] | None = None
    """The names of the classes, if the file has one for each."""

    def described_by(self, about: Mapping[str, str]) -> Found:
        """Return the same weights with what the metadata of a safetensors file say of them."""
        try:
            named = _classes({key: json.loads(value) for key, value in about.items() if key in CLASSES}, self.tensors)
        except ValueError:  # not written as JSON
            named = None
        return replace(self, taken_from=about.get("taken_from") or self.taken_from, classes=named or self.classes)

    def or_named_by(self, config: object) -> Found:
        """Return the same weights with the names of the classes in `config`, if the file itself has none."""
        return replace(self, classes=self.classes or _classes(config, self.tensors))

    def about(self) -> dict[str, str]:
        """Return the metadata of a safetensors file."""
        said = {"taken_from": self.taken_from, "classes": json.dumps(self.classes) if self.classes else ""}
        return {key: value for key, value in said.items() if value}


@dataclass(frozen=True)
class Candidate:
    """A mapping in the file with tensors, or the tensors in it with one prefix."""

    place: tuple[str, ...]
    """The keys that lead to it, and the prefix."""
    tensors: dict[str, Any]

    @property
    def fits(self) -> bool:
        """Return whether the tensors are a ResNet."""
        if "conv1.weight" not in self.tensors:
            return False
        try:
            detect({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})
        except (ValueError, TypeError):
            return False
        return True

    @property
    def is_averaged(self) -> bool:
        """Return whether the names that lead to it say that the weights are averaged."""
        return any(AVERAGED.search(part) for part in self.place)


def find(content: object, refusal: str = "the checkpoint", expected: str = "") -> Found:
    """Return the weights in the content of a file. Averaged weights come before the last ones of the training.

    Weights that are no ResNet's keep their names, so that an error can compare them with what was expected.

    Raises:
        CheckpointError: there is no tensor in it. `refusal` begins the sentence, `expected` ends it.
    """
    candidates = list(_candidates(content))
    if not candidates:
        keys = _listed(_members(content)) or getattr(content, "origin", type(content).__name__)
        raise CheckpointError(f"{refusal} (it holds no tensors but {keys}); {expected}".rstrip("; "))
    fitting = [candidate for candidate in candidates if candidate.fits]
    best = max(fitting, key=lambda c: (c.is_averaged, -len(c.place)), default=None)
    best = best or max(candidates, key=lambda c: (_convolutions(c), len(c.tensors)))
    others = [c for c in fitting if c is not best]
    return Found(best.tensors, _sentence(best, others, content), _classes(content, best.tensors))


def cause(found: Iterable[str]) -> str:
    """Return the most likely cause why tensors of these names are no ResNet's; empty if none is known."""
    names = "\n".join(sorted(found))
    return next((sentence for pattern, sentence in CAUSES if re.search(pattern, names, re.MULTILINE)), "")


CAUSES = (
    (r"^(|.*\.)(patch_embed|blocks\.\d+\.(attn|norm1)|cls_token)", "it is a vision transformer"),
    (r"^(|.*\.)features\.\d+\.", "it is a VGG, DenseNet, MobileNet or EfficientNet"),
    (r"_packed_params|\.scale$|zero_point", "it is quantized already: give the weights in floating point"),
    (r"conv1\.\d+\.weight$", "it is a ResNet-C or -D, whose stem has three convolutions"),
    (r"\.se\.|\.se_module\.", "it is a squeeze-and-excitation ResNet"),
    (r"^(exp_avg|momentum_buffer|state\.\d+)", "it is the state of an optimizer"),
    (
        r"\Alayer1.0.bn1.weight\Z|\A(?!(?s:.*)running_mean)(?s:.*)^bn1\.weight$",
        "only parameters were saved, without BatchNorm's statistics: save net.state_dict()",
    ),
    (r"\A(?!(?s:.*)bn1)(?s:.*)^layer1\.0\.conv1\.bias$", "BatchNorm is folded into the convolutions already"),
    (r"\A(?!(?s:.*)^fc\.)(?s:.*)^layer1\.0\.conv1\.weight$", "it is a backbone without its linear layer, `fc`"),
    (r"^fc\.\d+\.", "its head has more than one linear layer"),
)  # fmt: skip
"""Pattern of the names, one a line in alphabetical order, and what such a file probably is."""


def _candidates(content: object, place: tuple[str, ...] = ()) -> Iterator[Candidate]:
    """Yield every mapping with tensors in the order of the file; those of a ResNet get torchvision's names."""
    members = _members(content)
    tensors = {str(key): value for key, value in members.items() if hasattr(value, "shape")}
    modules = dict(_module_tensors(content))
    if tensors or modules:
        yield from _networks(tensors or modules, place)
    if len(place) < DEPTH and not modules:
        for key, value in members.items():
            yield from _candidates(value, (*place, str(key)))


def _members(content: object) -> Mapping[Any, Any]:
    """Return the members of a dictionary, or the state of an object that is not imported."""
    if isinstance(content, Mapping):
        return content
    state = getattr(content, "state", None)
    return state if isinstance(state, dict) else {}


def _module_tensors(content: object, prefix: str = "", depth: int = 12) -> Iterator[tuple[str, Any]]:
    """Yield names and tensors of the state dict that a pickled module would have."""
    state = getattr(content, "state", None)
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), Mapping) or not depth:
        return
    for part in ("_parameters", "_buffers"):
        members = state.get(part)
        for name, tensor in members.items() if isinstance(members, Mapping) else ():
            if hasattr(tensor, "shape"):
                yield f"{prefix}{name}", tensor
    for name, module in state["_modules"].items():
        yield from _module_tensors(module, f"{prefix}{name}.", depth - 1)


def _networks(tensors: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[Candidate]:
    """Yield the tensors of each network in a state dict; all of them under their own names if there is no network."""
    plain = {WRAPPERS.sub(r"\1", name).replace("..", ".").lstrip("."): name for name in tensors}
    prefixes = [match[1] for name in plain if (match := FIRST.match(name)) and not IN_A_BLOCK.search(match[1])]
    for prefix in prefixes:
        own = {name.removeprefix(prefix): tensors[old] for name, old in plain.items() if name.startswith(prefix)}
        rest = {name: tensors[old] for name, old in plain.items() if not name.startswith(prefix)}
        named = {_renamed(name): tensor for name, tensor in own.items() if name not in COUNTERS}
        yield Candidate((*place, prefix.rstrip(".")) if prefix else place, _with_head(named, rest))
    if not prefixes:
        yield Candidate(place, dict(tensors))


def _renamed(name: str) -> str:
    """Return torchvision's name for Hugging Face's, or that of the usual network for CIFAR-10, of the same tensor."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


RENAMES: tuple[tuple[str, Any], ...] = (
    (STEM + r"(convolution|normalization)\.", lambda m: f"{PARTS[m[1]]}1."),
    (HUGGING_FACE + r"shortcut\.convolution\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0."),
    (HUGGING_FACE + r"shortcut\.normalization\.", lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.1."),
    (
        HUGGING_FACE + r"layer\.(\d+)\.(convolution|normalization)\.",
        lambda m: f"layer{int(m[1]) + 1}.{m[2]}.{PARTS[m[4]]}{int(m[3]) + 1}.",
    ),
    (r"^classifier\.1\.", "fc."),
    (r"^(layer\d\.\d+)\.shortcut\.", r"\1.downsample."),
    (r"^linear\.", "fc."),
)
"""Pattern and replacement: Hugging Face's ResNet, then https://github.com/kuangliu/pytorch-cifar."""


def _with_head(named: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Return the network with its linear layer as `fc`, wherever it is: in a sequence, or beside the backbone."""
    if "fc.weight" in named:
        return named
    layers = [name for name, tensor in (named | rest).items() if len(tensor.shape) == 2 and name.endswith(".weight")]
    if len(layers) != 1:
        return named
    head = layers[0].removesuffix(".weight")
    kept = {name: tensor for name, tensor in named.items() if not name.startswith(f"{head}.")}
    parts = {f"fc.{part}": (named | rest).get(f"{head}.{part}") for part in ("weight", "bias")}
    return kept | {name: tensor for name, tensor in parts.items() if tensor is not None}


def _convolutions(candidate: Candidate) -> int:
    return sum(len(tensor.shape) == 4 for tensor in candidate.tensors.values())


def _sentence(best: Candidate, others: list[Candidate], content: object) -> str:
    """Return which part of the file was taken, and what lies beside it."""
    if not best.place:
        return ""
    kind = "averaged weights " if best.is_averaged and others else ""
    keys = [str(key) for key in _members(content)]
    beside = [key for key in keys if key != best.place[0]] if best.place[0] in keys else []
    return f"{kind}`{'.'.join(best.place)}`" + (f", beside {_listed(beside)}" if beside else "")


def _listed(names: Iterable[Any]) -> str:
    shown = [str(name)[:60] for name in names]
    return ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")


def _classes(content: object, tensors: Mapping[str, Any], depth: int = DEPTH) -> tuple[str, ...] | None:
    """Return the names of the classes anywhere in the file, if there is one for each output of the network."""
    head = tensors.get("fc.weight")
    count = head.shape[0] if head is not None and head.shape else 0
    for key, value in _members(content).items():
        if str(key).lower() in CLASSES and (names := _ordered(value)) and len(names) == count:
            return distinct(names)
        if depth and (found := _classes(value, tensors, depth - 1)):
            return found
    return None


def _ordered(value: object) -> list[str]:
    """Return names in the order of their indices; none if the value has another form."""
    if isinstance(value, list | tuple):
        return [str(name) for name in value] if all(isinstance(name, str) and name for name in value) else []
    pairs = list(value.items()) if isinstance(value, Mapping) else []
    pairs = [(name, index) if _is_index(index) else (index, name) for name, index in pairs]
    if not all(isinstance(name, str) and name and _is_index(index) for name, index in pairs):
        return []
    by_index = {int(index): name for name, index in pairs}
    return [by_index[index] for index in range(len(pairs))] if set(by_index) == set(range(len(pairs))) else []


def _is_index(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdecimal())


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, those that occur more than once with their index, as ImageNet's two kinds of crane."""
    listed = list(names)
    return tuple(name if listed.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(listed))
