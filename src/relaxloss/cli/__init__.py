"""The command line: its verbs, and list and store. Exit: 0 done, 2 the input is wrong, 1 our fault."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
import sysconfig
import tomllib
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from relaxloss.errors import UserError, unknown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train classifiers that do not betray who was in their training data, and prove it.",
)
store_app = typer.Typer(no_args_is_help=True, help="Look into, verify and tidy a run's store.")
app.add_typer(store_app, name="store")


@app.callback()
def _everywhere(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            help="a .py file with defenses, attacks, models or data sets of your own, before the verb; may be repeated"
        ),
    ] = None,
) -> None:
    from relaxloss.specs import load_file

    for path in plugin or ():
        load_file(path)


CANARIES = 100  # that --canaries-from takes where the game does not say how many
OF_TABLES = ("label", "drop", "columns", "group")  # fields that say how a file of one's own is read
INTERRUPTED = 130  # how typer ends on Ctrl-C

DataOption = Annotated[str | None, typer.Option("--data", help="a data set's name, or a .csv, .parquet or .npz file")]
LabelOption = Annotated[str | None, typer.Option("--label", help="the label's column in a file of your own")]
DropOption = Annotated[str | None, typer.Option("--drop", help="columns to leave out, comma-separated")]
ColumnsOption = Annotated[
    Path | None,
    typer.Option(
        "--columns", help="a TOML file of what is known of columns beforehand: age = [0, 110], ward = ['A', 'B']"
    ),
]
GroupOption = Annotated[
    str | None,
    typer.Option("--group", help="the column of persons, where one has several rows: these stay together"),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="mlp, resnet20, vgg11_bn, or package.module:function")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", help="shortens the schedule in proportion")]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="fields of the recipe: lr=0.05,batch_size=64,...")]
EngineOption = Annotated[str, typer.Option(help="auto, inprocess, processes, ray or dask")]
WorkersOption = Annotated[int | None, typer.Option(help="jobs at a time; as many as cores if left out")]
AddressOption = Annotated[str | None, typer.Option(help="of a running Ray or Dask cluster")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace other results that are there")]
TrustOption = Annotated[
    bool, typer.Option("--trust-code", help="a model whose network is code of its maker's own: run that code")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="print the result only")]


def console(*, stderr: bool = False) -> Console:
    """The terminal, or a plain stream of lines."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="defenses, attacks, games, datasets, models or settings; the name of one, or recipe: its fields; all "
            "if left out"
        ),
    ] = "",
) -> None:
    """Show what there is, or what one defense, attack, game, model or the recipe is, with its fields."""
    from relaxloss import attacks, data, defenses, games, models, settings
    from relaxloss.report import spec_help
    from relaxloss.report.spec_help_terminal import print_page
    from relaxloss.training.task import Recipe

    specs: dict[str, dict[str, Any]] = {
        "defenses": {cls.name: cls for cls in defenses.defenses},
        "attacks": {cls.name: cls for cls in attacks.attacks},
        "games": games.GAMES,
        "models": {cls.name: cls for cls in models.models},
    }
    pages = [spec_help.page(found[what], kind[:-1]) for kind, found in specs.items() if what in found]
    if what == "recipe":
        pages = [spec_help.page(Recipe, "recipe")]
    for each in pages:
        print_page(each, console())
    if pages:
        return
    kinds = {kind: [(name, cls.about) for name, cls in found.items()] for kind, found in specs.items()}
    kinds["attacks"] += [(name, "the set " + " ".join(members)) for name, members in attacks.SETS.items()]
    kinds |= {"datasets": data.listing(), "settings": settings.listing()}
    if what and what not in kinds:  # a data set, a setting or a set of attacks
        known = {"recipe", *kinds, *(name for found in kinds.values() for name, _ in found)}
        kinds = {kind: mine for kind, found in kinds.items() if (mine := [each for each in found if each[0] == what])}
        if not kinds:
            raise unknown("name", what, known)
    for kind in [what] if what in kinds else kinds:
        table = Table("name", "what it is", title=kind, title_justify="left", box=None, pad_edge=False)
        for name, about in kinds[kind]:
            table.add_row(name, about)
        console().print(table)


