"""One model trained with a defense, ready to ship: what the world may query, its history, and who was in it."""

from __future__ import annotations

import hashlib
import json
import secrets
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from relaxloss import defenses, metrics, seeds
from relaxloss.data import Column, Dataset, Encoder, load
from relaxloss.data.dataset import FEWEST_MEMBERS
from relaxloss.data.tabular.frames import encode
from relaxloss.defenses import NONE, Defense
from relaxloss.defenses.base import fitted, released
from relaxloss.errors import UserError, one_line
from relaxloss.models.base import Custom
from relaxloss.provenance import __version__
from relaxloss.specs import build, content_key
from relaxloss.storage.store import pack_arrays, pack_weights, unpack_arrays, unpack_weights, write_atomically
from relaxloss.training import VERSION, Fit, Session, predict
from relaxloss.training.task import Network, Recipe, Samples, Task, encoder_input, make_network
from relaxloss.validation import listed

CARD, NETWORK, RELEASE, SPLIT, HISTORY = (
    "model.json",
    "network.safetensors",
    "release.safetensors",
    "private/split.npz",
    "history.csv",
)
PRIVATE_HISTORY, PRIVATE_CARD = "private/history.csv", "private/model.json"
FINGERPRINT, SEED = "fingerprint", "seed"  # arrays of the split's file
GUESSABLE = "whom a guess of the seed tells the noise (it was given: seed=None draws a secret one)"
DRAWN = "seed.txt"  # beside the checkpoints: the seed of a training that was not told one

