"""Get a torch module from a user's function, which a roster file names."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from embedcore.errors import FactoryError, UnsupportedModel
from embedcore.plain import one_line
from embedcore.zoo.graphs import constants, is_training
from embedcore.zoo.own_models import OwnModel
from embedcore.zoo.state_files import is_memory
from embedcore.zoo.weights import Weights


def make_module(own_model: OwnModel, *, seed: int = 0) -> tuple[nn.Module, Weights]:
    """Return the module of an own model's factory, in eval mode, without gradients, and its weights by their content.

    The factory is imported with the folder of the roster file and the one in which pytest was started at the head of
    ``sys.path``, and called without arguments, with torch's generator at ``seed``. The module must map normalised
    pixels float32 [b, 3, h, w] to vectors [b, d], tokens [b, t, d], maps [b, c, h, w], or a list or tuple of these, of
    which the last counts. TorchScript, traced, frozen, exported, compiled and quantized modules are allowed; an
    ExportedProgram means its module.

    Raises FactoryError for any exception of importing or calling it, and UnsupportedModel if it returns no module.
    """
    name, _, function = str(own_model.factory).partition(":")
    where = f"{own_model.name}: factory {own_model.factory}"
    own_model.make_importable()
    try:
        module = importlib.import_module(name)
    except Exception as error:  # code of the user
        raise _failed(f"{where} cannot be imported", error) from error
    factory: Callable[[], Any] | None = getattr(module, function, None)
    if not callable(factory):
        close = difflib.get_close_matches(function, [key for key in vars(module) if not key.startswith("_")], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FactoryError(f"{where}: {module.__file__ or name} has no function {function!r}{hint}")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # random weights are the same each time
            made = factory()
    except Exception as error:  # code of the user
        raise _failed(f"{where} raised", error) from error
    if isinstance(made, torch.export.ExportedProgram):
        made = made.module()
    if not isinstance(made, nn.Module):
        raise UnsupportedModel(f"{where} returns a {type(made).__name__}, not a torch.nn.Module")
    _to_eval(made)
    if is_training(made):
        raise UnsupportedModel(f"{where}: the module was traced or exported in training mode: call eval() first")
    for parameter in made.parameters():  # TorchScript modules have no requires_grad_
        parameter.requires_grad_(False)
    return made, Weights(own_model.source, content_of(made))


def content_under_another_seed(own_model: OwnModel | None) -> str:
    """Return the ``id`` of a factory's weights under another seed than usual; "" for a model without a factory.

    It differs from the usual one if the weights, or a part of them, are random. The module is not kept. Raises as
    :func:`make_module` does.
    """
    return make_module(own_model, seed=1)[1].id if own_model is not None and own_model.factory else ""


def _to_eval(made: nn.Module) -> None:
    try:
        made.eval()
    except NotImplementedError:  # exported modules stay in the mode in which they were exported
        if not any(isinstance(part, torch.fx.GraphModule) for part in made.modules()):
            raise
        for part in made.modules():
            part.training = False


def _failed(what: str, error: Exception) -> FactoryError:
    if is_memory(error):
        raise error
    return FactoryError(f"{what}: {type(error).__name__}: {one_line(str(error))[:300]}".removesuffix(": "))


def content_of(module: nn.Module) -> str:
    """Return ``sha256:`` and 16 hex digits over the names, types, shapes and values of a module's state dict, in order.

    Names are without torch.compile's prefix; quantized weights and the constants of frozen TorchScript are included.
    """
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        _add(digest, name.replace("_orig_mod.", ""), value)
    for value in constants(module):
        _add(digest, "constant", value)
    return f"sha256:{digest.hexdigest()[:16]}"


def _add(digest: Any, name: str, value: object) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        plain = value.detach().cpu()
        plain = plain.dequantize() if plain.is_quantized else plain.to_dense()
        digest.update(plain.contiguous().view(-1).view(torch.uint8).numpy().data if plain.numel() else b"")
    elif isinstance(value, list | tuple):  # packed weights of quantized layers
        for part in value:
            _add(digest, name, part)
    else:  # other objects that a module adds to its state
        digest.update(f"{name} {type(value).__name__}\n".encode())