def recipe_of(
    dataset: Any, model: str | None, epochs: int | None, fields: str | None, base: Mapping[str, Any] | None = None
) -> Any:
    """The recipe: the data set's default, with the fields of `base` (a file's) and then of the options in place.

    Fewer epochs keep the schedule's shape: milestones move in proportion, unless the recipe's fields name them.
    """
    from relaxloss.specs import build, split
    from relaxloss.training.task import Recipe

    recipe = Recipe.default(dataset)
    options: dict[str, Any] = split(f"recipe:{fields}")[1] if fields else {}
    options |= {name: value for name, value in (("model", model), ("epochs", epochs)) if value is not None}
    for given in (dict(base or {}), options):
        if "epochs" in given and "milestones" not in given:
            epochs = build(Recipe, {"epochs": given["epochs"]}).epochs
            given["milestones"] = recipe.lasting(epochs).milestones
        recipe = build(Recipe, {field.name: getattr(recipe, field.name) for field in fields_of(recipe)} | given)
    return recipe


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", help="directory for the model")],
    data: DataOption = None,
    defense: Annotated[str, typer.Option(help="as name or name:field=value,field=value")] = "none",
    label: LabelOption = None,
    drop: DropOption = None,
    columns: ColumnsOption = None,
    group: GroupOption = None,
    model: ModelOption = None,
    epochs: EpochsOption = None,
    recipe: RecipeOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="of all that is drawn; if left out a secret one, for who knows it knows the split"),
    ] = None,
    test: Annotated[float, typer.Option(help="share held out for the reported accuracy")] = 0.2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the model that is there")] = False,
    quiet: QuietOption = False,
) -> None:
    """Train one model with a defense, ready to ship."""
    from relaxloss import data as data_sets
    from relaxloss import defenses, trained
    from relaxloss.models.base import Custom
    from relaxloss.storage import directories

    directories.writable(out)
    if (out / trained.CARD).exists() and not overwrite:
        raise UserError(f"{out} holds a model already; give --out another directory, or --overwrite to replace it")
    chosen = defenses.parse(defense)
    about = _of_table(label, drop, columns, group)
    dataset = data_sets.load(_required(data), **about)
    fitted_recipe = recipe_of(dataset, model, epochs, recipe)
    terminal = console(stderr=True)
    if not quiet:
        terminal.print(f"{dataset.name}: {len(dataset):,} samples, {dataset.num_classes} classes. {dataset.provenance}")

    def tell(progress: Any) -> None:
        if not quiet and (progress.epoch == progress.epochs or progress.epoch % max(1, progress.epochs // 10) == 0):
            last = progress.last
            terminal.print(
                f"{progress.phase} epoch {progress.epoch}/{progress.epochs}: "
                f"loss {last['train_loss']:.3f}, accuracy {last['train_accuracy']:.3f}"
            )

    checkpoints = out / "private" / "checkpoints"
    result = trained.train(
        dataset, chosen, recipe=fitted_recipe, seed=seed, test=test, checkpoints=checkpoints, tell=tell
    )
    result.save(out)
    if checkpoints.exists():  # a short training writes none
        shutil.rmtree(checkpoints)  # they may hold what the defense throws away, such as an undefended teacher
    for name, value in result.facts.items():
        console().print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    console().print(
        f"model: {out} (keep {out / 'private'} to yourself: it says who was in the data; the model loads without)",
        soft_wrap=True,
    )
    if not quiet and test:
        given = {"data": data, "label": label, "drop": drop, "columns": columns, "group": group}
        options = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)
        trust = " --trust-code" if result.recipe.model.name == Custom.name else ""
        audited = f"relaxloss audit {shlex.quote(str(out))} {options} --shadows 32{trust}"
        terminal.print(f"before it is shipped: {audited}", soft_wrap=True)


@app.command()
def compare(
    spec: Annotated[Path | None, typer.Argument(help="an experiment as TOML; options override its fields")] = None,
    setting: Annotated[
        str | None,
        typer.Option(help="a ready experiment by name (relaxloss list settings); options override its fields"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="the run's directory; runs/<setting> or runs/<data> if left out")
    ] = None,
    data: DataOption = None,
    defenses: Annotated[
        str | None,
        typer.Option(
            help="comma-separated; all: every defense; a bare name is the setting's own or at its default; "
            "none,relaxloss if left out"
        ),
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="comma-separated, and the sets paper, blackbox, whitebox, modern, all")
    ] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="every setting of each defense's curve")] = False,
    shadows: Annotated[str | None, typer.Option(help="same (adaptive), undefended, or both")] = None,
    game: Annotated[str | None, typer.Option(help="five_folds:shadows=1 or random_halves:models=64,canaries=0")] = None,
    canaries_from: Annotated[
        Path | None,
        typer.Option("--canaries-from", help="a finished run of random_halves: its most vulnerable samples are asked"),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="comma-separated")] = None,
    label: LabelOption = None,
    drop: DropOption = None,
    columns: ColumnsOption = None,
    group: GroupOption = None,
    model: ModelOption = None,
    epochs: EpochsOption = None,
    recipe: RecipeOption = None,
    store: Annotated[
        Path | None,
        typer.Option(help="where models and scores rest, which runs may share; store under --out if left out"),
    ] = None,
    engine: EngineOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare defenses on a data set: accuracy against leakage, with every attack, in one report."""
    from relaxloss import api, games, report, settings
    from relaxloss import data as data_sets
    from relaxloss import defenses as defense_room
    from relaxloss.compute.engine import Engine
    from relaxloss.compute.progress import Terminal
    from relaxloss.experiments.plan import Experiment, attacks_for
    from relaxloss.experiments.run import Quiet
    from relaxloss.specs import build, check_names
    from relaxloss.storage import directories

    if spec and setting:
        raise UserError(f"got the file {spec} and --setting {setting}; give one of the two, and options to override it")
    fields = settings.read(setting) if setting else _read_toml(spec) if spec else {}
    options: dict[str, Any] = {"dataset": data, "shadows": shadows, "game": game, "label": label, "group": group}
    gone: list[str] = []
    if data is not None or model is not None:
        gone += ["setting", "note"]  # what they say no longer holds
    if data is not None and setting:
        gone += OF_TABLES  # of the setting's own table
    fields = {name: value for name, value in fields.items() if name not in gone}
    fields |= {name: value for name, value in options.items() if value is not None}
    if drop is not None:
        fields["drop"] = _names(drop)
    if columns is not None:
        fields["columns"] = _read_toml(columns)
    if seeds is not None:
        fields["seeds"] = tuple(seeds.split(","))
    check_names(Experiment, fields)
    fields["dataset"] = _required(fields.get("dataset"))
    about = {name: fields[name] for name in OF_TABLES if name in fields}
    dataset = data_sets.load(fields["dataset"], **about)
    if canaries_from is not None:
        fields["game"] = vulnerable_game(fields.get("game", "random_halves"), canaries_from)
        _same_data(canaries_from, dataset)
    base = fields.pop("recipe", None)
    if base is not None and not isinstance(base, Mapping):
        raise UserError(f"got recipe = {base!r}; expected a table [recipe] with its fields")
    fields["recipe"] = recipe_of(dataset, model, epochs, recipe, base)
    notes: list[str] = []
    listed = attacks if attacks is not None else _listed(fields.get("attacks", "blackbox"))
    if listed is not None:
        fields["attacks"], notes = attacks_for(listed, games.parse(fields.get("game", games.FiveFolds())))
    ready = _listed(fields.get("defenses"))
    if setting and ready is not None:
        fields["defenses"] = of_setting(ready, defenses, dataset.num_classes)
    elif defenses is not None or ready is not None:
        fields["defenses"] = defense_room.parse_list(
            defenses if defenses is not None else str(ready), dataset.num_classes
        )
    elif "defenses" not in fields:
        fields["defenses"] = tuple(
            each.below_guess(dataset.num_classes) for each in defense_room.parse_list("none,relaxloss")
        )
    if sweep:
        fields["defenses"] = defense_room.swept(fields["defenses"], dataset.num_classes, fields["recipe"].epochs)
    experiment = build(Experiment, fields)
    directory = out or Path("runs") / (setting or dataset.name)
    directories.writable(directory)
    if store is not None:
        directories.writable(store, "--store")
    if not overwrite:
        directories.of_kind(directory, "compare")  # before the log is written there
    watch = Quiet() if quiet else Terminal(console(stderr=True), log=directory / "log.txt")
    watch.log(f"{dataset.name}: {len(dataset):,} samples, {dataset.num_classes} classes. {dataset.provenance}")
    for note in notes:
        watch.log(note)
    runner = Engine(engine, workers, address)  # type: ignore[arg-type]
    result = api.compare(experiment, directory, engine=runner, watch=watch, store=store, overwrite=overwrite)
    report.print_summary(result, console())
    console().print(f"report: {directory / 'report.html'}", soft_wrap=True)
    if result.failures:
        raise UserError("not everything succeeded, see above; mend the cause and run the same command again")


@app.command()
def tune(
    data: DataOption = None,
    defense: Annotated[str, typer.Option(help="with the fields that stay as they are")] = "relaxloss",
    max_auc: Annotated[float | None, typer.Option(help="bound on the strongest adaptive attack's AUC")] = None,
    max_tpr: Annotated[float | None, typer.Option(help="bound on its true-positive rate at --fpr")] = None,
    fpr: Annotated[
        float | None, typer.Option(help="the false-positive rate of --max-tpr: 0.01, or 0.001; 0.01 if left out")
    ] = None,
    keep_accuracy: Annotated[
        float | None, typer.Option(help="no bound: least leakage, losing at most this share of accuracy to no defense")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="the tuning's directory; runs/<data>-tune if left out")
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="the field to search; the one that the defense's sweep varies")
    ] = None,
    low: Annotated[float | None, typer.Option(help="lower end of its range; the sweep's if left out")] = None,
    high: Annotated[float | None, typer.Option(help="upper end of its range; the sweep's if left out")] = None,
    settings: Annotated[int, typer.Option(help="how many settings are tried at most")] = 8,
    repeats: Annotated[int, typer.Option(help="drawings of the tuning folds that each is measured in")] = 1,
    attacks: Annotated[str, typer.Option(help="comma-separated, and sets, as for compare")] = "blackbox",
    seed: Annotated[int, typer.Option(help="the seed at which the chosen setting will be compared")] = 0,
    label: LabelOption = None,
    drop: DropOption = None,
    columns: ColumnsOption = None,
    group: GroupOption = None,
    model: ModelOption = None,
    epochs: EpochsOption = None,
    recipe: RecipeOption = None,
    engine: EngineOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Choose a defense's strength under a bound on the leakage, without touching the samples that are asked about."""
    from relaxloss import api, games
    from relaxloss import data as data_sets
    from relaxloss.compute.engine import Engine
    from relaxloss.compute.progress import Terminal
    from relaxloss.experiments.plan import Experiment, attacks_for
    from relaxloss.experiments.run import Quiet
    from relaxloss.report.tuning import terminal as tuning_terminal
    from relaxloss.specs import build
    from relaxloss.storage import directories

    if fpr is not None and max_tpr is None:
        raise UserError("--fpr is the false-positive rate at which --max-tpr holds; give --max-tpr, or leave it out")
    about = _of_table(label, drop, columns, group)
    dataset = data_sets.load(_required(data), **about)
    taken, notes = attacks_for(attacks, games.FiveFolds())
    experiment = build(
        Experiment,
        {
            "dataset": data,
            "attacks": taken,
            "recipe": recipe_of(dataset, model, epochs, recipe),
            "shadows": "both",
            "seeds": (seed,),
            **about,
        },
    )
    directory = out or Path("runs") / f"{dataset.name}-tune"
    directories.writable(directory)
    if not overwrite:
        directories.of_kind(directory, "tune")  # before the log is written there
    watch = Quiet() if quiet else Terminal(console(stderr=True), log=directory / "log.txt")
    watch.log(f"{dataset.name}: {len(dataset):,} samples, {dataset.num_classes} classes. {dataset.provenance}")
    for note in notes:
        watch.log(note)
    found = api.tune(
        experiment, out=directory, defense=defense, max_auc=max_auc, max_tpr=max_tpr, fpr=fpr or 0.01,
        keep_accuracy=keep_accuracy, field=field, low=low, high=high, settings=settings, repeats=repeats,
        engine=Engine(engine, workers, address), watch=watch, overwrite=overwrite,  # type: ignore[arg-type]
    )  # fmt: skip
    tuning_terminal.print_tuning(found, directory, console())


