"""The command line of `bt`: the commands by name, each with examples."""

from functools import partial
from typing import Annotated

import typer

from bridgetower import __version__
from bridgetower_cli.commands.audit import audit
from bridgetower_cli.commands.config import set_config, show_config, unset_config
from bridgetower_cli.commands.duplicates import duplicates
from bridgetower_cli.commands.evaluate import evaluate
from bridgetower_cli.commands.export import export
from bridgetower_cli.commands.fill import fill
from bridgetower_cli.commands.forget import forget
from bridgetower_cli.commands.import_ import import_
from bridgetower_cli.commands.index import index
from bridgetower_cli.commands.libraries import list_libraries
from bridgetower_cli.commands.match import match
from bridgetower_cli.commands.mcp import mcp
from bridgetower_cli.commands.model import convert_model, list_models, pull_model, remove_model, show_model
from bridgetower_cli.commands.prune import prune
from bridgetower_cli.commands.rerank import rerank
from bridgetower_cli.commands.search import search
from bridgetower_cli.commands.serve import serve
from bridgetower_cli.commands.status import status
from bridgetower_cli.commands.train import train
from bridgetower_cli.commands.verify import verify
from bridgetower_cli.failures import ReportingGroup
from bridgetower_cli.usage import Command, Group


def examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)  # \b: leave the lines as they are


app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in half the time, and is the same in a pipe
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 1_000_000},  # as the terminal
    epilog=examples("bt index ~/Pictures", 'bt search "two cats on a couch"', 'bt fill "a <mask> looking out"'),
)
model = typer.Typer(cls=Group, no_args_is_help=True, help="Look after the models on this machine.")
config = typer.Typer(cls=Group, no_args_is_help=True, help="Look at the settings that last, and change them.")
command, of_model, of_config = (partial(group.command, cls=Command) for group in (app, model, config))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bt {__version__}")
        raise typer.Exit


@app.callback()
def bt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Search your pictures by what they show, on your own machine.

    Every result can be verified: the model says how probably your words describe it. Nothing leaves the machine.
    """


command(
    epilog=examples(
        "bt index ~/Pictures",
        "bt index ~/Pictures /media/camera --model demo",
        "bt index scans/page-1.tiff --index ./scans.index",
        "bt index ~/Pictures --exclude '*.gif' --exclude /cache/",
        "bt index ~/Pictures --watch",
    )
)(index)
command(
    epilog=examples(
        'bt search "two cats on a couch"',
        'bt search "a red car" --min-match 0.5 --json',
        'bt search "a cat" --not "a cat on a couch"',
        'bt search "a cat" "a couch" --image evening.jpg --weights 2,1,0.5',
        "bt search --image sunset.jpg --top 3",
        'bt search "a lake" --taken 2024-05..2024-08',
        """bt search "a lake" --under '*/2019/*' --not-under '*.gif'""",
        'bt search "a dog in the snow" -0 | xargs -0 -I{} cp {} chosen/',
        'bt search "a dog in the snow" --html dogs.html --copy-to dogs',
        'bt search "two cats" --query-vector cats.npy --index ./clip.index',
        "bt search --texts-from texts.txt --top 3",
        "bt search -i",
    )
)(search)
command(
    epilog=examples(
        'bt fill "a <mask> looking out"',
        'bt fill "<mask> dogs in the <mask>" --image park.jpg --top 3',
    )
)(fill)
command(
    epilog=examples(
        'bt match cat.jpg dog.jpg --text "a cat" --text "a dog"',
        'bt match photo.jpg --text "two cats on a couch" --json',
        "bt match photo.jpg --texts captions.txt --top 5",
    )
)(match)
command(
    epilog=examples(
        "find . -name '*.jpg' -print0 | bt rerank -0 'a sunny beach' | xargs -0 -I{} cp {} chosen/",
        "ls *.png | bt rerank 'a bar chart' --min-match 0.5 --json",
    )
)(rerank)
command(
    epilog=examples(
        "bt duplicates",
        "bt duplicates --under ~/Pictures/phone --json",
        "bt duplicates --equal --paths -0 | xargs -0 -r mv -t superfluous/",
    )
)(duplicates)
command(
    "eval",
    epilog=examples(
        "bt eval examples/gallery/captions.jsonl --model demo",
        "bt eval captions.jsonl --depth 10 --depth 50 --json",
    ),
)(evaluate)
command(
    epilog=examples(
        "bt audit examples/gallery/captions.jsonl --model demo",
        "bt audit captions.jsonl --worst 5% --csv > worst.csv",
        "bt audit captions.jsonl --below 0.1 --json",
    )
)(audit)
command(
    epilog=examples(
        "bt train captions.jsonl --init BridgeTower/bridgetower-large-itm-mlm-itc --out my-model",
        "bt train captions.jsonl --init demo --out my-model --val validation.jsonl --micro-batch 8",
        "bt train captions.jsonl --init demo --out my-model --dry-run",
    )
)(train)
command(epilog=examples("bt export ./export", "bt export /media/usb/photos --index ./scans.index"))(export)
command(
    "import",
    epilog=examples(
        "bt import ./export --map /srv/photos=/home/me/photos",
        "bt import --vectors clip.npy --paths paths.jsonl --name clip-vit-b32 --index ./clip.index",
    ),
)(import_)
command(epilog=examples("bt status", "bt status -v", "bt status --index ./scans.index --json"))(status)
command("libraries", epilog=examples("bt libraries", "bt libraries --json"))(list_libraries)
command(epilog=examples("bt serve --background", "bt serve --index ./scans.index --idle 2h", "bt serve --stop"))(serve)
command(epilog=examples("bt mcp", "bt mcp --index ./scans.index"))(mcp)
command(epilog=examples("bt forget ~/Pictures/2009", "bt forget old.jpg /media/camera --json"))(forget)
command(epilog=examples("bt prune --dry-run", "bt prune"))(prune)
command(epilog=examples("bt verify", "bt verify --repair"))(verify)

app.add_typer(model, name="model")
of_model("list", epilog=examples("bt model list", "bt model list --json"))(list_models)
of_model("info", epilog=examples("bt model info demo", "bt model info ./base --json"))(show_model)
of_model("pull", epilog=examples("bt model pull", "bt model pull BridgeTower/bridgetower-base-itm-mlm"))(pull_model)
of_model("convert", epilog=examples("bt model convert BridgeTower/bridgetower-base-itm-mlm ./base"))(convert_model)
of_model(
    "remove",
    epilog=examples("bt model remove BridgeTower/bridgetower-base-itm-mlm --dry-run"),
)(remove_model)

app.add_typer(config, name="config")
of_config("show", epilog=examples("bt config show", "bt config show --json"))(show_config)
of_config(
    "set",
    epilog=examples(
        "bt config set device cpu", "bt config set min-match 0.3", "bt config set library.scans ./scans.index"
    ),
)(set_config)
of_config("unset", epilog=examples("bt config unset device", "bt config unset library.scans"))(unset_config)
