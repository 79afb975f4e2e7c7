"""The losses against slow references: the printed formulas in plain Python, and numeric derivatives of those."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from relaxloss import functional as R
from relaxloss.errors import UserError
from relaxloss.functional import relax
from relaxloss.functional.relax import Flatten

Rows = list[list[float]]
FLATTENS = ("all", "misclassified", "official")
INF = float("inf")


def batch(seed: int, b: int = 8, c: int = 5, *, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(b, c, generator=generator, dtype=dtype) * scale,
        torch.randint(c, (b,), generator=generator),
    )


def value_and_gradient(loss: Callable[..., torch.Tensor], logits: torch.Tensor, targets: torch.Tensor) -> Any:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, targets)
    value.backward()
    assert value.shape == ()
    return value.detach(), leaf.grad


def choosing_on(place: str) -> contextlib.AbstractContextManager[Any]:
    """The branch chosen by the host, as on a CPU, or on the device, as on a GPU."""
    return contextlib.nullcontext() if place == "host" else mock.patch.object(relax, "_on_host", return_value=None)


# --- the slow references ----------------------------------------------------------------------------------------------


def log_softmax(z: Sequence[float]) -> list[float]:
    top = max(z)
    norm = top + math.log(sum(math.exp(v - top) for v in z))
    return [v - norm for v in z]


def mean_loss(z: Rows, y: list[int]) -> float:
    return -sum(log_softmax(row)[label] for row, label in zip(z, y, strict=True)) / len(y)


def soft_label(row: Sequence[float], label: int, upper: float) -> list[float]:
    p = math.exp(log_softmax(row)[label])
    true = min(p, upper)
    return [true if c == label else (1 - true) / (len(row) - 1) for c in range(len(row))]


def reference(
    z0: Rows, y: list[int], alpha: float, ascent: bool, flatten: str, upper: float, stop_gradient: bool = True
) -> Callable[[Rows], float]:
    """Algorithm 1's loss of one step; the branch is fixed at z0, and with the stop-gradient the soft labels are."""
    loss0 = mean_loss(z0, y)
    if loss0 >= alpha:
        return lambda z: mean_loss(z, y)
    if ascent:
        return lambda z: 2 * alpha - mean_loss(z, y)
    soft = [soft_label(row, label, upper) for row, label in zip(z0, y, strict=True)]
    wrong = [max(range(len(row)), key=row.__getitem__) != label for row, label in zip(z0, y, strict=True)]

    def value(z: Rows) -> float:
        total = 0.0
        for i, row in enumerate(z):
            log_p = log_softmax(row)
            t_i = soft[i] if stop_gradient else soft_label(row, y[i], upper)
            soft_loss = -sum(t * lp for t, lp in zip(t_i, log_p, strict=True))
            if flatten == "all" or wrong[i]:
                total += soft_loss
            if flatten == "official":
                total += log_p[y[i]]  # minus the sample's cross-entropy
        return total / len(z)

    return value


def numeric_gradient(value: Callable[[Rows], float], z: Rows, step: float = 1e-5) -> torch.Tensor:
    out = torch.zeros(len(z), len(z[0]), dtype=torch.float64)
    for i, row in enumerate(z):
        for c in range(len(row)):
            moved = [list(r) for r in z]
            moved[i][c] = row[c] + step
            up = value(moved)
            moved[i][c] = row[c] - step
            out[i, c] = (up - value(moved)) / (2 * step)
    return out


def assert_like(loss: Callable[..., torch.Tensor], value: Callable[[Rows], float], z: Any, y: Any) -> None:
    """Value and gradient of `loss` equal the reference's, in float64."""
    got, gradient = value_and_gradient(loss, z, y)
    assert got.item() == pytest.approx(value(z.tolist()), rel=1e-10, abs=1e-12)
    torch.testing.assert_close(gradient, numeric_gradient(value, z.tolist()), rtol=1e-6, atol=1e-8)