def vulnerable_game(given: Any, run: Path) -> Any:
    """The game `given` with the most vulnerable samples of a finished run as canaries, named in it.

    As many as the game's `canaries`, or 100.
    """
    import dataclasses

    from relaxloss import games, report
    from relaxloss.evaluation import records

    game = games.parse(given)
    if not isinstance(game, games.RandomHalves) or game.canary_kind == "mislabelled":
        raise UserError(
            f"--canaries-from goes with the game random_halves and its canary_kind=vulnerable; got {game.brief}"
        )
    chosen = records.most_vulnerable(report.load(run).records, game.canaries or CANARIES)
    return dataclasses.replace(game, canaries=len(chosen), canary_kind="vulnerable", chosen=chosen)


def _same_data(run: Path, dataset: Any) -> None:
    """A clear error if the run was on other data, whose row numbers mean nothing here."""
    from relaxloss import report

    facts = report.load(run).facts
    if facts.get("fingerprint") != dataset.fingerprint:
        raise UserError(
            f"--canaries-from {run}: that run was on {facts['experiment']['dataset']}, and not on the very data of "
            f"{dataset.name}; expected a run on the same data, for a record is named by its row"
        )


def of_setting(ready: str, chosen: str | None, num_classes: int) -> tuple[Any, ...]:
    """A setting's defenses that are installed; or the chosen ones, where a bare name is as the setting has it."""
    from relaxloss import defenses
    from relaxloss.specs import split_list

    own = {defense.name: defense for defense in map(defenses.parse, split_list(ready))}
    if chosen is None:
        return tuple(defenses.installed(own.values()))
    found: list[Any] = []
    for piece in split_list(chosen):
        found += [own[piece]] if piece in own else defenses.parse_list(piece, num_classes)
    return tuple(dict.fromkeys(found))


