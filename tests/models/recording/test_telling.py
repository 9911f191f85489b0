import torch
from torch import nn

from mirror_analysis.models.recording.telling import Telling


def test_modules_see_all_rows_once_for_each_call():
    x = torch.arange(10.0).reshape(5, 2)
    modules = {"once": nn.Identity(), "thrice": nn.Identity(), "never": nn.Identity()}
    seen = {name: [] for name in modules}
    for name, module in modules.items():
        module.register_forward_hook(lambda m, i, o, name=name: seen[name].append(o))
    telling = Telling(modules)
    for part in x.split(2):
        telling.begin()
        telling("once", part)
        for step in range(3):
            telling("thrice", part + step)
    assert not seen["once"]
    telling.end()
    assert torch.equal(seen["once"][0], x) and len(seen["once"]) == 1
    assert [torch.equal(found, x + step) for step, found in enumerate(seen["thrice"])] == [True] * 3
    assert not seen["never"]
