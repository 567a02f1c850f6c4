"""Errors of usage in one line, with the command or option that was meant, by its spelling or by its meaning."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from typing import Any, Self, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

from bridgetower.errors import UsageError
from bridgetower_cli import render

# Words of other tools, by the command of `bt` that does the same.
_COMMANDS = {
    "search": "ask find grep locate lookup query",
    "index": "add build crawl refresh scan sync update",
    "index --watch": "watch",
    "fill": "complete guess mask",
    "match": "compare score similarity",
    "duplicates": "dedup dedupe dupes duplicate near-duplicates twins",
    "rerank": "filter order rank sort",
    "audit": "curate lint validate",
    "eval": "bench benchmark evaluate measure recall test",
    "train": "adapt finetune fine-tune fit learn tune",
    "status": "count info list ls show stat stats",
    "forget": "delete drop remove rm unindex",
    "prune": "clean cleanup compact gc vacuum",
    "verify": "check doctor fix fsck repair",
    "export": "backup dump save",
    "import": "load restore",
    "config show": "options settings",
    "libraries": "collections indexes indices library",
    "model list": "models",
    "model pull": "download fetch get pull",
    "model convert": "convert",
    "--help": "help",
    "--version": "version",
}
_SUBCOMMANDS = {
    "bt model": {
        "list": "available ls",
        "info": "card describe inspect show",
        "pull": "add download fetch get install update",
        "convert": "export save",
        "remove": "clean delete forget prune rm uninstall",
    },
    "bt config": {
        "show": "get list ls view",
        "set": "add change edit",
        "unset": "clear delete remove reset rm",
    },
}
# Options of other tools, by the option of `bt` that does the same, where the command has it.
_OPTIONS = {
    "--batch": "--batch-size --bs",
    "--before": "--end --till --to --until",
    "--budget": "--time --timeout",
    "--copy-to": "--copy --out --save",
    "--depth": "--candidates --verify",
    "--device": "--cpu --cuda --gpu",
    "--dry-run": "--dry --simulate -n",
    "--epochs": "--epoch --num-epochs --num-train-epochs",
    "--eval-every": "--eval-steps --val-frequency",
    "--exclude": "--ignore --skip --without",
    "--freeze": "--freeze-towers --lock --lock-image --lock-text",
    "--gradient-checkpointing": "--checkpointing --grad-checkpointing",
    "--hidden": "--all -a",
    "--html": "--page --report",
    "--image": "--file --img --like --photo --picture --similar -i",
    "--index": "--database --db",
    "--init": "--base --checkpoint --from --model --pretrained -m",
    "--interactive": "--repl --shell",
    "--json": "--format --jsonl --output -j -o",
    "--library": "--album --catalog --collection",
    "--link-to": "--link --symlink",
    "--log-every": "--log-every-n-steps --logging-steps",
    "--lr": "--learning-rate",
    "--micro-batch": "--accum --accum-freq --accumulate-grad-batches --grad-accum --gradient-accumulation-steps "
    "--per-device-train-batch-size",
    "--min-match": "--confidence --cutoff --min --min-probability --min-score --threshold -t",
    "--min-similarity": "--cutoff --min --min-score --threshold -t",
    "--model": "--checkpoint -m",
    "--no-rerank": "--fast --no-verify",
    "--not": "--minus --negative --without",
    "--null": "--print0 --zero -z",
    "--offset": "--skip --start",
    "--open": "--view",
    "--out": "--logs --output --output-dir --resume --resume-from-checkpoint --save -o",
    "--precision": "--amp --bf16 --fp16",
    "--preview": "--show --thumbnails",
    "--quiet": "--silent -s",
    "--repair": "--fix --mend",
    "--retry": "--force -f",
    "--save-every": "--save-frequency --save-steps",
    "--similarity": "--cutoff --min-similarity --threshold -t",
    "--since": "--after --from --start",
    "--sort": "--order --order-by --sort-by",
    "--text": "--caption --query",
    "--texts-from": "--batch --from-file --queries --stdin",
    "--top": "--count --first --k --limit --max --max-results --num --number --results --top-k -k -n",
    "--under": "--dir --directory --folder --in --path --within",
    "--val": "--dev --eval --eval-data --val-data --validation",
    "--val-share": "--holdout --val-size --validation-share",
    "--verbose": "--details",
    "--warmup": "--warmup-ratio --warmup-steps",
}


class _Conversion:
    """Convert the values of a parameter as typer 0.29 and later do, but without pydantic, which takes long to load.

    Texts and values with a parser of their own are converted here; others, which `bt` does not have, by typer.
    """

    def __init__(self, parameter: Any) -> None:
        annotation, information = parameter.type_descriptor.annotation, parameter.type_descriptor.parameter_info
        self._is_list = get_origin(annotation) is list
        kind = get_args(annotation)[0] if self._is_list else annotation
        self._parse = information.parser or (str if kind is str else None)
        self._of_typer = parameter.get_runtime_param

    def __call__(self) -> Self:
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return what the command gets for a value of the command line, or for a tuple of them; None if not given."""
        if value is None:
            return () if self._is_list else None
        if self._parse is not None:
            with suppress(ValueError):  # typer meets the same error, and words it
                return [self._parse(item) for item in value] if self._is_list else self._parse(value)
        return self._of_typer().coerce(value, param=param, ctx=ctx)