@app.command()
def report(run: Annotated[Path, typer.Argument(help="a run's directory")]) -> None:
    """Write the charts and the page of a run again, and print its summary."""
    from relaxloss import report as reports
    from relaxloss.storage import directories

    directories.of_kind(run, "compare")
    result = reports.load(run)
    reports.save(result, run)
    reports.print_summary(result, console())
    console().print(f"report: {run / 'report.html'}", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="the directory that relaxloss train wrote")],
    rows: Annotated[Path, typer.Argument(help="a .csv, .parquet or .npz file with the columns (npz: x) of the data")],
    out: Annotated[Path, typer.Option("--out", help="a .csv or .parquet file")] = Path("predictions.csv"),
    keep: Annotated[str | None, typer.Option(help="columns to copy from the file, comma-separated")] = None,
    trust_code: TrustOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file that is there")] = False,
) -> None:
    """Ask a trained model: the class of each row, and the probability of every class."""
    from relaxloss import trained
    from relaxloss.trained import predict_file

    predict_file.check(out, overwrite=overwrite)
    table = predict_file.table(trained.Trained.load(model, trust_code=trust_code), rows, keep=_names(keep))
    predict_file.write(table, out)
    console().print(f"predictions: {out} ({len(table):,} rows)", soft_wrap=True)


