"""Room in a cluster: what fits, what never will, what would do instead, and what a person reads. No Ray is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.ray_fleet import admission
from dragoman.ray_fleet.admission import Admission
from dragoman.ray_fleet.calls import Outcome
from dragoman.ray_fleet.config import CoordinatorSettings, DrafterGroup, FleetFile, Target, read_fleet
from dragoman.ray_fleet.nodes import Node, may_grow
from dragoman.ray_fleet.places import HEAD
from dragoman.ray_fleet.room import Ask, lack_of, largest_share
from dragoman.ray_fleet.standing import Standing, differences, unlike
from speculation.errors import DragomanError

EXAMPLE = Path(__file__).parent.parent.parent / "deploy" / "fleet.yaml"
EDGE: Mapping[str, str] = {"role": "edge"}


def node(labels: Mapping[str, str] = EDGE, *, cpus: float = 2, free: float | None = None, **others: float) -> Node:
    resources = {"CPU": cpus, **others}
    return Node("10.0.0.1", labels, resources, resources if free is None else {**others, "CPU": free})


def drafters(count: int, num_cpus: float = 1, kept: Mapping[str, float] | None = None, **more: Any) -> Ask:
    group = DrafterGroup(name="small", model="m", num_cpus=num_cpus, **more)
    held = {name: {"CPU": cpus} for name, cpus in (kept or {}).items()}
    return Ask(f"drafters={count + len(held)}", group.place, count, held)


def test_what_the_readme_scales_the_commented_file_to_has_room_on_two_cpus():
    fleet = read_fleet(EXAMPLE)
    asks = [Ask("coordinator", fleet.coordinator.place, 1, {})]
    asks += [Ask("drafters=3", group.place, 3, {}) for group in fleet.drafters]
    asks += [Ask("target=2", group.place, 2, {}) for group in fleet.targets]
    assert fleet.gateway is not None
    asks.append(Ask("gateway=2", fleet.gateway.place, 2, {}))
    head = {HEAD: 1.0}
    assert lack_of(asks, [node(**head)]) is None
    assert lack_of(asks, [node(cpus=1, **head)]) is None, "nor is one CPU too few"


def test_what_does_not_fit_says_what_is_asked_free_held_and_would_do():
    lack = lack_of([drafters(2, kept={"small/0": 1})], [node(cpus=4, free=0.5)])
    assert lack is not None and not lack.never
    assert lack.message({"big/0": {"CPU": 2.5}, "small/0": {"CPU": 1}}) == (
        "drafters=3 asks for 2 more x 1 CPU on nodes with role=edge, and of 4 there 0.5 is free "
        "(held by big/0 2.5, small/0 1)"
    )
    assert lack.smaller() == "lower num_cpus of small in the fleet file to 0.25"
    assert lack_of([drafters(2, 0.25, kept={"small/0": 1})], [node(cpus=4, free=0.5)]) is None


def test_where_nothing_is_free_those_that_hold_more_have_to_start_anew():
    lack = lack_of([drafters(2, kept={"small/0": 1})], [node(cpus=4, free=0)])
    assert (
        lack is not None
        and not lack.never
        and lack.smaller()
        == (
            "lower num_cpus of small in the fleet file to 0.33, start those anew that hold more "
            "(`dragoman fleet drain small/0`), and repeat this"
        )
    )
    assert lack_of([drafters(3, 0.33)], [node(free=1)]) is None, "once small/0 is gone"
    others = lack_of([drafters(2)], [node(free=0)])
    assert others is not None and others.smaller() == "", "nothing is small enough"


def test_what_can_never_fit_is_told_apart_from_what_does_not_fit_now():
    assert lack_of([drafters(2, kept={"small/0": 1})], [node(free=2)]) is None
    grown = lack_of([drafters(2, kept={"small/0": 0.1})], [node(free=1.9)])
    assert grown is not None and not grown.never, "what runs with less may end"
    lack = lack_of([drafters(3, kept={"small/0": 1})], [node(free=1)])
    assert lack is not None and lack.never
    assert lack.message({}) == (
        "drafters=4 asks for 3 more x 1 CPU on nodes with role=edge, and there is 2 in all: "
        "it can never fit on this cluster"
    )
    assert lack.smaller() == "lower num_cpus of small in the fleet file to 0.33", "of the one that is free"
    full = lack_of([drafters(3, kept={"small/0": 0.9, "small/1": 0.1})], [node(free=0)])
    assert full is not None and full.never, "and small/1, which holds less, may go on"
    assert full.smaller().endswith(
        "to 0.2, start those anew that hold more (`dragoman fleet drain small/0`), and repeat this"
    )


def test_room_that_is_scattered_is_no_room():
    large = Ask("big", Target(name="big", model="m", num_cpus=2).place, 1, {})
    lack = lack_of([large], [node(free=1.5), node(free=1)])
    assert lack is not None and not lack.never
    assert "asks for 1 x 2 CPU, and of 4 there 2.5 is free, 1.5 on a node at most" in lack.message({})
    assert lack.smaller() == "lower num_cpus of big in the fleet file to 1.5"
    never = lack_of([large], [node(cpus=1), node(cpus=1.5)])
    assert never is not None and never.never and "1.5 on a node at most: it can never fit" in never.message({})


def test_gpus_are_counted_likewise():
    ask = Ask("target=2", Target(name="big", model="m", num_cpus=0, num_gpus=0.6).place, 1, {"big/0": {"GPU": 0.6}})
    lack = lack_of([ask], [Node("h", {}, {"GPU": 1.0}, {"GPU": 0.4})])
    assert lack is not None and lack.never and "asks for 1 more x 0.6 GPU, and there is 1 in all" in lack.message({})
    assert lack.smaller() == "lower num_gpus of big in the fleet file to 0.4"


def test_those_with_the_fewest_nodes_to_choose_from_come_first():
    anywhere = Ask("big", Target(name="big", model="m").place, 2, {})
    nodes = [node(cpus=1), node({}, cpus=2)]
    assert lack_of([anywhere, drafters(1)], nodes) is None, "big must leave the edge node to small"
    lack = lack_of([anywhere, drafters(2)], nodes)
    assert lack is not None and lack.ask.words == "drafters=2" and lack.never


def test_the_coordinator_takes_its_room_on_the_head_node_only():
    ask = Ask("coordinator", CoordinatorSettings(num_cpus=1).place, 1, {})
    head = node({}, cpus=1, free=0, **{HEAD: 1.0})
    lack = lack_of([ask], [head, node()])
    assert lack is not None and lack.resource == "CPU" and lack.free == (0,)
    assert lack_of([Ask("coordinator", CoordinatorSettings().place, 1, {})], [head]) is None


@given(
    free=st.lists(st.integers(0, 400), min_size=1, max_size=4),
    count=st.integers(1, 8),
    needed=st.integers(1, 300),
)
def test_what_would_do_does_and_nothing_larger(free: list[int], count: int, needed: int):
    """All in hundredths of a CPU."""
    nodes = [node(cpus=5, free=each / 100) for each in free]
    lack = lack_of([drafters(count, needed / 100)], nodes)
    fits = sum(each // needed for each in free) >= count
    assert (lack is None) is fits
    share = largest_share([each / 100 for each in free], count)
    if share:
        assert lack_of([drafters(count, share)], nodes) is None
    assert lack_of([drafters(count, round(share + 0.01, 2))], nodes) is not None


# ---- with a cluster that is made up ---------------------------------------------------------------------------------


class FakeCluster(SimpleNamespace):
    """One node of 2 CPUs, of which ``free`` says from look to look how many are free."""

    def __init__(self, *free: float, **labels: str) -> None:
        self.looks = 0

        def available() -> dict[str, dict[str, float]]:
            self.looks += 1
            return {"n": {"CPU": free[min(self.looks, len(free)) - 1]}}

        told = {
            "NodeID": "n",
            "Alive": True,
            "NodeManagerAddress": "10.0.0.1",
            "Labels": {"role": "edge", **labels},
            "Resources": {"CPU": 2.0},
        }
        state = SimpleNamespace(available_resources_per_node=available)
        super().__init__(nodes=lambda: [told], _private=SimpleNamespace(state=state))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_POLL", 0.001)
    monkeypatch.setattr(admission, "_SETTLE", 0.05)


def held(name: str, cpus: float) -> Standing:
    facts = {"host": "10.0.0.1", "placed": {"num_cpus": cpus, "num_gpus": 0, "labels": {}}}
    return Standing(name, "drafter", Outcome.ANSWERED, facts)


def admitting(cluster: FakeCluster, notes: list[str], *, alone: bool = False) -> Admission:
    ray: Any = cluster
    return Admission(ray, note=notes.append, standings=lambda: [held("small/0", 2)], alone=alone)


def test_no_room_is_refused_with_what_would_do(quick: None):
    with pytest.raises(DragomanError, match=r"held by small/0 2") as caught:
        admitting(FakeCluster(0.5), []).await_room([drafters(1)], 0.0)
    assert caught.value.remedy == (
        "lower num_cpus of small in the fleet file to 0.5, or end what else runs there (`dragoman fleet scale`), "
        "or add a node: `ray start --address=HEAD:6379 --labels=role=edge`"
    )
    with pytest.raises(DragomanError) as caught:
        admitting(FakeCluster(0.5), [], alone=True).await_room([drafters(3)], 60.0)
    assert "can never fit" in caught.value.message and "`dragoman fleet down`, then `up`" in caught.value.remedy


def test_what_ended_just_now_gets_a_moment(quick: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admission, "_SETTLE", 60.0)
    notes: list[str] = []
    admitting(FakeCluster(0, 0, 0, 1), notes).await_room([drafters(1)], 0.0)
    assert notes == []
    admitting(FakeCluster(0), notes).await_room([drafters(1)], 0.0, ending=[held("small/0", 2)])


def test_room_that_is_to_come_is_waited_for_with_a_word(quick: None):
    notes: list[str] = []
    admitting(FakeCluster(0, 0, 0, 1), notes).await_room([drafters(1)], 60.0)
    assert len(notes) == 1 and notes[0].startswith("waiting for room: drafters=1 asks for 1 x 1 CPU")


def test_a_cluster_that_may_grow_says_what_it_waits_for():
    notes: list[str] = []
    grown = FakeCluster(0, **{"ray.io/node-group": "workers"})
    admission = admitting(grown, notes)
    assert admission.grows() and not admitting(FakeCluster(0), notes).grows()
    admission.tell([drafters(9), Ask("big", Target(name="big", model="m", labels={"role": "gpu"}).place, 1, {})])
    assert len(notes) == 2 and all("waiting for the cluster to add a node" in line for line in notes)
    assert "no node carries the label role=gpu" in notes[0] and "of 2 there 0 is free" in notes[1]
    assert may_grow([node({"ray.io/node-group": "x"})]) and not may_grow([node()])


# ---- what runs and what the file says -------------------------------------------------------------------------------


def standing(group: Target | DrafterGroup, number: int = 0) -> Standing:
    settings = group.settings_of(number).model_dump()
    if isinstance(group, Target):
        settings["port"] = group.port_of(number)
    kind = "verifier" if isinstance(group, Target) else "drafter"
    facts = {"settings": settings, "placed": group.place.settings, "serving": True}
    return Standing(f"{group.name}/{number}", kind, Outcome.ANSWERED, facts)


def test_what_runs_with_other_settings_than_the_file_says_which_and_how_to_apply_them():
    old = [Target(name="big", model="m"), DrafterGroup(name="small", model="d")]
    found = [*(standing(group) for group in old), standing(old[1], 1)]
    target = Target(name="big", model="m", labels={"role": "gpu"}, max_sessions=8)
    drafter = DrafterGroup(name="small", model="d", num_cpus=0.1, threads=2)
    fleet = FleetFile(targets=[target], drafters=[drafter])
    lines = differences(fleet, fleet.groups, found)
    assert lines == [
        "big/0 as started before: max_sessions 64 (the file has 8), labels {} (the file has {role: gpu}); "
        "to apply the file: `dragoman fleet drain big/N` one by one, then `dragoman fleet up` or `scale`",
        "small/0, small/1 as started before: threads null (the file has 2), num_cpus 1 (the file has 0.1); "
        "to apply the file: `dragoman fleet drain small/N` one by one, then `dragoman fleet up` or `scale`",
    ]
    same = FleetFile(targets=[old[0]], drafters=[old[1]])
    assert differences(same, same.groups, found) == []
    assert differences(fleet, [target], found) == lines[:1], "of the groups that are asked about"


def test_what_is_missing_or_too_many_is_told_as_well():
    target = Target(name="big", model="m", replicas=2)
    fleet = FleetFile(targets=[target])
    extra = standing(DrafterGroup(name="small", model="d"))
    silent = Standing("big/0", "verifier", Outcome.SILENT, why="no answer within 5 s")
    assert unlike(fleet, [silent, extra]) == [
        "big/1 is in the file and does not run: `dragoman fleet up` starts it",
        "coordinator is in the file and does not run: `dragoman fleet up` starts it",
        "small/0 runs too, and is not in the file",
    ]


def test_a_coordinator_that_is_not_as_the_file_has_it_comes_with_all_the_fleet():
    fleet = FleetFile(targets=[Target(name="big", model="m")])
    settings = {"port": 50061, **fleet.coordinator.settings.model_dump()}
    facts = {"settings": settings, "placed": CoordinatorSettings(num_cpus=1).place.settings}
    [line] = differences(fleet, [], [Standing("coordinator", "coordinator", Outcome.ANSWERED, facts)])
    assert "port 50061 (the file has 50060), num_cpus 1 (the file has 0)" in line and "`dragoman fleet down`" in line
