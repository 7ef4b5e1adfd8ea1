"""The state of a network without what belongs to the process that built it.

transformers attaches functions to the layers of a backbone that no pickle can hold, and needs to
have built a backbone of a class once in each process.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_HOOKS = ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
# transformers attaches its functions at the first batch, unless this says that it has done so.
_HAS_HOOKS = "_output_capturing_hooks_installed"


def portable_state(network: nn.Module) -> dict[str, Any]:
    """The attributes of a network as a pickle can hold them; the network itself stays as it is.

    Its modules are copied, without the functions that transformers attached; its tensors are not.
    """
    kept = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    state: dict[str, Any] = copy.deepcopy(vars(network), kept)
    for module in chain(*(part.modules() for part in state["_modules"].values())):
        vars(module).pop(_HAS_HOOKS, None)
        for number in [n for n, hook in module._forward_hooks.items() if _is_of_process(hook)]:  # noqa: SLF001 (nn.Module has no way to list them)
            for name in _HOOKS:
                getattr(module, name).pop(number, None)
    return state


def prepare_process(backbone: PreTrainedModel) -> None:
    """Let transformers know the class of a backbone that it did not build in this process.

    Else the backbone would give no feature maps.
    """
    with torch.device("meta"):
        type(backbone)(copy.deepcopy(backbone.config))


def _is_of_process(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).partition(".")[0] == "transformers"
