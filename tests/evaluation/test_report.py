"""The report: all parts there, nothing from outside, no claim stronger than its interval; figures and videos."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import av
import numpy as np
import pytest

from steer.evaluation import figures
from steer.evaluation.notes import headline, notes
from steer.evaluation.report import render
from steer.evaluation.result import EpisodeResult, Tuning, TuningPoint
from steer.evaluation.video import Clip, encode, pairs_to_show, side_by_side
from tests.evaluation.results import evaluation

GOOD = evaluation([True] * 40 + [False] * 60, [True] * 95 + [False] * 5)
OPEN = evaluation([True, False, True, False], [True, True, False, False])
CLIP = Clip(7, False, True, 6.0, 3.0, "data:video/mp4;base64,AAAA")


class Page(HTMLParser):
    """Ids, addresses and headings of a page; raises on tags that do not match."""

    _VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href", "srcset", "poster", "action", "data"):
                self.addresses.append(value or "")
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self._VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("h1", "h2", "h3") and data.strip():
            self.headings.append(data.strip())


def full() -> str:
    tuning = Tuning(500, 20, "steered", (TuningPoint(8, 0.8, 0.5, 0.9, 0.4),), 8, 0.8)
    verdict = {"may_steer": True, "reasons": ["it ranks 60 held-out episodes well"]}
    changed = evaluation([True] * 40 + [False] * 60, [True] * 95 + [False] * 5, tuning=tuning, verdict=verdict)
    return render(changed, [CLIP])


def test_all_parts_are_there() -> None:
    page = Page(full())
    for part in ("result", "notes", "figures", "videos", "verdict", "tuning", "settings"):
        assert part in page.ids
    for title in ("Success against K", "Q over time", "Q against outcome", "Latency per part", "Start 7", "May steer"):
        assert title in page.headings


def test_nothing_comes_from_outside() -> None:
    text = full()
    assert "http" not in text
    assert "@import" not in text
    assert all(address.startswith(("#", "data:")) for address in Page(text).addresses)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_ids_are_unique_and_references_resolve() -> None:
    text = full()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    targets = [address[1:] for address in page.addresses if address.startswith("#")] + re.findall(
        r"url\(#([^)]*)\)", text
    )
    assert targets
    assert set(targets) <= set(page.ids)


def test_parts_without_data_are_left_out() -> None:
    page = Page(render(evaluation([True], [True], k_sweep=(), calibration=())))
    assert "Success against K" not in page.headings
    assert not {"videos", "verdict", "tuning"} & set(page.ids)


def test_text_from_models_cannot_become_markup() -> None:
    text = render(evaluation([True], [True], versions={"policy": "<script>alert(1)</script>"}))
    assert "<script" not in text


def test_the_headline_claims_no_more_than_the_interval() -> None:
    assert headline(GOOD) == "Steering raises success by 55 points"
    assert headline(OPEN) == "No difference shown"
    assert headline(evaluation([True] * 60, [False] * 40 + [True] * 20)) == "Steering lowers success by 67 points"


def test_notes_warn_of_few_pairs_and_of_zero() -> None:
    text = " ".join(notes(OPEN))
    assert "contains zero" in text
    assert "Only 4 pairs" in text
    assert "contains zero" not in " ".join(notes(GOOD))
    assert "Only" not in " ".join(notes(GOOD))


def test_notes_begin_with_a_critic_that_should_not_steer() -> None:
    assert "should not steer" in notes(evaluation([True], [True], verdict={"may_steer": False, "reasons": []}))[0]


def test_notes_say_that_no_critic_scored() -> None:
    alone = evaluation([True, False], [True, False])
    silent = {
        side: tuple(replace(one, steps=(), values=()) for one in alone.per_episode[side])
        for side in ("base", "steered")
    }
    assert "No critic scored" in notes(replace(alone, per_episode=silent))[0]
    assert not any("No critic" in note for note in notes(alone))


def test_notes_say_how_the_settings_were_chosen() -> None:
    tuning = Tuning(500, 20, "steered", (), 8, 0.8)
    few = " ".join(notes(evaluation([True], [True], tuning=tuning)))
    assert "20 other starts" in few
    assert "So few hardly tell" in few
    enough = " ".join(notes(evaluation([True], [True], tuning=replace(tuning, episodes=50))))
    assert "So few" not in enough
    assert "the result flatters" in " ".join(notes(GOOD))


@pytest.mark.parametrize("outcomes", [[True] * 3, [False] * 3, [True, False]])
def test_q_over_time_draws_with_one_kind_of_outcome_only(outcomes: list[bool]) -> None:
    episodes = [EpisodeResult(i, ok, 0.0, 8, (0, 4), (0.1, 0.2)) for i, ok in enumerate(outcomes)]
    drawing = figures.q_over_time(episodes, 20.0)
    assert ("succeeded" in drawing) is any(outcomes)
    assert ("failed" in drawing) is not all(outcomes)


def test_figures_take_the_pages_colours() -> None:
    drawing = figures.success_against_k(GOOD.k_sweep)
    assert drawing.startswith("<svg")
    assert "var(--steered)" in drawing
    assert "<style" not in drawing
    assert not re.search(r"#[01][0-9a-f]{5}\b", drawing), "a stand-in colour was left"


def test_a_figure_is_the_same_each_time() -> None:
    assert figures.success_against_k(GOOD.k_sweep) == figures.success_against_k(GOOD.k_sweep)


def test_pairs_to_show_takes_gained_then_lost() -> None:
    base, steered = [False, True, False, True, False], [True, False, True, True, False]
    assert pairs_to_show(base, steered, gained=1, lost=1) == [0, 1]
    assert pairs_to_show(base, steered, gained=5, lost=5) == [0, 2, 1]
    assert pairs_to_show([True, True], [True, True], gained=2, lost=1) == [0]


def test_the_shorter_side_keeps_its_last_picture_dimmed() -> None:
    left, right = np.zeros((4, 5, 7, 3), np.uint8), np.full((2, 5, 7, 3), 200, np.uint8)
    both = side_by_side(left, right, hold=1)
    assert both.shape == (5, 4, 18, 3)
    assert (both[1, :, 12:] == 200).all()
    assert (both[2:, :, 12:] == 164).all()
    assert (both[:4, :, :6] == 0).all()


def test_a_video_decodes_to_its_pictures() -> None:
    ramp = np.linspace(20, 230, 12).astype(np.uint8)
    frames = np.broadcast_to(ramp[:, None, None, None], (12, 32, 64, 3)).copy()
    with av.open(io.BytesIO(encode(frames, 10.0))) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 10.0
    assert len(decoded) == 12
    np.testing.assert_allclose([picture.mean() for picture in decoded], ramp, atol=4)


def test_clips_are_data_uris() -> None:
    assert CLIP.uri in render(GOOD, [CLIP])
    assert base64.b64decode(CLIP.uri.partition(",")[2]) == b"\0\0\0"