# --- RelaxLoss --------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    b=st.integers(1, 5),
    c=st.integers(2, 6),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    ratio=st.sampled_from([0.0, 0.5, 0.99, 1.01, 3.0]),
    upper=st.sampled_from([0.05, 0.3, 0.9, 1.0]),
    flatten=st.sampled_from(FLATTENS),
    stop_gradient=st.booleans(),
    ascent=st.booleans(),
    as_tensor=st.booleans(),
    place=st.sampled_from(["host", "device"]),
)
def test_relax_loss_is_algorithm_1(
    seed: int,
    b: int,
    c: int,
    scale: float,
    ratio: float,
    upper: float,
    flatten: Any,
    stop_gradient: bool,
    ascent: bool,
    as_tensor: bool,
    place: str,
) -> None:
    z, y = batch(seed, b, c, scale=scale)
    alpha = ratio * mean_loss(z.tolist(), y.tolist())
    loss = partial(
        R.relax_loss,
        alpha=alpha,
        ascent=torch.tensor(ascent) if as_tensor else ascent,
        flatten=flatten,
        upper=upper,
        stop_gradient=stop_gradient,
    )
    with choosing_on(place):
        assert_like(loss, reference(z.tolist(), y.tolist(), alpha, ascent, flatten, upper, stop_gradient), z, y)


