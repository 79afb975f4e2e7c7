"""Training: seeded, resumable bit for bit, and honest in its history."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from relaxloss import data, training
from relaxloss.data import Dataset
from relaxloss.defenses import NONE, Defense, RelaxLoss
from relaxloss.errors import UserError
from relaxloss.experiments import jobs
from relaxloss.games import FiveFolds
from relaxloss.training import Progress, Session, crop_flip, fit
from relaxloss.training.task import Recipe, Samples, Task


def weights(task: Task, method: Defense = NONE, session: Session | None = None) -> torch.Tensor:
    network = fit(method, task, session).network
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_the_loop_equals_a_plain_loop_by_hand(blobs: Dataset) -> None:
    """The oracle: an ordinary loop written from the recipe, on the same initial weights and order."""
    recipe = Recipe(model="mlp:hidden=16", epochs=5, milestones=(3,), batch_size=32)
    task = Task.of(blobs, np.arange(100), recipe=recipe, seed=1)
    from relaxloss import seeds

    with seeds.isolated(1, "init"):
        net = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))
    x = torch.from_numpy(blobs.x[:100])
    x = (x - x.double().mean(0).float()) / x.double().std(0, correction=0).float()
    y = torch.from_numpy(blobs.y[:100])
    order = seeds.generator(1, "order")
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for epoch in range(5):
        optimiser.param_groups[0]["lr"] = 0.1 if epoch < 3 else 0.01
        for index in torch.randperm(100, generator=order).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[index]), y[index]).backward()
            optimiser.step()
    ours = fit(NONE, task).network.net
    for mine, theirs in zip(ours.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_and_no_global_stream_touched(task: Task) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    one = weights(task)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    assert random.getstate() == before[2]
    torch.manual_seed(6)
    assert torch.equal(one, weights(task))
    assert not torch.equal(one, weights(replace(task, seed=4)))


class Cut(Exception):
    pass


def test_emulated_bf16_is_warned_of(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    half = replace(task, recipe=replace(task.recipe, precision="bf16", epochs=1, milestones=()))
    monkeypatch.setattr("relaxloss.training.loop.native_bf16", lambda: False)
    with pytest.warns(UserWarning, match="without bf16 arithmetic.*take precision=float32"):
        fit(NONE, half)
    weights(task)  # no warning: it would be an error
    monkeypatch.setattr("relaxloss.training.loop.native_bf16", lambda: True)
    fit(NONE, half)


@pytest.mark.filterwarnings("ignore:precision=bf16")
@pytest.mark.parametrize(
    "settings", [{}, {"optimiser": "adam", "lr": 0.01, "schedule": "cosine"}, {"precision": "bf16"}]
)
def test_resume_is_bit_for_bit_and_not_vacuous(task: Task, tmp_path: Path, settings: dict[str, object]) -> None:
    task = replace(task, recipe=replace(task.recipe, **settings))  # type: ignore[arg-type]
    method = RelaxLoss(alpha=1.0)
    whole = fit(method, task)
    seen: list[int] = []

    def cut(progress: Progress) -> None:
        seen.append(progress.epoch)
        if len(seen) == 4:
            raise Cut

    session = Session(tmp_path, every=0, tell=cut)
    with pytest.raises(Cut):
        fit(method, task, session)
    resumed = fit(method, task, session)
    assert seen == [1, 2, 3, 4, 4, 5, 6]  # epoch 4 was cut before its checkpoint; epochs 1 to 3 were not redone
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])
    assert whole.history == resumed.history


def test_a_damaged_checkpoint_is_not_trusted(task: Task, tmp_path: Path) -> None:
    session = Session(tmp_path, every=0)
    one = weights(task, session=session)
    path = session.checkpoint
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(one, weights(task, session=session))


def test_watching_changes_nothing(task: Task, blobs: Dataset, tmp_path: Path) -> None:
    monitor = Samples.of(blobs, np.arange(100, 200))
    watched = weights(task, session=Session(tmp_path, every=0, monitor=monitor, tell=lambda _: None))
    assert torch.equal(weights(task), watched)


def test_history_is_what_was_measured(task: Task, blobs: Dataset) -> None:
    monitor = Samples.of(blobs, np.arange(100, 200))
    found = fit(NONE, task, Session(monitor=monitor))
    last = found.history[-1]
    logits = training.predict(found.network, monitor.x)
    losses = nn.functional.cross_entropy(logits, monitor.y, reduction="none")
    assert last["test_loss"] == pytest.approx(losses.mean().item(), rel=1e-6)
    assert last["test_loss_variance"] == pytest.approx(losses.var(correction=0).item(), rel=1e-5)
    assert [row["epoch"] for row in found.history] == [1, 2, 3, 4, 5, 6]
    assert [row["lr"] for row in found.history] == pytest.approx([0.1] * 4 + [0.01] * 2)
    assert found.history[0]["train_loss"] > last["train_loss"] > 0


def test_a_training_is_watched_on_a_quarter_of_its_size_and_a_shadow_not_at_all(blobs: Dataset) -> None:
    many = Samples(torch.arange(5000.0)[:, None], torch.zeros(5000, dtype=torch.int64))
    sizes = {members: len(many.watched(members) or ()) for members in (100, 1002, 2000, 50_000)}
    assert sizes == {100: 250, 1002: 250, 2000: 500, 50_000: 1000}
    few = many.take(torch.arange(30))
    found = few.watched(1000)
    assert found is not None
    assert torch.equal(found.x, few.x)
    assert few.take(torch.arange(0)).watched(1000) is None

    recipe = Recipe(model="mlp:hidden=8", epochs=2, milestones=(), batch_size=32)
    for row, watched in ((0, True), (1, False)):
        job = jobs.TrainJob("key", blobs, FiveFolds(), 0, row, NONE, recipe, ())
        history = json.loads(jobs.train_and_observe(job).files["train", "key"][jobs.HISTORY])
        assert [("test_loss" in epoch, epoch["train_loss"] > 0) for epoch in history] == [(watched, True)] * 2


def test_schedules() -> None:
    recipe = Recipe(epochs=10, schedule="cosine", lr=1.0)
    assert [recipe.learning_rate(e) for e in (0, 5)] == pytest.approx([1.0, 0.5])
    with pytest.raises(UserError, match=r"milestones 50, 100 lie beyond its 10 epochs.*recipe.lasting\(10\)"):
        Recipe(epochs=10).check()
    Recipe(epochs=10, schedule="cosine").check()
    assert Recipe().lasting(10) == Recipe(epochs=10, milestones=(4, 8))
    assert Recipe().lasting(1).learning_rate(0) == Recipe().lr, "however short, it begins as the recipe says"
    assert Recipe(milestones=(0, 60)).lasting(2).milestones == (0, 1), "but for one that was meant"
    assert Recipe(schedule="constant").learning_rate(119) == 0.1
    assert [Recipe().learning_rate(e) for e in (49, 50, 100)] == pytest.approx([0.1, 0.01, 0.001])


def test_crop_flip_moves_and_mirrors_each_image_by_itself() -> None:
    x = torch.arange(2 * 8 * 8, dtype=torch.float32).reshape(1, 2, 8, 8).repeat(500, 1, 1, 1) + 1
    out = crop_flip(x, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(x[:1], (4, 4, 4, 4))[0]
    views = {}
    for top in range(9):
        for left in range(9):
            view = padded[:, top : top + 8, left : left + 8]
            views[view.numpy().tobytes()] = (top, left, False)
            views[view.flip(2).contiguous().numpy().tobytes()] = (top, left, True)
    seen = [views[image.contiguous().numpy().tobytes()] for image in out]  # a KeyError is no crop at all
    tops, lefts, flips = zip(*seen, strict=True)
    assert set(tops) == set(lefts) == set(range(9))
    assert 0.4 < np.mean(flips) < 0.6


def test_images_train_with_augmentation_and_channels_last(images: Dataset) -> None:
    recipe = Recipe(model="resnet20:blocks=1,width=4", epochs=2, milestones=(), batch_size=20, augment="crop_flip")
    task = Task.of(images, np.arange(40), recipe=recipe)
    last = fit(NONE, task)
    assert math.isfinite(last.history[-1]["train_loss"])
    plain = fit(NONE, replace(task, recipe=replace(recipe, channels_last=False)))
    for one, other in zip(last.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_bad_tasks_are_explained(blobs: Dataset) -> None:
    with pytest.raises(UserError, match="at least 2"):
        Task.of(blobs, np.arange(1))
    with pytest.raises(UserError, match="both member and reference"):
        Task.of(blobs, np.arange(10), reference=np.arange(9, 20))
    with pytest.raises(UserError, match="for images"):
        fit(NONE, Task.of(blobs, np.arange(10), recipe=Recipe(augment="crop_flip")))
    with pytest.raises(UserError, match="takes images"):
        fit(NONE, Task.of(blobs, np.arange(10), recipe=Recipe(model="resnet20")))


def test_the_method_is_active_where_it_is_tested(blobs: Dataset) -> None:
    """RelaxLoss holds the members' mean loss near alpha where plain training goes far below it."""
    recipe = Recipe(model="mlp:hidden=64", epochs=60, milestones=(40,), batch_size=32)
    task = Task.of(blobs, np.arange(100), recipe=recipe)
    none, relaxed = fit(NONE, task), fit(RelaxLoss(alpha=0.6), task)
    assert none.history[-1]["train_loss"] < 0.1
    assert relaxed.history[-1]["train_loss"] == pytest.approx(0.6, abs=0.1)
    assert relaxed.history[-1]["train_loss_variance"] > 10 * none.history[-1]["train_loss_variance"]