class _WithoutPydantic:
    """A command whose parameters are converted by `_Conversion`; typer adds some after the command is made."""

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)  # type: ignore[misc]  # of typer's class
        for parameter in parameters:
            of_typer = getattr(parameter, "get_runtime_param", None)  # before 0.29 typer does without pydantic
            if of_typer is not None and not isinstance(of_typer, _Conversion):
                parameter.get_runtime_param = _Conversion(parameter)
            if parameter.param_type_name == "option" and "process_value" not in vars(parameter):
                parameter.process_value = partial(_named, parameter.process_value, _longest(parameter.opts))
        return parameters


def _named(process: Callable[[Any, Any], Any], option: str, ctx: Any, value: Any) -> Any:
    """Convert the value of an option. Raises UsageError that begins with its name."""
    try:
        return process(ctx, value)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error


class Command(_WithoutPydantic, TyperCommand):
    """A command that refuses an option with one value that is given twice: the last would silently win."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # these types are private to typer
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        counted: Counter[Any] = Counter(given)
        for option, times in counted.items():
            once = option.param_type_name == "option" and not option.multiple and not option.is_flag
            if once and times > 1 and not ctx.resilient_parsing:
                raise UsageError(
                    f"{_longest(option.opts)} was given {'twice' if times == 2 else f'{times} times'}: give it once"
                )
        return super().parse_args(ctx, args)


class Group(_WithoutPydantic, TyperGroup):
    """Commands; of one that does not exist, the error names the command that was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in self.commands or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        meanings = _COMMANDS if ctx.parent is None else _SUBCOMMANDS[ctx.command_path]
        meant = [f"{ctx.command_path} {command}" for command, words in meanings.items() if name in words.split()]
        meant = meant or [f"{ctx.command_path} {command}" for command in get_close_matches(name, self.commands)]
        raise UsageError(f"{render.visible(name)} is no command of {ctx.command_path}{_did_you_mean(meant, ctx)}")


def is_usage_error(error: Exception) -> bool:
    """Whether typer raises the error for wrong usage. Its classes are private, so their names identify them."""
    kind = type(error)
    own = kind.__module__.partition(".")[0] == "typer" and hasattr(error, "format_message")
    return own and kind.__name__ != "NoArgsIsHelpError"  # its message is the help


def message_of(error: Any) -> str:
    """Return the message of a usage error of typer, in our words."""
    command = "bt" if error.ctx is None else error.ctx.command_path
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return f"{error.option_name} is no option of {command}{_did_you_mean(_meant(error), error.ctx)}"
    if kind == "MissingParameter" and error.param is not None:
        option = error.param.param_type_name == "option"
        name = _longest(error.param.opts) if option else error.param.metavar
        return f"{name} is missing: `{command} --help` shows how it is given"
    if kind == "BadOptionUsage" and "requires" in error.message:
        return f"{error.option_name} needs a value"
    message = str(error.format_message()).rstrip(".")
    if "unexpected extra argument" in message and error.ctx.params.get("text"):
        begun = render.visible(error.ctx.params["text"])
        message += f': a text of several words needs quotes, as in {command} "{begun} ..."'
    return message


def _meant(error: Any) -> list[str]:
    """Return the options of the command that may be meant by one that it does not have."""
    known = [name for option in error.ctx.command.params for name in option.opts if name.startswith("-")]
    meant = [name for name, words in _OPTIONS.items() if name in known and error.option_name in words.split()]
    return [*meant, *get_close_matches(error.option_name, set(known) - {*meant}, cutoff=0.8 if meant else 0.75)]


def _did_you_mean(meant: list[str], ctx: Any) -> str:
    if not meant:
        return f": `{ctx.command_path} --help` shows all" if ctx is not None else ""
    return f": did you mean {', or '.join(dict.fromkeys(meant))}?"


def _longest(names: list[str]) -> str:
    return max(names, key=len)
