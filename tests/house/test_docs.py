"""What README and docs print is true: commands parse, Python runs as printed, links lead somewhere."""

from __future__ import annotations

import asyncio
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dragoman.cli import app
from dragoman.ray_fleet.config import read_fleet
from speculation.sampling.params import Rule
from tests.support.service_drivers import serving
from tests.support.text_engine import TextEngine

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
#: What stands before a command in a block: a prompt, or a prompt with the machine's name.
_PROMPT = re.compile(r"^(?:[\w-]*\$\s+)?(?=dragoman )")


def blocks(page: Path, language: str) -> list[str]:
    return [found["code"] for found in _BLOCK.finditer(page.read_text("utf-8")) if found["language"] == language]


def commands(text: str) -> Iterator[list[str]]:
    """Arguments of each `dragoman ...` that begins a line of a block."""
    for line in text.splitlines():
        if _PROMPT.match(line):
            yield shlex.split(_PROMPT.sub("", line), comments=True)[1:]


def test_nothing_is_still_to_be_written() -> None:
    """No word stands for an output or a figure that was to come later."""
    placeholder = re.compile(
        r"^\W*(?:EXAMPLE|OUTPUT|FIGURES?|PLACEHOLDER)\W*$|\b(?:TODO|TBD|FIXME|XXX)\b", re.MULTILINE
    )
    found = {page.name: placeholder.findall(page.read_text("utf-8")) for page in PAGES}
    assert {name: lines for name, lines in found.items() if lines} == {}
    assert placeholder.search("text\n\nEXAMPLE\n\ntext") and placeholder.search("speed: TBD")


def printed_commands() -> list[tuple[str, list[str]]]:
    """Of all blocks."""
    return [(page.name, arguments) for page in PAGES for code in blocks(page, "") for arguments in commands(code)]


def mentioned_commands() -> list[tuple[str, list[str]]]:
    """Those in running text, which may leave out what the sentence is not about; lists of commands are left out."""
    found = []
    for page in PAGES:
        for words in re.findall(r"`dragoman ([a-z][^`,]*)`", re.sub(_BLOCK, "", page.read_text("utf-8"))):
            found.append((page.name, shlex.split(words.replace("\n", " "))))
    return found


def command_of(arguments: list[str]) -> tuple[Any, Any, list[str]]:
    """(the command, its context, the arguments that are left for it). Raises typer's usage errors."""
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "resolve_command") and arguments:
        context = command.make_context("dragoman", list(arguments), parent=context)
        _, command, arguments = command.resolve_command(context, list(arguments))
    return command, context, list(arguments)


def parse(arguments: list[str]) -> None:
    """As the command line would, and run nothing. Raises typer's usage errors."""
    command, context, rest = command_of(arguments)
    command.make_context("dragoman", rest, parent=context)


def test_commands_are_found():
    everything = printed_commands()
    assert len(everything) > 30
    assert {"verifier", "drafter", "generate", "fleet", "doctor", "plan"} <= {
        arguments[0] for _, arguments in everything
    }


@pytest.mark.parametrize(("page", "arguments"), printed_commands())
def test_every_printed_command_is_one_that_the_command_line_takes(page: str, arguments: list[str]):
    parse(arguments)


@pytest.mark.parametrize(("page", "arguments"), mentioned_commands())
def test_every_mentioned_command_and_option_exists(page: str, arguments: list[str]):
    command, _, rest = command_of(arguments)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known


def test_a_command_that_does_not_exist_is_noticed():
    for wrong in (["verifier", "--no-such-option"], ["verify"], ["models", "lists"], ["generate", "--seed", "x"]):
        with pytest.raises(Exception) as raised:
            parse(wrong)
        assert getattr(raised.value, "exit_code", None) == 2, wrong