def test_alpha_zero_is_no_defense_bit_for_bit(task: Task) -> None:
    assert torch.equal(weights(task), weights(task, RelaxLoss(alpha=0)))
    assert not torch.equal(weights(task), weights(task, RelaxLoss(alpha=1)))


def test_a_loop_by_hand_with_the_criterion_equals_the_defense_bit_for_bit(blobs: Dataset, tiny_recipe: Recipe) -> None:
    from relaxloss import seeds
    from relaxloss.nn import RelaxLoss as Criterion
    from relaxloss.training.task import make_network

    recipe = replace(tiny_recipe, epochs=12)
    task = Task.of(blobs, np.arange(100), recipe=recipe, seed=9)
    method = RelaxLoss(alpha=0.8, upper=0.9)
    ours = fit(method, task)
    assert any(row["train_loss"] < 0.8 for row in ours.history), "the method must have acted"
    network = make_network(method, task.encoder, task.shape, task.num_classes, recipe, 9)
    optimiser = torch.optim.SGD(network.net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    criterion = Criterion(alpha=0.8, upper=0.9)
    order = seeds.generator(9, "order")
    for epoch in range(12):
        criterion.set_epoch(epoch)
        optimiser.param_groups[0]["lr"] = recipe.learning_rate(epoch)
        for index in torch.randperm(100, generator=order).split(32):
            optimiser.zero_grad()
            criterion(network(task.members.x[index]), task.members.y[index]).backward()
            optimiser.step()
    for one, other in zip(ours.network.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_encoded_tables_train(table: Dataset, tiny_recipe: Recipe) -> None:
    task = Task.of(table, np.arange(120), recipe=replace(tiny_recipe, epochs=30))
    assert table.shape == (5,)
    assert fit(NONE, task).history[-1]["train_accuracy"] > 0.9
    assert data.Encoder.blank(table)(torch.from_numpy(table.x[:2])).shape == (2, 5)