@pytest.mark.parametrize("c", [2, 3, 100])
@pytest.mark.parametrize("upper", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_flattened_targets(c: int, upper: float, dtype: torch.dtype) -> None:
    z, y = batch(0, 32, c, scale=4, dtype=torch.float32)
    y[::2] = z.argmax(1)[::2]
    z = z.to(dtype).requires_grad_()
    t = R.flattened_targets(z, y, upper=upper)
    assert not t.requires_grad
    assert t.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    want = torch.tensor([soft_label(row, label, upper) for row, label in zip(z.tolist(), y.tolist(), strict=True)])
    torch.testing.assert_close(t.float(), want, rtol=1e-5, atol=2e-7)
    torch.testing.assert_close(t.sum(1), torch.ones(32, dtype=t.dtype), rtol=0, atol=1e-6)
    own = t.gather(1, y[:, None])
    assert ((own == own.clamp(max=upper)) & (own > 0)).all()
    assert upper == 1 or (own == upper).any()  # the bound is reached


def test_the_posters_typo_does_not_sum_to_one() -> None:
    z, y = batch(0)
    p = z.softmax(1)
    typo = ((1 - p) / (p.shape[1] - 1)).scatter(1, y[:, None], p.gather(1, y[:, None]))
    assert (typo.sum(1) - 1).abs().max() > 0.1


@pytest.mark.parametrize("upper", [0.2, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flattening_gradient_is_p_minus_t(upper: float, dtype: torch.dtype) -> None:
    z, y = batch(1, 128, 100, dtype=dtype)
    y[::2] = z.argmax(1)[::2]
    p, t = z.softmax(1), R.flattened_targets(z, y, upper=upper)
    wrong = (z.argmax(1) != y)[:, None]
    onehot = F.one_hot(y, 100)
    assert 0 < wrong.sum() < 128
    want = {"all": p - t, "misclassified": wrong * (p - t), "official": wrong * (p - t) - (p - onehot)}
    eps = torch.finfo(dtype).eps
    for flatten in FLATTENS:
        loss = partial(R.relax_loss, alpha=100.0, ascent=False, flatten=flatten, upper=upper)
        _, gradient = value_and_gradient(loss, z, y)
        torch.testing.assert_close(gradient * 128, want[flatten], rtol=0, atol=4 * eps)
    own = value_and_gradient(partial(R.relax_loss, alpha=100.0, ascent=False, upper=upper), z, y)[1].gather(
        1, y[:, None]
    )
    if upper == 1:
        assert own.abs().max() * 128 <= 2 * eps  # zero on the true class, up to rounding
    else:
        assert own.max() * 128 > 0.1  # the bound pushes the true class down


def printed_flattening(z: torch.Tensor, y: torch.Tensor, flatten: str, upper: float) -> torch.Tensor:
    """The released code's formula, composed as it is printed; autograd goes through the soft labels."""
    p, onehot = z.softmax(1), F.one_hot(y, z.shape[1]).double()
    own = (p * onehot).sum(1, keepdim=True).clamp(max=upper)
    t = own * onehot + (1 - own) / (z.shape[1] - 1) * (1 - onehot)
    correct = (z.argmax(1) == y).double()
    losses = {
        "all": -(t * p.log()).sum(1),
        "misclassified": (1 - correct) * -(t * p.log()).sum(1),
        "official": (1 - correct) * -(t * p.log()).sum(1) + (onehot * p.log()).sum(1),
    }
    return losses[flatten].mean()


@pytest.mark.parametrize("upper", [0.2, 1.0])
@pytest.mark.parametrize("flatten", FLATTENS)
def test_without_the_stop_gradient_it_is_autograd_of_the_printed_formula(flatten: Any, upper: float) -> None:
    z, y = batch(28, 128, 20)
    y[::2] = z.argmax(1)[::2]
    loss = partial(R.relax_loss, alpha=100.0, ascent=False, flatten=flatten, upper=upper)
    value, gradient = value_and_gradient(partial(loss, stop_gradient=False), z, y)
    want, want_gradient = value_and_gradient(partial(printed_flattening, flatten=flatten, upper=upper), z, y)
    torch.testing.assert_close(value, want, rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-10, atol=1e-15)

    stopped_value, stopped = value_and_gradient(loss, z, y)
    assert torch.equal(value, stopped_value)
    p, own = z.softmax(1), z.softmax(1).gather(1, y[:, None])
    others = (z.log_softmax(1).sum(1, keepdim=True) - own.log()) / 19
    kappa = torch.where(own < upper, own * (own.log() - others), 0)
    if flatten != "all":
        kappa = kappa * (z.argmax(1) != y)[:, None]
    torch.testing.assert_close(gradient, stopped + kappa * (p - F.one_hot(y, 20)) / 128, rtol=1e-10, atol=1e-15)
    assert (kappa > 0.1).any(), "it pulls samples towards their labels, or this test says nothing"
    assert upper == 1 or ((kappa == 0) & (own >= upper)).any()


def test_ascent_is_minus_the_cross_entropys_gradient() -> None:
    z, y = batch(2, 16, 4)
    plain, down = value_and_gradient(F.cross_entropy, z, y)
    alpha = plain.item() + 0.5
    value, up = value_and_gradient(partial(R.relax_loss, alpha=alpha, ascent=True), z, y)
    assert torch.equal(up, -down)
    assert value.item() == pytest.approx(alpha + 0.5)


def test_confidence_replaces_the_probability_in_the_soft_labels() -> None:
    z, y = batch(3)
    raw = (3 * z).softmax(1).gather(1, y[:, None])[:, 0]
    loss = partial(R.relax_loss, alpha=100.0, ascent=False, confidence=raw)
    _, gradient = value_and_gradient(loss, z, y)
    torch.testing.assert_close(gradient * len(y), z.softmax(1) - R.flattened_targets(3 * z, y), rtol=0, atol=1e-14)


# --- neutral settings: the cross-entropy bit for bit ------------------------------------------------------------------

RELAX_BRANCHES = [
    {"ascent": True},
    {"ascent": False, "upper": 0.3},
    {"ascent": False, "flatten": "misclassified"},
    {"ascent": False, "flatten": "official"},
    {"ascent": False, "stop_gradient": False},
    {"ascent": torch.tensor(True)},
    {"ascent": torch.tensor(False)},
    {"ascent": torch.tensor(False), "stop_gradient": False},
]
NEUTRAL: dict[str, Callable[..., torch.Tensor]] = {
    **{f"relax {i}": partial(R.relax_loss, alpha=0.0, **kw) for i, kw in enumerate(RELAX_BRANCHES)},  # type: ignore[arg-type]
    "cross_entropy": R.cross_entropy,
    "smoothing": partial(R.label_smoothing, smoothing=0.0),
    "penalty": partial(R.confidence_penalty, beta=0.0),
    "flooding": partial(R.flooding, level=0.0),
    "flooding per sample": partial(R.flooding, level=0.0, per_sample=True),
    "ccl": partial(R.ccl, a=1.0, beta=1.0),
    "ccl quadratic": partial(R.ccl, a=1.0, beta=1.0, form="quadratic"),
    "hamp": partial(R.hamp_loss, gamma=0.0, alpha=0.0),
    "distillation": lambda z, y: R.distillation(z, z.detach().flip(0), y, temperature=10.0, weight=0.0),
    "crl": partial(R.crl_loss, alpha=0.0, t=0.0, ascent=False),
    "crl ascent": partial(R.crl_loss, alpha=0.0, t=0.0, ascent=True),
}


def hard_batches() -> list[Any]:
    batches = []
    for seed in range(60):
        b, c = 1 + seed * 7 % 150, 2 + seed * 11 % 120
        dtype = (torch.float32, torch.float64)[seed % 2]
        z, y = batch(seed, b, c, scale=(1e-3, 1.0, 30.0, 1e4, 1e30)[seed % 5], dtype=dtype)
        if seed % 3 == 0:
            y = z.argmax(1)  # a loss of exactly 0 at large scales
        if seed % 7 == 0:
            z[:, 0] = -INF
        if seed % 11 == 0:
            z[0] = 0  # ties
        batches.append((z, y))
    return batches


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_are_the_cross_entropy_bit_for_bit(name: str, place: str) -> None:
    zeros = 0
    for z, y in hard_batches():
        value, gradient = value_and_gradient(F.cross_entropy, z, y)
        with choosing_on(place):
            got, got_gradient = value_and_gradient(NEUTRAL[name], z, y)
        assert got.dtype == z.dtype
        assert torch.equal(got, value)
        assert torch.equal(got_gradient, gradient)
        zeros += value.item() == 0
    assert zeros >= 3  # alpha = 0 was met with L = 0


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("kwargs", RELAX_BRANCHES)
def test_every_descending_step_is_the_cross_entropy_bit_for_bit(kwargs: Any, place: str) -> None:
    for seed in range(20):
        z, y = batch(seed, 64, 10, dtype=torch.float32)
        value, gradient = value_and_gradient(F.cross_entropy, z, y)
        for alpha in (value.item(), 0.7 * value.item()):  # L = alpha descends
            with choosing_on(place):
                got, got_gradient = value_and_gradient(partial(R.relax_loss, alpha=alpha, **kwargs), z, y)
            assert torch.equal(got, value)
            assert torch.equal(got_gradient, gradient)


# --- numbers at their limits ------------------------------------------------------------------------------------------

ACTIVE: dict[str, Callable[..., torch.Tensor]] = {
    **{f"relax {f}": partial(R.relax_loss, alpha=1e6, ascent=False, flatten=f) for f in FLATTENS},  # type: ignore[arg-type]
    "relax ascent": partial(R.relax_loss, alpha=1e6, ascent=True),
    "unstopped relax": partial(R.relax_loss, alpha=1e6, ascent=False, stop_gradient=False),
    "smoothing": partial(R.label_smoothing, smoothing=0.1),
    "penalty": partial(R.confidence_penalty, beta=0.5),
    "flooding": partial(R.flooding, level=1.5),
    "flooding per sample": partial(R.flooding, level=1.5, per_sample=True),
    "ccl": R.ccl,
    "ccl quadratic": partial(R.ccl, form="quadratic"),
    "hamp": partial(R.hamp_loss, gamma=0.5, alpha=0.1),
    "distillation": lambda z, y: R.distillation(z, z.detach().flip(0), y, temperature=10.0, weight=0.5),
    "crl": lambda z, y: F.cross_entropy(R.crl_logits(z, 0.1), y),
    "relax crl": partial(R.crl_loss, alpha=1e6, t=0.1, ascent=False),
    "relax crl ascent": partial(R.crl_loss, alpha=1e6, t=0.1, ascent=True),
}


@pytest.mark.parametrize("name", ACTIVE)
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_extreme_logits_give_finite_values_and_gradients(name: str, scale: float) -> None:
    z, y = batch(4, 16, 6, scale=1, dtype=torch.float32)
    value, gradient = value_and_gradient(ACTIVE[name], z.sign() * scale, y)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("flatten", FLATTENS)
@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("place", ["host", "device"])
def test_masked_classes(flatten: Any, stop_gradient: bool, place: str) -> None:
    with choosing_on(place):
        check_masked_classes(partial(R.relax_loss, flatten=flatten, stop_gradient=stop_gradient))


def check_masked_classes(relax_loss: Any) -> None:
    z, y = batch(5, 16, 6)
    z[:, 0], y = -INF, y.clamp(min=1)
    z[0, 1], y[0] = 1e3, 1  # a sample whose other classes get no mass at all
    value, gradient = value_and_gradient(partial(relax_loss, alpha=1e6, ascent=False), z, y)
    assert value == INF
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    value, gradient = value_and_gradient(partial(relax_loss, alpha=1e6, ascent=True), z, y)
    assert value.isfinite()
    assert gradient.isfinite().all()
    value, gradient = value_and_gradient(partial(R.confidence_penalty, beta=0.5), z, y)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("ascent", [True, False])
def test_an_infinite_or_undefined_mean_loss_is_returned(ascent: bool) -> None:
    z, y = batch(6)
    for bad in (-INF, float("nan")):
        z[0, y[0]] = bad
        torch.testing.assert_close(
            R.relax_loss(z, y, alpha=1e9, ascent=ascent), F.cross_entropy(z, y), equal_nan=True, rtol=0, atol=0
        )


@pytest.mark.parametrize("flatten", FLATTENS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", [100.0, 30.0, 2.0])
def test_a_masked_class_makes_flattening_infinite_and_never_undefined(
    flatten: Flatten, dtype: torch.dtype, margin: float
) -> None:
    z, y = torch.tensor([[margin, 0.0, -INF]], dtype=dtype), torch.tensor([0])
    value, gradient = value_and_gradient(partial(R.relax_loss, alpha=3.0, ascent=False, flatten=flatten), z, y)
    assert value == INF
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ACTIVE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    z, y = batch(7, dtype=torch.float32)
    z = z.to(dtype)
    value, gradient = value_and_gradient(ACTIVE[name], z, y)
    want, want_gradient = value_and_gradient(ACTIVE[name], z.float(), y)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(value, want)
    assert torch.equal(gradient, want_gradient.to(dtype))


# --- what torch can do with them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVE)
def test_no_host_synchronisation(name: str) -> None:
    z = torch.zeros(8, 5, device="meta", requires_grad=True)  # a meta tensor has no value that a host could read
    ACTIVE[name](z, torch.zeros(8, dtype=torch.int64, device="meta")).backward()
    assert z.grad is not None


@pytest.mark.parametrize("name", [name for name in ACTIVE if name != "distillation"])  # whose teacher is the batch
def test_per_sample_gradients_by_vmap(name: str) -> None:
    z, y = batch(8)
    loss = ACTIVE[name]
    got = torch.func.vmap(torch.func.grad(lambda row, label: loss(row[None], label[None])))(z, y)
    want = torch.cat([value_and_gradient(loss, z[i : i + 1], y[i : i + 1])[1] for i in range(len(y))])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("branch", ["descent", "ascent", "flattening"])
def test_second_derivatives(branch: str) -> None:
    z, y = batch(9, 3, 4)
    alpha = 0.0 if branch == "descent" else 100.0
    loss = partial(R.relax_loss, alpha=alpha, ascent=branch == "ascent", upper=0.5)
    p = z.softmax(1)
    block = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # of log-sum-exp; soft labels are constants
    want = torch.zeros(3, 4, 3, 4, dtype=torch.float64)
    for i in range(3):
        want[i, :, i] = (-1 if branch == "ascent" else 1) * block[i] / 3
    torch.testing.assert_close(torch.autograd.functional.hessian(lambda x: loss(x, y), z), want, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.func.jacrev(torch.func.jacrev(lambda x: loss(x, y)))(z), want, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", [name for name in ACTIVE if name != "distillation" and not name.startswith("relax")])
def test_gradcheck(name: str) -> None:
    z, y = batch(10, 4, 3)
    assert torch.autograd.gradcheck(lambda x: ACTIVE[name](x, y), (z.requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda x: ACTIVE[name](x, y), (z,))


@pytest.mark.parametrize("alpha", [0.0, 100.0])
@pytest.mark.parametrize("flatten", FLATTENS)
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_compiles_to_one_graph(alpha: float, flatten: Any, stop_gradient: bool) -> None:
    for ascent in (True, False) if stop_gradient else (False,):
        loss = partial(
            R.relax_loss, alpha=alpha, ascent=ascent, flatten=flatten, upper=0.3, stop_gradient=stop_gradient
        )
        z, y = batch(11)
        torch._dynamo.reset()
        got = value_and_gradient(torch.compile(loss, fullgraph=True, backend="aot_eager"), z, y)
        for a, b in zip(got, value_and_gradient(loss, z, y), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# --- the other losses, each against its printed formula ---------------------------------------------------------------


def entropy(row: Sequence[float]) -> float:
    return -sum(math.exp(lp) * lp for lp in log_softmax(row))


def test_label_smoothing() -> None:
    z, y = batch(20)
    eps, c = 0.2, 5

    def value(rows: Rows) -> float:
        total = 0.0
        for row, label in zip(rows, y.tolist(), strict=True):
            total -= sum((eps / c + (1 - eps) * (k == label)) * lp for k, lp in enumerate(log_softmax(row)))
        return total / len(rows)

    assert_like(partial(R.label_smoothing, smoothing=eps), value, z, y)


def test_confidence_penalty() -> None:
    z, y = batch(21)
    assert_like(
        partial(R.confidence_penalty, beta=0.7),
        lambda rows: mean_loss(rows, y.tolist()) - 0.7 * sum(map(entropy, rows)) / len(rows),
        z,
        y,
    )


@pytest.mark.parametrize("level", [0.3, 5.0])
def test_flooding(level: float) -> None:
    z, y = batch(22)
    labels = y.tolist()
    losses = [mean_loss([row], [label]) for row, label in zip(z.tolist(), labels, strict=True)]
    assert (mean_loss(z.tolist(), labels) < level) == (level == 5.0)
    assert level == 5.0 or min(losses) < level < max(losses)
    assert_like(partial(R.flooding, level=level), lambda rows: abs(mean_loss(rows, labels) - level) + level, z, y)

    def per_sample(rows: Rows) -> float:
        pairs = zip(rows, labels, strict=True)
        return sum(abs(mean_loss([row], [label]) - level) + level for row, label in pairs) / len(rows)

    assert_like(partial(R.flooding, level=level, per_sample=True), per_sample, z, y)


@pytest.mark.parametrize("form", ["exp", "quadratic"])
def test_ccl(form: Any) -> None:
    z, y = batch(23)

    def value(rows: Rows) -> float:
        total = 0.0
        for row, label in zip(rows, y.tolist(), strict=True):
            log_p = log_softmax(row)[label]
            p = math.exp(log_p)
            total += 0.4 * (0.3 * -log_p - 0.7 * (math.exp(p) if form == "exp" else p + p * p / 2))
        return total / len(rows)

    assert_like(partial(R.ccl, a=0.3, beta=0.4, form=form), value, z, y)


@given(classes=st.integers(2, 1000), gamma=st.floats(1e-6, 0.999))
def test_hamp_target_has_the_wanted_entropy(classes: int, gamma: float) -> None:
    p = R.hamp_target(classes, gamma)
    assert 1 / classes < p < 1
    entropy = -p * math.log(p) - (1 - p) * math.log((1 - p) / (classes - 1))
    assert entropy == pytest.approx(gamma * math.log(classes), rel=1e-7)


def test_hamp_target_at_its_ends() -> None:
    assert R.hamp_target(10, 0.0) == 1.0
    assert R.hamp_target(10, 1.0) == 0.1


def test_hamp_loss() -> None:
    z, y = batch(24)
    p = R.hamp_target(5, 0.6)
    assert 0.2 < p < 1

    def value(rows: Rows) -> float:
        total = 0.0
        for row, label in zip(rows, y.tolist(), strict=True):
            t = [p if c == label else (1 - p) / 4 for c in range(5)]
            total += sum(q * (math.log(q) - lp) for q, lp in zip(t, log_softmax(row), strict=True)) - 0.2 * entropy(row)
        return total / len(rows)

    assert_like(partial(R.hamp_loss, gamma=0.6, alpha=0.2), value, z, y)


def test_distillation() -> None:
    z, y = batch(25)
    teacher = batch(26)[0].requires_grad_()
    heat, weight = 3.0, 0.4

    def value(rows: Rows) -> float:
        total = 0.0
        for row, other in zip(rows, teacher.tolist(), strict=True):
            log_p, log_q = log_softmax([v / heat for v in row]), log_softmax([v / heat for v in other])
            total += sum(math.exp(lq) * (lq - lp) for lq, lp in zip(log_q, log_p, strict=True))
        return (1 - weight) * mean_loss(rows, y.tolist()) + weight * heat**2 * total / len(rows)

    assert_like(lambda a, b: R.distillation(a, teacher, b, temperature=heat, weight=weight), value, z, y)
    assert teacher.grad is None


def test_crl_logits_bounds_the_norm_and_keeps_the_order() -> None:
    z, _ = batch(27, scale=50)
    want = torch.tensor([[v / (1 + 0.3 * math.hypot(*row)) for v in row] for row in z.tolist()], dtype=torch.float64)
    got = R.crl_logits(z, 0.3)
    torch.testing.assert_close(got, want, rtol=1e-14, atol=0)
    assert got.norm(dim=1).max() < 1 / 0.3 < z.norm(dim=1).min()
    assert torch.equal(got.argsort(1), z.argsort(1))


# --- errors -----------------------------------------------------------------------------------------------------------

Z, Y = torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("logits", "targets", "said"),
    [
        (torch.zeros(4), Y, "logits"),
        (torch.zeros(4, 3, 2), Y, "logits"),
        (torch.zeros(4, 1), Y, "C >= 2"),
        (torch.zeros(0, 3), Y[:0], "B >= 1"),
        (torch.zeros(4, 3, dtype=torch.int64), Y, "floating"),
        (Z, Y[:3], "targets"),
        (Z, Y.float(), "int64"),
        (Z, F.one_hot(Y, 3), "targets"),
    ],
)
@pytest.mark.parametrize("name", [name for name in ACTIVE if name not in ("crl", "distillation")])
def test_wrong_input_is_refused(logits: torch.Tensor, targets: torch.Tensor, said: str, name: str) -> None:
    with pytest.raises(UserError, match=said):
        ACTIVE[name](logits, targets)


@pytest.mark.parametrize(
    "call",
    [
        lambda: R.relax_loss(Z, Y, alpha=-0.1, ascent=True),
        lambda: R.relax_loss(Z, Y, alpha=float("nan"), ascent=True),
        lambda: R.relax_loss(Z, Y, alpha=float("inf"), ascent=True),
        lambda: R.relax_loss(Z, Y, alpha=1.0, ascent=True, upper=0.0),
        lambda: R.relax_loss(Z, Y, alpha=1.0, ascent=True, upper=1.1),
        lambda: R.relax_loss(Z, Y, alpha=1.0, ascent=True, flatten="misclasified"),  # type: ignore[arg-type]
        lambda: R.flattened_targets(Z, Y, upper=0.0),
        lambda: R.label_smoothing(Z, Y, smoothing=1.5),
        lambda: R.confidence_penalty(Z, Y, beta=-1),
        lambda: R.flooding(Z, Y, level=-1, per_sample=True),
        lambda: R.ccl(Z, Y, a=2),
        lambda: R.ccl(Z, Y, form="cubic"),  # type: ignore[arg-type]
        lambda: R.hamp_loss(Z, Y, gamma=1.1, alpha=0.0),
        lambda: R.hamp_target(1, 0.5),
        lambda: R.distillation(Z, Z[:2], Y, temperature=1, weight=0.5),
        lambda: R.distillation(Z, Z, Y, temperature=0, weight=0.5),
        lambda: R.distillation(Z, Z, Y, temperature="4", weight=0.5),  # type: ignore[arg-type]
        lambda: R.distillation(Z, Z.tolist(), Y, temperature=1, weight=0.5),  # type: ignore[arg-type]
        lambda: R.distillation(Z, Z, Y, temperature=1, weight=2),
        lambda: R.crl_logits(Z, -1),
    ],
)
def test_wrong_settings_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=r"expected|known: "):
        call()


@pytest.mark.parametrize("ascent", [True, False])
@pytest.mark.parametrize("label", [-100, 3])
def test_a_label_outside_the_classes_is_an_error(ascent: bool, label: int) -> None:
    y = Y.clone()
    y[1] = label
    with pytest.raises((IndexError, RuntimeError)):
        R.relax_loss(Z, y, alpha=1.0, ascent=ascent)