@pytest.mark.parametrize("page", [page.name for page in PAGES if blocks(page, "python")])
async def test_printed_python_runs_as_printed(page: str, capsys, tiny_qwen2: Path, tiny_llama: Path):
    """Against a verifier at another port, with tiny models; nothing else of it is changed."""
    path = next(path for path in PAGES if path.name == page)
    async with serving(TextEngine()) as (_, address):
        stand_ins = {
            "127.0.0.1:50061": str(address),
            "qwen2.5-coder-1.5b": str(tiny_qwen2),
            "smollm2-135m": str(tiny_llama),
            "Qwen/Qwen2.5-Coder-1.5B": str(tiny_qwen2),
            "127.0.0.1:50071": "127.0.0.1:0",
        }
        for code in blocks(path, "python"):
            assert any(name in code for name in stand_ins), "it would need what is not there"
            for name, stand_in in stand_ins.items():
                code = code.replace(name, stand_in)
            # In a thread of its own, as a script would be: what is printed may have an event loop.
            await asyncio.to_thread(exec, compile(code, page, "exec"), {"__name__": "__main__"})
    assert "tokens per step" in capsys.readouterr().out


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(_BLOCK, "", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(_BLOCK, "", page.read_text("utf-8"))):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_files_that_are_named_exist():
    """Paths of the repository in `...`, as far as they have a folder and an ending."""
    for page in PAGES:
        for name in re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|md|yaml|json|jsonl|proto))`", page.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [page.name for page in PAGES if page.parent.name == "docs" and page.name not in navigation] == []


def test_blocks_are_read_with_and_without_prompt():
    text = textwrap.dedent("""\
        gpu$ dragoman status    # comment
        dragoman top
        not a dragoman command
        """)
    assert list(commands(text)) == [["status"], ["top"]]


# ---- what is printed agrees with what it is about -------------------------------------------------------------------


def printed_group_names() -> list[tuple[str, str]]:
    """(page, name) of every group of `deploy/fleet.yaml` that a printed command changes."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for sizes in re.findall(r"fleet scale((?: [\w-]+=\d+)+)[^\n`]* -c deploy/fleet\.yaml", text):
            found += [(page.name, name) for name in re.findall(r"([\w-]+)=", sizes)]
        found += [(page.name, name) for name in re.findall(r"fleet drain ([\w-]+)/\d+", text)]
    return found


def test_printed_commands_change_groups_that_the_fleet_file_has():
    fleet = read_fleet(ROOT / "deploy" / "fleet.yaml")
    names = {group.name for group in fleet.groups}
    names |= {"target", "targets"} if len(fleet.targets) == 1 else set()  # as `scale` takes them
    names |= {"drafter", "drafters"} if len(fleet.drafters) == 1 else set()
    found = printed_group_names()
    assert len(found) >= 3 and {name for _, name in found} <= names


def seeds_without_temperature(text: str) -> list[str]:
    """Settings and commands that seed draws which greedy text, the default, does not make."""
    settings = re.findall(r"SamplingParams\([^)]*\)", text)
    asked = [" ".join(arguments) for arguments in commands(text) if arguments[0] in ("generate", "chat")]
    found = [each for each in settings if "seed=" in each and "temperature=" not in each]
    return found + [each for each in asked if "--seed" in each and "--temperature" not in each]


def test_who_seeds_a_text_also_gives_it_a_temperature():
    assert {page.name: found for page in PAGES if (found := seeds_without_temperature(page.read_text("utf-8")))} == {}
    wrong = "SamplingParams(seed=7)\ndragoman generate --seed 7 --prompt x\ndragoman generate --seed 7 --temperature 1"
    assert seeds_without_temperature(wrong) == ["SamplingParams(seed=7)", "generate --seed 7 --prompt x"]


def test_the_number_of_architectures_is_that_of_the_rows():
    page = (ROOT / "docs" / "architectures.md").read_text("utf-8")
    served = re.findall(r"^\| .* \| (yes|no) \| ", page, re.MULTILINE)
    yes, every = served.count("yes"), served.count("yes") + served.count("no")
    head = re.search(r"(\d+) of these (\d+) kinds of models are served.*\(transformers ([\d.]+),", page)
    version = re.search(r"^transformers==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert head is not None and version is not None and every >= 40
    assert head.groups() == (str(yes), str(every), version[1])
    readme = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(r"(\d+) of (\d+) kinds\]\(docs/architectures\.md\)", readme) == [(str(yes), str(every))]


@pytest.mark.parametrize("rule", Rule.concrete(), ids=lambda rule: rule.value)
def test_every_rule_is_described_with_its_speed(rule: Rule):
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    described, measured = re.findall(rf"^\| `{rule.value}`[^|]*\|(.*)\|$", page, re.MULTILINE)
    assert re.search("[a-z]", described) and re.fullmatch(r"( \d\.\d+ \|){2} \d\.\d+ ", measured), measured


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("README.md", ["three terminals"]),
        ("README.md", ["fits your stack", "vLLM", "llama.cpp", "Ollama", "OpenAI client"]),
        ("install.md", ["## Does it fit my stack?", "vLLM", "llama.cpp", "Ollama", "OpenAI client"]),
        ("install.md", ["--index-url"]),
        ("models.md", ["## Memory", "## Which drafter for which target"]),
        ("glossary.md", ["| span |", "| verify step |", "| race |", "| plan |"]),
        ("operations.md", ["## Troubleshooting", "`--verbose` (`-v`) logs what goes well too"]),
        ("fleet.md", ["### Logs on Ray", "worker-*-PID.err"]),
    ],
)
def test_what_newcomers_looked_for_is_still_there(name: str, words: list[str]):
    text = " ".join(next(page for page in PAGES if page.name == name).read_text("utf-8").split())
    assert [word for word in words if word not in text] == []