@app.command()
def audit(
    of: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS|MODEL",
            help="a .csv, .parquet or .npz file: label, member, one per class; or the directory that relaxloss train "
            "wrote",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="directory for the report")] = Path("audit"),
    kind: Annotated[str, typer.Option(help="predictions: what the numbers are, auto, probs or logits")] = "auto",
    label: Annotated[str | None, typer.Option(help="the true labels' column; label (npz: labels) if left out")] = None,
    member: Annotated[
        str | None, typer.Option(help="predictions: the column of who was trained on; member if left out")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="the column of persons, where one has several rows: these are attacked together")
    ] = None,
    attacks: Annotated[
        str, typer.Option(help="comma-separated, and the sets paper, blackbox, whitebox, modern, all")
    ] = "all",
    adaptive: Annotated[
        bool | None,
        typer.Option("--adaptive/--non-adaptive", help="predictions: were shadows trained as the target was?"),
    ] = None,
    coin_flips: Annotated[
        bool,
        typer.Option(
            "--coin-flips",
            help="predictions: each row (or person) was trained on by a fair coin flip: bound epsilon, too",
        ),
    ] = False,
    data: Annotated[
        str | None, typer.Option("--data", help="model: what it was trained on, read as for train, a name or a file")
    ] = None,
    drop: DropOption = None,
    columns: ColumnsOption = None,
    shadows: Annotated[
        int | None,
        typer.Option(min=0, help="model: how many more are trained as it was, for the strongest attacks; 32 or so"),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the shadows and the halves")] = 0,
    trust_code: TrustOption = False,
    engine: EngineOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Audit a trained model, or the predictions of any other: how well can membership be inferred from it?"""
    from relaxloss.auditing import audit, readers
    from relaxloss.compute.engine import Engine
    from relaxloss.report.audit import page
    from relaxloss.report.audit import terminal as audit_terminal
    from relaxloss.storage import directories

    directories.writable(out)
    if not of.exists() and not of.name.endswith(readers.SUFFIXES):
        raise UserError(
            f"{of}: there is no such file or directory; expected predictions, or a model of relaxloss train"
        )
    of_files = {"--kind": kind != "auto", "--member": member, "--adaptive": adaptive is not None}
    of_files["--coin-flips"] = coin_flips
    of_models = {"--data": data, "--drop": drop, "--columns": columns, "--shadows": shadows is not None}
    of_models |= {"--trust-code": trust_code, "--engine": engine != "auto", "--workers": workers is not None}
    of_models["--address"] = address is not None
    model = of.is_dir()
    for name, given in (of_files if model else of_models).items():
        if given:
            what = "the predictions of another model, in a file" if model else "a model, a directory"
            raise UserError(f"{name} is for the audit of {what}; {of} is a {'directory' if model else 'file'}")
    if model:
        runner = Engine(engine, workers, address)  # type: ignore[arg-type]
        about = _of_table(label, drop, columns, group)
        options = {"attacks": attacks, "shadows": shadows or 0, "seed": seed, "engine": runner}
        result = _audit_model(of, out, data, about, options, overwrite=overwrite, quiet=quiet, trust_code=trust_code)
    else:
        found = readers.read(of, kind=kind, label=label, member=member, group=group)  # type: ignore[arg-type]
        if adaptive is not None and not len(found.shadow_member):
            raise UserError(f"{of} holds no shadow models, of which --adaptive and --non-adaptive tell: leave them out")
        taken = audit.chosen_of(attacks)
        page.keep(out, found.source, overwrite=overwrite, coin_flips=coin_flips, seed=seed, attacks=taken)
        result = audit.run(found, name=of.stem, attacks=taken, adaptive=adaptive, coin_flips=coin_flips, seed=seed)
    path = page.save(result, out)
    if not quiet:
        audit_terminal.print_audit(result, console())
    console().print(f"report: {path}", soft_wrap=True)


def _audit_model(
    folder: Path, out: Path, data: str | None, about: Mapping[str, Any], options: Mapping[str, Any], *,
    overwrite: bool, quiet: bool, trust_code: bool,
) -> Any:  # fmt: skip
    """The audit of a saved model; `about` says how a table of one's own is read; `options` of `audit_model`."""
    from relaxloss import data as data_sets
    from relaxloss import trained
    from relaxloss.auditing import audit, trained_model
    from relaxloss.auditing.readers import SUFFIXES
    from relaxloss.compute.progress import Terminal
    from relaxloss.experiments.run import Quiet, reference_to
    from relaxloss.report.audit import page

    if not (folder / trained.CARD).is_file():
        raise UserError(
            f"{folder} is a directory without a saved model ({trained.CARD}); expected the one that relaxloss train "
            f"wrote, or a file of predictions ({', '.join(SUFFIXES)})"
        )
    if out.resolve().is_relative_to(folder.resolve()) and not out.resolve().is_relative_to(
        folder.resolve() / "private"
    ):
        raise UserError(
            f"--out {out} is in the model's directory, which is to be shipped, and an audit tells who was in the data; "
            f"expected another directory, or one in {folder / 'private'}"
        )
    model = trained.Trained.load(folder, trust_code=trust_code)
    options = {**options, "attacks": audit.chosen_of(options["attacks"])}
    source = trained_model.source(model, options["shadows"])
    page.keep(out, source, overwrite=overwrite, seed=options["seed"], attacks=options["attacks"])
    name = model.card["dataset"]
    if data is None and data_sets.missing(name) is not None:
        raise UserError(
            f"which data was {folder} trained on? Give --data (it was called {name}), and --label, --drop, --columns "
            "and --group as for relaxloss train"
        )
    dataset = data_sets.load(data or name, **about)
    reference = reference_to(dataset, data or name, **about)
    watch = Quiet() if quiet or not options["shadows"] else Terminal(console(stderr=True), log=out / "log.txt")
    return trained_model.audit_model(
        model, dataset, store=out / "store", reference=reference, watch=watch, name=folder.resolve().name, **options
    )


def _store(run: Path) -> Any:
    from relaxloss.storage.store import Store

    root = run / "store" if (run / "store").is_dir() else run
    if not (root / "lock").exists():
        raise UserError(f"{run} holds no store; expected a run's directory (with store/ in it)")
    return Store(root)


@store_app.command("ls")
def store_ls(run: Path) -> None:
    """List what is stored."""
    table = Table("stage", "key", "MB", "what", box=None, pad_edge=False)
    for entry in _store(run).entries():
        what = str(entry.about.get("spec", entry.about.get("attacks", "")))
        table.add_row(entry.stage, entry.key, f"{entry.bytes / 1e6:.2f}", what)
    console().print(table)


@store_app.command("verify")
def store_verify(run: Path) -> None:
    """Hash every stored file and compare with its manifest."""
    entries = list(_store(run).entries(verify=True))
    damaged = [entry for entry in entries if not entry.sound]
    for entry in damaged:
        console().print(f"damaged: {entry.stage}/{entry.key}")
    console().print(f"{len(entries)} entries, {len(damaged)} damaged")
    if damaged:
        raise UserError("run the same compare command again, or `relaxloss store gc`: damaged entries are made again")


@store_app.command("gc")
def store_gc(run: Path) -> None:
    """Remove damaged entries, checkpoints and what killed runs left behind."""
    from relaxloss.storage.store import repair

    store = _store(run)
    with store.writing():
        damaged = repair(store)
        shutil.rmtree(store.root / "scratch", ignore_errors=True)
    console().print(f"removed {damaged} damaged entries, and all checkpoints")


def _required(data: Any) -> str:
    if not data:
        raise UserError("no data given; name a data set or a file with --data (see `relaxloss list datasets`)")
    return str(data)


def _listed(given: Any) -> str | None:
    """A file's list of specs as the command line writes it; None if it has none, or has tables."""
    if isinstance(given, str):
        return given
    if isinstance(given, list) and given and all(isinstance(item, str) for item in given):
        return ",".join(given)
    return None


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _of_table(label: str | None, drop: str | None, columns: Path | None, group: str | None) -> dict[str, Any]:
    """How a table of one's own is read, as `relaxloss.data.load` takes it."""
    known = _read_toml(columns) if columns is not None else {}
    return dict(zip(OF_TABLES, (label, _names(drop), known, group), strict=True))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; expected a file of TOML") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an encoding without ε must not cost what the work has brought
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_args, **_kwargs: console(stderr=True).print(f"warning: {message}")
            app()
    except UserError as error:
        console(stderr=True).print(f"error: {error}", soft_wrap=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            shadows = any(each.startswith("--shadows") for each in sys.argv)
            kept = {
                "compare": "; what is done is stored: run the same command again to go on",
                "tune": "; what is done is stored: run the same command again to go on",
                "audit": "; shadows that are done are stored: run the same command again to go on" * shadows,
                "train": "; run the same command again: it goes on from the last checkpoint, if there is one yet",
            }
            verb = next((each for each in sys.argv if each in kept), "")
            console(stderr=True).print(f"interrupted{kept.get(verb, '')}")
        raise
    except Exception:
        text = traceback.format_exc()
        console(stderr=True).print(text, soft_wrap=True)
        console(stderr=True).print(_whose(text), soft_wrap=True)
        sys.exit(1)


def _whose(trace: str) -> str:
    """Whose the innermost code of a traceback is that is neither Python's nor a library's: ours, or a plugin's."""
    from relaxloss.specs import plugin_modules

    ours = Path(__file__).parent
    tops = [sys.modules.get(name.partition(".")[0]) for name in plugin_modules()]
    plugins = [Path(module.__file__) for module in tops if module is not None and module.__file__]
    plugins = [file.parent if file.name == "__init__.py" else file for file in plugins]
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    for name, line in reversed(re.findall(r'File "([^"]+)", line (\d+)', trace)):
        path = Path(name)
        if path.is_relative_to(ours):
            break
        library = any(path.is_relative_to(each) for each in libraries)
        if path.is_file() and (not library or any(path.is_relative_to(each) for each in plugins)):
            return f"the error comes from {path}, line {line}, which is not relaxloss's: see the lines above"
    return "this is a defect of relaxloss, not of your input; please report it with the lines above"


if __name__ == "__main__":
    main()
