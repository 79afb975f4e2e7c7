"""Lightning's Trainer trains what a plain loop trains, epoch by epoch, also when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import relaxloss as rl
from relaxloss.errors import UserError
from relaxloss.nn import RelaxLoss

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from relaxloss.integrations.lightning import SetEpoch  # noqa: E402  # it needs lightning

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning: few workers, no logger
X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (96,), generator=torch.Generator().manual_seed(1))
ALPHA = 0.9


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.model, self.criterion = network(), criterion
        self.validated: list[float] = []

    def training_step(self, batch: Any, place: int) -> torch.Tensor:
        return self.criterion(self.model(batch[0]), batch[1])

    def validation_step(self, batch: Any, place: int) -> None:
        self.validated.append(self.criterion(self.model(batch[0]), batch[1]).item())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def plain(epochs: int) -> nn.Module:
    model, criterion = network(), RelaxLoss(alpha=ALPHA)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    branches = set()
    for epoch in range(epochs):
        criterion.set_epoch(epoch)
        for x, y in DataLoader(TensorDataset(X, Y), 16):
            logits = model(x)
            branches.add((rl.functional.cross_entropy(logits, y).item() < ALPHA, epoch % 2))
            optimiser.zero_grad()
            criterion(logits, y).backward()
            optimiser.step()
    assert {(True, 0), (True, 1)} <= branches, "both of the branches below alpha are taken"
    return model


def trainer(epochs: int, folder: Path, *callbacks: Any) -> Any:
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, callbacks=list(callbacks),
    )  # fmt: skip


def loaders() -> tuple[Any, Any]:
    return DataLoader(TensorDataset(X, Y), 16), DataLoader(TensorDataset(X, Y), 96)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("given", [False, True])
def test_it_trains_what_a_plain_loop_trains(tmp_path: Path, given: bool) -> None:
    criterion = RelaxLoss(alpha=ALPHA)
    module = Module(criterion)
    trainer(31, tmp_path, SetEpoch(criterion) if given else SetEpoch()).fit(module, *loaders())
    assert same(module.model, plain(31))
    with torch.no_grad():
        assert module.validated[-1] == rl.functional.cross_entropy(module.model(X), Y).item(), "the plain one"


def test_a_resumed_run_goes_on_with_its_epoch(tmp_path: Path) -> None:
    first = trainer(17, tmp_path, SetEpoch())
    first.fit(Module(RelaxLoss(alpha=ALPHA)), loaders()[0])
    first.save_checkpoint(tmp_path / "half.ckpt")
    module = Module(RelaxLoss(alpha=ALPHA))
    trainer(31, tmp_path, SetEpoch()).fit(module, loaders()[0], ckpt_path=tmp_path / "half.ckpt")
    assert same(module.model, plain(31))


def test_a_criterion_that_is_no_part_of_the_module_is_plain_where_it_validates(tmp_path: Path) -> None:
    criterion = RelaxLoss(alpha=ALPHA)
    module = Module(nn.Identity())
    object.__setattr__(module, "criterion", lambda *given: criterion(*given))
    del module._modules["criterion"]
    trainer(3, tmp_path, SetEpoch(criterion)).fit(module, *loaders())
    with torch.no_grad():
        assert module.validated[-1] == rl.functional.cross_entropy(module.model(X), Y).item()
    with pytest.raises(UserError, match="got a CrossEntropyLoss, which does not alternate"):
        SetEpoch(nn.CrossEntropyLoss())  # type: ignore[arg-type]


def test_without_a_criterion_or_the_callback_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Module has no criterion that alternates"):
        trainer(1, tmp_path, SetEpoch()).fit(Module(nn.CrossEntropyLoss()), loaders()[0])
    with pytest.raises(UserError, match="set_epoch"):
        trainer(1, tmp_path).fit(Module(RelaxLoss(alpha=ALPHA)), loaders()[0])
