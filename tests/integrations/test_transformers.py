"""Hugging Face's Trainer trains what a plain loop trains, and its models can be audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import relaxloss as rl
from relaxloss.compute.engine import Engine
from relaxloss.errors import UserError
from relaxloss.integrations.torch import audit_module
from relaxloss.nn import LabelSmoothing, RelaxLoss

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate, which its Trainer needs, is not installed")
from relaxloss.integrations.transformers import DefendedTrainer  # noqa: E402  # it needs transformers

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and accelerate
N, BATCH, ALPHA = 96, 16, 0.9
TOKENS = torch.randint(3, 40, (N, 6), generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (N,), generator=torch.Generator().manual_seed(1))
ROWS = [{"input_ids": tokens, "labels": label} for tokens, label in zip(TOKENS, LABELS, strict=True)]


def network() -> Any:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=8, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def adam(model: Any) -> Any:
    return torch.optim.Adam(model.parameters(), lr=0.01)


class InOrder(DefendedTrainer):
    def get_train_dataloader(self) -> Any:
        return DataLoader(self.train_dataset, BATCH)


def trainer(folder: Path, epochs: int, criterion: Any, **settings: Any) -> Any:
    given = {"save_strategy": "no", **settings}
    args = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, per_device_train_batch_size=BATCH, use_cpu=True,
        report_to="none", disable_tqdm=True, lr_scheduler_type="constant", max_grad_norm=0.0, logging_strategy="no",
        **given,
    )  # fmt: skip
    model = network()
    return InOrder(
        model, args, train_dataset=ROWS, eval_dataset=ROWS, criterion=criterion, optimizers=(adam(model), None)
    )


def plain(epochs: int, criterion: Any, accumulated: int = 1) -> Any:
    model = network().train()
    optimiser = adam(model)
    below = set()
    for epoch in range(epochs):
        if isinstance(criterion, RelaxLoss):
            criterion.set_epoch(epoch)
        for step, rows in enumerate(torch.arange(N).split(BATCH)):
            logits = model(input_ids=TOKENS[rows]).logits
            below.add((rl.functional.cross_entropy(logits, LABELS[rows]).item() < ALPHA, epoch % 2))
            (criterion(logits, LABELS[rows]) / accumulated).backward()
            if step % accumulated == accumulated - 1:
                optimiser.step()
                optimiser.zero_grad()
    assert {(True, 0), (True, 1)} <= below or not isinstance(criterion, RelaxLoss), (
        "both of the branches below alpha are taken"
    )
    return model


def assert_same(one: Any, other: Any) -> None:
    for mine, own in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize(
    "criterion", [RelaxLoss(alpha=ALPHA), LabelSmoothing(smoothing=0.2)], ids=lambda it: type(it).__name__
)
def test_it_trains_what_a_plain_loop_trains(tmp_path: Path, criterion: Any, accumulated: int) -> None:
    mine = trainer(tmp_path, 25, criterion, gradient_accumulation_steps=accumulated)
    mine.train()
    assert_same(mine.model, plain(25, criterion.train(), accumulated))
    logits = torch.from_numpy(mine.predict(ROWS).predictions)
    assert mine.evaluate()["eval_loss"] == pytest.approx(rl.functional.cross_entropy(logits, LABELS).item(), rel=1e-5)


def test_a_resumed_run_goes_on_with_its_epoch(tmp_path: Path) -> None:
    trainer(tmp_path, 13, RelaxLoss(alpha=ALPHA), save_strategy="epoch", save_total_limit=1).train()
    mine = trainer(tmp_path, 25, RelaxLoss(alpha=ALPHA))
    mine.train(resume_from_checkpoint=True)
    assert_same(mine.model, plain(25, RelaxLoss(alpha=ALPHA)))


def test_a_data_set_without_length_has_epochs_too(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(ROWS)

    class Watched(RelaxLoss):
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)
            super().set_epoch(epoch)

    epochs: list[int] = []
    mine = trainer(tmp_path, 1, Watched(alpha=ALPHA), max_steps=18)
    mine.train_dataset = Stream()
    mine.train()
    assert epochs == [0, 1, 2]


def test_its_model_is_audited_with_shadows_of_the_trainer(tmp_path: Path) -> None:
    def fit(dataset: Any, seed: int) -> Any:
        rows = [{**x, "labels": y} for x, y in (dataset[place] for place in range(len(dataset)))]
        mine = trainer(tmp_path, 25, RelaxLoss(alpha=0.0))
        mine.train_dataset = rows
        mine.train()
        return mine.model

    half = N // 2
    given = [({"input_ids": TOKENS[part]}, LABELS[part]) for part in (slice(0, half), slice(half, N))]
    model = fit([({"input_ids": x}, y) for x, y in zip(*(each[:half] for each in (TOKENS, LABELS)), strict=True)], 0)
    found = audit_module(model, *given, fit=fit, shadows=3, attacks="loss,lira", engine=Engine("inprocess"))
    assert found.worst["auc"] > 0.8


@pytest.mark.parametrize(
    ("criterion", "settings", "says"),
    [
        (torch.nn.CrossEntropyLoss(), {}, "got a CrossEntropyLoss as criterion"),
        (RelaxLoss(alpha=0.5), {"label_smoothing_factor": 0.1}, "another loss beside"),
    ],
)
def test_what_is_no_criterion_is_refused(tmp_path: Path, criterion: Any, settings: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        trainer(tmp_path, 1, criterion, **settings)


def test_a_batch_without_labels_is_refused(tmp_path: Path) -> None:
    mine = trainer(tmp_path, 1, RelaxLoss(alpha=0.5))
    mine.train_dataset = [{"input_ids": tokens} for tokens in TOKENS]
    with pytest.raises(UserError, match="got a batch of input_ids; expected labels"):
        mine.train()