FORMAT = 2
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model.

    Attributes:
        release: what the world may query: raw rows → logits, or log-probabilities, ``(B, C)``.
        network: the model beneath it.
        history: loss and accuracy per epoch.
        facts: what the defense reports of itself (DP-SGD's ε), and the test accuracy.
        split: which rows were ``members``, ``test`` and ``reference``; keep it as secret as the data. Empty where a
            model was loaded without it.
        card: specs, shapes and versions; with the weights, all that is needed to load the model again.
        seed: what split, weights, order, DP-SGD's noise and a release's key were drawn from. It is kept with the split,
            which it gives away; None where a model was loaded without it.
        fingerprint: that of the data, by which `relaxloss.audit_model` knows them again; kept with the split, for who
            guesses a person's row could otherwise check the guess. Empty where a model was loaded without it.
    """

    release: nn.Module
    network: Network
    history: pd.DataFrame = field(repr=False)
    facts: dict[str, Any]
    split: dict[str, npt.NDArray[np.int64]] = field(repr=False)  # not into every notebook that ends in `model`
    card: dict[str, Any] = field(repr=False)
    fingerprint: str = field(default="", repr=False)
    seed: int | None = field(default=None, repr=False)

    def predict_log_proba(self, x: npt.NDArray[Any] | pd.DataFrame) -> npt.NDArray[np.float64]:
        """Log-probabilities ``(n, C)``, as the released model gives them, of raw rows or of a table's rows.

        Of a table, the columns that the model was trained on are taken by their names.
        """
        rows = self._rows(x)
        if not len(rows):
            return np.zeros((0, self.card["num_classes"]))
        log_p: npt.NDArray[np.float64] = predict(self.release, torch.from_numpy(rows)).double().log_softmax(1).numpy()
        return log_p

    def _rows(self, x: Any) -> npt.NDArray[Any]:
        """What is given, as raw rows."""
        assert isinstance(self.network.encoder, Encoder)
        columns, shape = self.card["columns"], encoder_input(self.network.encoder, tuple(self.card["shape"]))
        if not isinstance(x, pd.DataFrame):
            return _array(x, shape, "a pandas DataFrame with the columns it was trained on, or " if columns else "")
        if not columns:
            raise UserError(f"the model was trained on {self.card['dataset']}, an array; expected an array, no table")
        return encode(x, [Column.read(*column) for column in columns])

    def predict(self, x: npt.NDArray[Any] | pd.DataFrame) -> npt.NDArray[Any]:
        """The most probable class of each row ``(n,)``: its name where the labels have names, else its number."""
        codes: npt.NDArray[Any] = self.predict_log_proba(x).argmax(1)
        return np.array(self.classes)[codes] if self.classes else codes

    @property
    def classes(self) -> tuple[str, ...]:
        """What the columns of `predict_log_proba` are called; empty where the labels have no names."""
        return tuple(self.card["classes"])

    @property
    def defense(self) -> Defense:
        """What it was trained with."""
        return defenses.parse(self.card["defense"])

    @property
    def recipe(self) -> Recipe:
        """How."""
        return build(Recipe, self.card["recipe"])

    def save(self, folder: Path | str) -> None:
        """Write the model: safetensors and JSON, no pickle; what must not be shipped goes into ``private``.

        Where ε is claimed, that is also what no noise was added to: the training's history, the accuracy on the
        members, and the provenance, which counts rows.
        """
        folder = Path(folder)
        weights = {NETWORK: pack_weights(self.network.state_dict())}
        if self.release is not self.network:
            weights[RELEASE] = pack_weights(self.release.state_dict())
        for name, content in weights.items():
            write_atomically(folder / name, content)
        if RELEASE not in weights:
            (folder / RELEASE).unlink(missing_ok=True)  # of a model that was here before
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in weights.items()}
        history = self.history.to_csv(index=False).encode() if len(self.history) else None
        card, private = self.card | {"facts": self.facts, "sha256": digests}, None
        if "epsilon" in self.facts:
            kept = {name: value for name, value in self.facts.items() if name != "train_accuracy"}
            private, card = json.dumps(card, indent=2).encode(), card | {"facts": kept, "provenance": ""}
        known = {FINGERPRINT: np.array(self.fingerprint), SEED: np.array(str(self.seed))}
        split = pack_arrays(self.split | known) if self.split else None
        files = {SPLIT: split, PRIVATE_CARD: private}
        files |= {HISTORY: history if private is None else None, PRIVATE_HISTORY: history if private else None}
        for name, found in files.items():
            if found is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write_atomically(folder / name, found)
        write_atomically(folder / CARD, json.dumps(card, indent=2))

    @staticmethod
    def load(folder: Path | str, *, trust_code: bool = False) -> Trained:
        """Read a saved model; its ``private`` and its history need not be there.

        A network of somebody's own, ``package.module:function``, is code that loading imports and calls: it is refused
        unless `trust_code` says that the directory is from somebody who may run code here.
        """
        folder = Path(folder)
        damaged = f"{folder}: the saved model is damaged"
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            if card["format"] != FORMAT:
                raise UserError(
                    f"{folder}: the model was saved in format {card['format']}, by relaxloss {card['relaxloss']}; "
                    f"expected format {FORMAT}: load it with that version, or train again"
                )
            if (folder / PRIVATE_CARD).exists() and "epsilon" in card["facts"]:
                card = json.loads((folder / PRIVATE_CARD).read_text(encoding="utf-8"))
            weights = _weights(folder, card.pop("sha256"))
            state = unpack_weights(weights[NETWORK])
            split = unpack_arrays((folder / SPLIT).read_bytes()) if (folder / SPLIT).exists() else {}
            fingerprint, seed = str(split.pop(FINGERPRINT, "")), str(split.pop(SEED, None))
            histories = [path for path in (folder / HISTORY, folder / PRIVATE_HISTORY) if path.exists()]
            history = pd.read_csv(histories[0]) if histories else pd.DataFrame()
            facts, classes = card.pop("facts"), card["num_classes"]
            if len(card["classes"]) not in (0, classes) or any(len(column) not in (3, 5) for column in card["columns"]):
                raise UserError(f"{damaged}: {CARD} names {len(card['classes'])} classes of {classes}, or odd columns")
            if any(type(number) is not int for number in (classes, *card["shape"])):
                raise UserError(
                    f"{damaged}: {CARD} has the shape {card['shape']} and {classes!r} classes; expected ints"
                )
            own = card["recipe"]["model"]
            if own["name"] == Custom.name and not trust_code:
                raise UserError(
                    f"{folder}: its network is no model of relaxloss, but the code {own['function']}, which loading "
                    "would run; if you trust whoever made this directory, say trust_code=True (--trust-code)"
                )
        except FileNotFoundError as error:
            raise UserError(f"{folder} holds no saved model: {Path(error.filename).name} is missing") from None
        except NotADirectoryError:
            raise UserError(f"{folder} is a file; expected the directory that a model was saved in") from None
        except OSError as error:
            raise UserError(f"{damaged}: {error.filename} cannot be read ({error.strerror})") from None
        except UserError:
            raise
        except DAMAGE as error:
            raise UserError(f"{damaged}: {one_line(error)}") from None
        defense, recipe = _specs(card, folder)
        try:
            offset, scale, seen = (torch.zeros_like(state[f"encoder.{name}"]) for name in ("offset", "scale", "seen"))
            encoder = Encoder(offset, scale, seen, card["encoder_sizes"])
            network = make_network(defense.trainer, encoder, tuple(card["shape"]), classes, recipe, 0)
            network.load_state_dict(state)
            release = defense.release(network.eval(), None).eval()
            if RELEASE in weights:
                release.load_state_dict(unpack_weights(weights[RELEASE]))
        except UserError:
            raise
        except DAMAGE as error:
            raise UserError(f"{damaged}: its weights do not fit {CARD}: {one_line(error)}") from None
        return Trained(release, network, history, facts, split, card, fingerprint, _number(seed))


def _number(text: str) -> int | None:
    return int(text) if text.removeprefix("-").isdigit() else None


def _array(x: Any, shape: tuple[int, ...], also: str) -> npt.NDArray[Any]:
    """An array of raw rows ``(n, *shape)``, as the encoder takes it."""
    wanted = f"expected {also}a NumPy array of numbers ({', '.join(map(str, ('n', *shape)))})"
    if not isinstance(x, np.ndarray):
        raise UserError(f"got {type(x).__name__} to predict; {wanted}")
    if x.dtype.kind not in "buif":
        raise UserError(f"got an array of {x.dtype} to predict; {wanted}")
    if x.shape[1:] != shape or not x.ndim:
        raise UserError(f"got an array of shape {x.shape} to predict; {wanted}, one row per sample")
    if len(shape) == 3 and x.dtype != np.uint8:
        scaled = x.dtype.kind == "f" and 0 < x.max(initial=0) <= 1  # to 0..1, as other packages want them
        if scaled or not ((x >= 0) & (x <= 255) & (x == np.floor(x))).all():
            raise UserError(f"got images of {x.dtype} to predict; expected whole numbers from 0 to 255, as in training")
        x = x.astype(np.uint8)
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(x, dtype=np.float32)
    if (infinite := np.isinf(rows).any(axis=1)).any():
        raise UserError(
            f"got infinite values (or beyond float32) in {infinite.sum():,} of {len(rows):,} rows to predict; expected "
            "finite numbers, or NaN where a value is missing"
        )
    return rows


def _specs(card: Mapping[str, Any], folder: Path) -> tuple[Defense, Recipe]:
    """The defense and the recipe of a card; what they name may not be installed here."""
    try:
        defense, recipe = defenses.parse(card["defense"]), build(Recipe, card["recipe"])
        _same_code(recipe, card["recipe"], folder)
    except UserError as error:
        raise UserError(
            f"{folder}: {error} (if the model was made with code of your own, install it, or put it on Python's path)"
        ) from None
    except DAMAGE as error:
        raise UserError(f"{folder}: the saved model is damaged: {one_line(error)}") from None
    return defense, recipe


def _weights(folder: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """The weights' files, as they were saved."""
    found = {name: (folder / name).read_bytes() for name in digests}
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != digests[name]:
            raise UserError(
                f"{folder}: {name} is not as it was saved with {CARD} (damaged, or of another model); copy the whole "
                "directory again, or train again"
            )
    return found


def _same_code(recipe: Recipe, saved: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights for a network of the user's own whose code is another now: they could fit, and mean nothing."""
    now, then = getattr(recipe.model, "source", ""), saved["model"].get("source", "")
    if now != then:
        raise UserError(
            f"{folder}: the code of {recipe.model} has changed since the model was saved (digest {now}; expected "
            f"{then}): the weights belong to the old one. Bring it back, or train again"
        )


def train(
    data: Dataset | str,
    defense: Defense | str = NONE,
    *,
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int | None = 0,
    test: float = 0.2,
    reference: float | None = None,
    checkpoints: Path | str | None = None,
    tell: Any = None,
) -> Trained:
    """Train one model on a data set with a defense.

    Args:
        data: the samples, or a data set's name; a random share `test` is held out for the reported accuracy, and
            `reference` for defenses that need non-members to train against (None: 0.2 for those, 0 for the others).
            Where persons have several samples (``data.groups``), these are shares of the persons, with all that they
            have.
        recipe: None: the paper's for this kind of data.
        seed: of everything that is drawn: the same seed makes the same model again, out of the same data. None, for
            what is shipped: one is drawn from the operating system's secrets, and kept in the model's ``private``. Who
            can guess the seed knows the split and DP-SGD's noise, so that ε is said not to hold against them.
        checkpoints: a directory for checkpoints; a training that was cut off resumes from there, bit for bit.
        tell: called with a `relaxloss.training.Progress` after every epoch.

    Warns if the defense never came to act, and of classes that fewer than 5 members have.

    Raises:
        UserError: the settings do not fit the data.
    """
    defense, data = defenses.parse(defense), load(data) if isinstance(data, str) else data
    recipe = build(Recipe, recipe) if isinstance(recipe, Mapping) else recipe
    secret, seed = seed is None, _drawn(checkpoints) if seed is None else seed
    share = reference if reference is not None else 0.2 * defense.needs_reference()
    if not (0 <= test < 1 and 0 <= share < 1 and test + share < 1):
        raise UserError(
            f"got test={test} and reference={share}; expected shares that leave members: 0 <= test + reference < 1"
        )
    defense.check(data.num_classes)
    if recipe is not None:
        recipe.check()
    _no_identifiers(data)
    persons = data.num_persons
    order = seeds.rng(seed, "split").permutation(persons)
    parts = np.split(order, [int(persons * test), int(persons * (test + share))])
    names = ("test", "reference", "members")
    for name, wanted, part in zip(names, (test, share, 0), parts, strict=True):
        if wanted and not len(part):
            who = "samples" if data.groups is None else "persons"
            raise UserError(
                f"{data.name}: got {name}={wanted} of {persons} {who}, which is nobody; expected enough for one: bring "
                "more, or set it to 0"
            )
    split = {name: data.samples_of(part) for name, part in zip(names, parts, strict=True)}
    _rare_classes(data, split["members"])
    task = Task.of(data, split["members"], reference=split["reference"], recipe=recipe, seed=seed)
    monitor = Samples.of(data, split["test"]).watched(len(task.members))
    folder = None
    if checkpoints is not None:
        key = content_key("train", VERSION, data=data.fingerprint, defense=defense, recipe=task.recipe, seed=seed,
                          test=test, reference=share)  # fmt: skip
        folder = Path(checkpoints) / key
    fit = fitted(defense.trainer, task, Session(folder, monitor=monitor, tell=tell))
    if idle := defense.idle(fit.history):
        warnings.warn(f"{defense} never came to act, so that this is a plainly trained model: {idle}", stacklevel=2)
    return _trained(data, defense, task, fit, split, seed, secret=secret)


def _drawn(checkpoints: Path | str | None) -> int:
    """A secret seed; where checkpoints are kept, the one that the training which is resumed has drawn."""
    path = None if checkpoints is None else Path(checkpoints) / DRAWN
    if path is not None and path.exists():
        return int(path.read_text(encoding="utf-8"))
    seed = secrets.randbits(63)
    if path is not None:
        write_atomically(path, str(seed))
    return seed


def _no_identifiers(data: Dataset) -> None:
    """An identifier names every person in the data, and a model can learn nothing from it."""
    for column in data.columns:
        if column.categories and len(column.categories) > max(20, data.num_persons / 2):
            raise UserError(
                f"{data.name}: column {column.name} has {len(column.categories):,} different texts in {len(data):,} "
                f"rows of {data.num_persons:,} persons, so that it tells persons apart, and a model can learn nothing "
                f"from it: leave it out (--drop {column.name}, or drop=[{column.name!r}] in relaxloss.data.load)"
            )


def _rare_classes(data: Dataset, members: npt.NDArray[np.int64]) -> None:
    counts = data.persons_with(data.y[members], members, data.num_classes)
    rare = [f"{name} ({count})" for name, count in zip(data.classes, counts, strict=False) if count < FEWEST_MEMBERS]
    if rare:  # only names tell something
        warnings.warn(
            f"{data.name}: fewer than {FEWEST_MEMBERS} members have the class {listed(rare)}: the model names it, "
            "which tells that somebody in the data has it, and hardly learns it; leave these rows out or merge classes",
            stacklevel=3,
        )


def _columns(data: Dataset, encoder: Encoder) -> list[list[Any]]:
    """Each column as JSON holds it; of categories that the encoder leaves out, for want of members, the place only."""
    seen = iter(encoder.seen.tolist())
    return [column.written([next(seen) for _ in column.categories or ()]) for column in data.columns]


def _trained(
    data: Dataset, defense: Defense, task: Task, fit: Fit, split: dict[str, npt.NDArray[np.int64]], seed: int, *,
    secret: bool,
) -> Trained:  # fmt: skip
    if defense.snapshot is not None:
        fit.network.load_state_dict(fit.snapshots[defense.snapshot])
    release = released(defense, fit.network.eval(), task).eval()
    facts: dict[str, Any] = dict(fit.facts)
    if "epsilon" in facts:
        if lacks := (*defense.uncovered(data), *(() if secret else (GUESSABLE,))):
            facts["epsilon_does_not_cover"] = "; ".join(lacks)
        if data.most_of_one > 1:
            facts.setdefault("epsilon_is_of", "one sample, and persons have several")
    for name, rows in (("test", split["test"]), ("train", split["members"])):
        if len(rows):
            logits = predict(release, torch.from_numpy(data.x[rows])).numpy()
            facts[f"{name}_accuracy"] = metrics.top_k(logits, data.y[rows], 1)
    card = {
        "format": FORMAT,
        "relaxloss": __version__,
        "torch": torch.__version__,
        "dataset": data.name,
        "provenance": data.provenance,
        "columns": _columns(data, task.encoder),
        "classes": list(data.classes),
        "shape": list(task.shape),
        "num_classes": task.num_classes,
        "encoder_sizes": list(task.encoder.sizes),
        "defense": str(defense),
        "recipe": task.recipe.settings(),
    }
    return Trained(release, fit.network, pd.DataFrame(fit.history), facts, split, card, data.fingerprint, seed)
