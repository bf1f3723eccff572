"""The page in a browser: what it shows, where things lie, and what can be done with it."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import yaml

from optuna_demix.report import ReportData, gather
from optuna_demix.report.page import build_page
from tests.report.studies import wide_space, wide_study

pytestmark = pytest.mark.xdist_group("report")

# What lies outside its card, or the window; texts of plots that cover each other.
GEOMETRY = """() => {
    const found = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
    const cards = [...document.querySelectorAll(".card")];
    const boxes = cards.map((card) => card.getBoundingClientRect());
    const meet = (a, b, by) => a.left < b.right - by && b.left < a.right - by
        && a.top < b.bottom - by && b.top < a.bottom - by;
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b) => {
        if (meet(a, b, 0.5)) found.push(`cards meet: ${cards[i].id}`);
    }));
    cards.forEach((card, i) => {
        for (const one of card.querySelectorAll("*")) {
            if (one.closest(".hidden")) continue;
            if (one.closest("svg") && !one.matches("svg, text")) continue;
            if (one.closest(".scroll") && !one.matches(".scroll")) continue;  // scrolls by itself
            const box = one.getBoundingClientRect();
            if (!box.width || !box.height) continue;
            if (box.left < boxes[i].left - 0.5 || box.right > boxes[i].right + 0.5)
                found.push(`${card.id}: <${one.tagName}> ${one.textContent.slice(0, 30)}`);
        }
    });
    for (const svg of document.querySelectorAll("figure svg")) {
        const texts = [...svg.querySelectorAll("text")].map((t) => t.getBoundingClientRect());
        texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => {
            if (meet(a, b, 2)) found.push(`labels meet in ${svg.closest("figure").dataset.chart}`);
        }));
    }
    return found;
}"""

# Contrast of every visible text with what lies behind it.
CONTRAST = """() => {
    const known = new Map();
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const parse = (color) => {
        if (!known.has(color)) {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
            known.set(color, [...canvas.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(color);
    };
    const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (one) => {
        for (let at = one; at; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
    };
    const poor = new Set();
    for (const one of document.querySelectorAll("body *")) {
        const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || one.closest(".hidden, .skip, script, noscript, title")) continue;
        const box = one.getBoundingClientRect();
        if (!box.width) continue;
        const style = getComputedStyle(one);
        const ink = luminance(parse(one.closest("svg") ? style.fill : style.color));
        const paper = luminance(behind(one));
        const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        if (ratio < 4.5) poor.add(`${one.tagName}.${one.className} ${ratio.toFixed(2)}`);
    }
    return [...poor];
}"""


@pytest.fixture(
    scope="module", params=[5, pytest.param(24, marks=pytest.mark.slow), 64], ids="K={}".format
)
def wide(request: pytest.FixtureRequest) -> ReportData:
    space = wide_space(request.param)
    return gather(wide_study(space, 14), space)


def opened(tab: Any, data: ReportData) -> None:
    # Chromium holds scripts of tests to the page's policy as well.
    text = re.sub(r"<meta http-equiv[^>]*>", "", build_page(data, title="a <study> & more"))
    tab.set_content(text)
    tab.wait_for_selector("#what-if .panel:not([hidden])")
    tab.wait_for_selector("figure[data-chart=proxies] svg")


def test_it_fits_every_width_and_can_be_read(tab: Any, wide: ReportData) -> None:
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.emulate_media(color_scheme="light")
    opened(tab, wide)
    for width in (480, 1280, 1920):
        tab.set_viewport_size({"width": width, "height": 1000})
        tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        drawn = tab.evaluate(
            "[...document.querySelectorAll('figure')].map((f) =>"
            " f.clientWidth - f.querySelector('svg').clientWidth)"
        )
        assert all(0 <= rest < 2 for rest in drawn), drawn
        assert tab.evaluate(GEOMETRY) == []
    assert tab.evaluate(CONTRAST) == []
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(CONTRAST) == []
    dark = tab.evaluate("getComputedStyle(document.querySelector('figure text')).fill")
    assert int(re.findall(r"\d+", dark)[0]) > 128  # plots follow the theme
    # Twenty components have a color of their own, the rest has one.
    colors = tab.evaluate(
        "[...document.querySelectorAll('#mixtures .legend .swatch')].map((s) =>"
        " getComputedStyle(s).backgroundColor)"
    )
    assert len(colors) == len(set(colors)) == min(len(wide.space), 21)
    assert tab.inner_text("h1") == "a <study> & more"
    assert tab.evaluate("document.documentElement.lang") == "en"
    for figure in tab.query_selector_all("figure, .stacks"):
        assert len(figure.get_attribute("aria-label")) > 40
    assert errors == []


def test_it_predicts_what_the_study_does(tab: Any, wide: ReportData) -> None:
    rows = wide.space.sample(4, np.random.default_rng(3))
    mean, std = wide.predictor.surrogate.predict(rows, return_std=True)
    mixing = wide.predictor.mixing
    opened(tab, wide)
    said = tab.evaluate("rows => rows.map((row) => demix.predict(row, 1.6449))", rows.tolist())
    np.testing.assert_allclose([s["mean"] for s in said], mean @ mixing, atol=1e-6)
    np.testing.assert_allclose([s["std"] for s in said], std @ np.abs(mixing), atol=1e-6)
    merit = wide.predictor.composite.told(mean @ mixing)
    np.testing.assert_allclose([s["composite"] for s in said], merit, atol=1e-5)
    # The panel starts with what the table above says.
    for name, score in wide.recommendation.mixtures["recommended"].capabilities.items():
        row = tab.inner_text(f"#predicted tr:has(th:text-is('{name}'))")
        assert f"{score:.4f}" in row


def test_weights_can_be_moved_locked_found_and_copied(tab: Any, wide: ReportData) -> None:
    names = list(wide.space.components)
    opened(tab, wide)
    tab.click("button[data-preset=uniform]")
    weights = tab.evaluate("demix.panel.weights")
    np.testing.assert_allclose(weights, wide.weights_of("uniform"), atol=1e-9)
    tab.click(f"button[aria-label='Lock {names[0]}']")
    slider = tab.locator("#weight-1")
    slider.focus()
    tab.keyboard.press("End")  # as much as the lock leaves
    weights = tab.evaluate("demix.panel.weights")
    np.testing.assert_allclose(sum(weights), 1.0)
    np.testing.assert_allclose(weights[:2], [(u := wide.weights_of("uniform")[0]), 1.0 - u])
    broken = tab.inner_text("#limits")
    for text in wide.space.broken(np.array(weights)):
        assert text.split(" (")[0] in broken  # named as the package names them
    assert "constraint" in broken and "All constraints" not in broken
    copied = yaml.safe_load(tab.evaluate("demix.panel.text(demix.asYaml)"))
    assert list(copied["merge_weights"]) == names
    shares = wide.space.data_shares(np.array(weights))
    np.testing.assert_allclose(list(copied["data_shares"].values()), shares, atol=1e-6)
    assert copied == json.loads(tab.evaluate("demix.panel.text(JSON.stringify)"))
    tab.fill("#find", names[-1])
    assert tab.locator("#sliders li:visible").count() == 1
    epochs = tab.inner_text("#shares tbody tr >> nth=0").split()[-1]
    assert wide.space.budget is not None and wide.space.tokens is not None
    assert float(epochs) == pytest.approx(
        shares[0] * wide.space.budget / wide.space.tokens[0], abs=0.006
    )
