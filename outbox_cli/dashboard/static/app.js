// Live pages, plots, theme and keys. Without this script, only the plots are missing.
"use strict";
const root = document.body.dataset.root;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- live: while the tab is visible, its parts ask for themselves again --------------------------------------------
setInterval(() => {
  if (document.hidden) return;
  htmx.trigger(document.body, "refresh");
  refreshPlots();
}, document.body.dataset.refresh * 1000);

// An unchanged part is left alone, and so is one that the user is working in.
document.addEventListener("htmx:beforeSwap", (event) => {
  const target = event.detail.target;
  if (!target.classList.contains("live")) return;
  const selected = !getSelection().isCollapsed && target.contains(getSelection().anchorNode);
  const busy = target.contains(document.activeElement) || target.querySelector("details[open]");
  const fresh = new DOMParser().parseFromString(event.detail.serverResponse, "text/html").getElementById(target.id);
  if (selected || busy || !fresh || fresh.innerHTML === target.dataset.last) event.detail.shouldSwap = false;
  else fresh.id && requestAnimationFrame(() => remember(fresh));
});
function remember(fresh) { const now = document.getElementById(fresh.id); if (now) now.dataset.last = fresh.innerHTML; }

// ---- plots -----------------------------------------------------------------------------------------------------
// Each line: its name in series.json, its label, its colour, whether the area below it is filled.
const PLOTS = {
  rates: { lines: [["emitted_per_s", "emitted", "--l1", true], ["delivered_per_s", "delivered", "--l2"]] },
  latency: { lines: [["p50_s", "p50", "--l1", true], ["p99_s", "p99", "--l4"]], isTime: true },
  due: { lines: [["due_age_s", "oldest", "--l4", true]], isTime: true },
  backlog: { lines: [["waiting", "waiting", "--l1", true]], isWhole: true },
  deliveries: { lines: [["delivered_per_s", "delivered", "--l2", true], ["failed_per_s", "failed", "--l3"]] },
  failed: { by: "failed_by_cause", none: "No attempt failed in this time." },
  died: { by: "died_by_cause", none: "No message became a dead letter in this time.", isCount: true },
};
const CAUSE_COLOURS = ["--c0", "--c2", "--c1", "--c3", "--c6"], OTHER = "other";
const SECONDS = [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400];
const COUNTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7];
const BARS = 60; // at most so many stand in a plot
const plots = new Map();
let span = "1h", latest = null, asked = 0;

const trimmed = (value) => String(+value.toPrecision(3));
const shown = (value) => value == null ? "–" : value >= 1e6 ? `${trimmed(value / 1e6)} M` : value >= 1e4 ? `${trimmed(value / 1e3)} k` : value >= 1000 ? Math.round(value).toLocaleString("en") : value >= 100 ? value.toFixed(0) : String(+value.toFixed(value < 1 ? 2 : 1));
const seconds = (value) => value == null ? "–" : !value ? "0" : value < .995 ? `${+(value * 1000).toPrecision(2)} ms` : value < 60 ? `${+value.toPrecision(2)} s`
  : value < 3600 ? `${Math.floor(value / 60)} min${Math.round(value % 60) ? ` ${Math.round(value % 60)} s` : ""}` : `${+(value / 3600).toFixed(1)} h`;
const every = (value) => value === 60 ? "minute" : value === 3600 ? "hour" : value < 60 ? `${value} s` : value < 3600 ? `${value / 60} minutes` : `${value / 3600} hours`;
const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
const day = (at) => new Date(at * 1000).toLocaleDateString("en", { month: "short", day: "numeric" });
const label = (at) => (span === "7d" || span === "30d" ? day(at) : clock(at));

// A colour over the card, as one opaque colour: areas that lie on one another do not mix.
function pale(colour) {
  const parts = (text) => [1, 3, 5].map((at) => parseInt((text.length < 5 ? text.replace(/\w/g, "$&$&") : text).slice(at, at + 2), 16));
  const over = parts(css("--card"));
  return `rgb(${parts(colour).map((part, index) => Math.round(part * .45 + over[index] * .55)).join(" ")})`;
}

// The sums of so many values each, of which some may be unknown.
function gathered(values, size) {
  return size === 1 ? values : Array.from({ length: Math.ceil(values.length / size) }, (_, n) => {
    const known = values.slice(n * size, (n + 1) * size).filter((value) => value != null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
  });
}

// What a figure shows: the values as they are, as they are drawn, and how.
function dataOf(figure) {
  const plot = PLOTS[figure.dataset.chart], name = figure.dataset.destination;
  if (plot.by) {
    const size = plot.isCount ? Math.ceil(latest.at.length / BARS) : 1, causes = Object.entries(latest[plot.by]);
    const at = latest.at.filter((_, n) => n % size === 0), raw = causes.map(([, values]) => gathered(values, size));
    const stacked = raw.map((_, from) => at.map((_, n) => raw[from][n] == null ? null : raw.slice(from).reduce((sum, values) => sum + (values[n] || 0), 0)));
    const totals = raw.map((values) => Math.round(values.reduce((sum, value) => sum + (value || 0), 0) * (plot.isCount ? 1 : latest.step_s)));
    return { at, step_s: size * latest.step_s, raw, totals, drawn: stacked, series: causes.map(([cause], index) => ({ label: cause, colour: cause === OTHER ? "--dim" : CAUSE_COLOURS[index], isFilled: true })) };
  }
  const lines = name ? latest.destinations[name] || {} : latest.lines;
  const raw = plot.lines.map(([key]) => lines[key] || latest.at.map(() => null));
  return { at: latest.at, raw, drawn: raw, series: plot.lines.map(([, text, colour, isFilled]) => ({ label: text, colour, isFilled })) };
}

// The values without a neighbour, which no line shows: they are drawn as points.
function isolated(u, index) {
  const values = u.data[index], found = values.flatMap((value, n) => value != null && values[n - 1] == null && values[n + 1] == null ? [n] : []);
  return found.length ? found : null;
}

function make(figure, data) {
  const plot = PLOTS[figure.dataset.chart], at = figure.querySelector(".plot"), unit = plot.isTime ? seconds : shown;
  const height = () => (figure.classList.contains("small") ? 96 : 150), time = figure.querySelector("time");
  const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const kept = { raw: data.raw, totals: data.totals, isPointed: false, labels: data.series.map((each) => each.label).join("\n"), height };
  const series = data.series.map(({ label, colour, isFilled }, index) => ({
    label, stroke: css(colour), width: plot.isCount ? 0 : 1.75, spanGaps: false,
    points: { show: false, size: 5, fill: css(colour), filter: plot.isCount ? undefined : isolated },
    value: (_, __, ___, n) => kept.isPointed ? unit(kept.raw[index][n]) : plot.by ? `${shown(kept.totals[index])} in all` : unit(kept.raw[index].findLast((value) => value != null)),
    fill: plot.isCount ? css(colour) : plot.by ? pale(css(colour)) : isFilled ? `${css(colour)}22` : undefined,
    ...(plot.isCount ? { paths: uPlot.paths.bars({ size: [0.7, 18], align: 1 }) } : {}),
  }));
  // Without a pointer, the legend shows the last values; of causes, how many there were.
  const follow = (u) => {
    const pointed = u.cursor.idx;
    kept.isPointed = pointed != null;
    time.textContent = kept.isPointed ? `${day(u.data[0][pointed])}, ${clock(u.data[0][pointed])}` : "";
    if (!kept.isPointed) u.setLegend({ idx: 0 }, false);
  };
  at.replaceChildren();
  kept.plot = new uPlot({
    width: at.clientWidth, height: height(), series: [{}, ...series], cursor: { points: { size: 6 }, y: false, sync: { key: "time" }, drag: { x: false, y: false } },
    legend: { markers: { width: 0, fill: (_, index) => css(data.series[index - 1].colour) } },
    hooks: { ready: [follow], setCursor: [follow], setData: [follow] },
    scales: { y: { range: (_, __, high) => [0, Math.max((high || 0) * 1.12, plot.isTime ? 0.01 : plot.by && !plot.isCount ? 0.1 : 1)] } },
    axes: [{ ...axis, size: 24, space: 64, values: (_, ticks) => ticks.map(label) }, { ...axis, size: 54, space: height() < 100 ? 20 : 30, gap: 6, incrs: plot.isTime ? SECONDS : plot.isCount || plot.isWhole ? COUNTS : undefined, values: (_, ticks) => ticks.map(unit) }],
  }, [data.at, ...data.drawn], at);
  for (const each of at.querySelectorAll(".u-label")) each.title = each.textContent;
  return kept;
}
function draw() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const data = dataOf(figure), { by, none } = PLOTS[figure.dataset.chart], old = plots.get(figure);
    const isEmpty = data.raw.every((values) => values.every((value) => value == null)), unit = figure.querySelector("[data-unit]");
    if (unit) unit.textContent = `new ones per ${every(data.step_s)}`;
    if (isEmpty || data.series.map((each) => each.label).join("\n") !== old?.labels) { old?.plot.destroy(); plots.delete(figure); }
    if (isEmpty) {
      const isMeasured = by && Object.values(latest.lines).some((values) => values.some((value) => value != null));
      const said = isMeasured ? none : "There are no measurements for this time. A relay writes a sample every fifteen seconds.";
      figure.querySelector(".plot").replaceChildren(Object.assign(document.createElement("p"), { className: "none", textContent: said }));
    } else if (plots.has(figure)) {
      Object.assign(old, { raw: data.raw, totals: data.totals });
      old.plot.setData([data.at, ...data.drawn]);
    } else plots.set(figure, make(figure, data));
  }
}
async function refreshPlots(force = false) {
  if (!document.querySelector("[data-chart]") || (!force && Date.now() - asked < 10_000)) return;
  asked = Date.now();
  const of = document.querySelector("[data-of]")?.dataset.of, wanted = span;
  const answer = await fetch(`${root}/series.json?span=${wanted}${of ? `&destination=${encodeURIComponent(of)}` : ""}`);
  if (answer.ok && wanted === span) { latest = await answer.json(); draw(); document.body.dataset.plotted = "true"; }
}
function redraw() { for (const { plot } of plots.values()) plot.destroy(); plots.clear(); if (latest) draw(); }
new ResizeObserver(() => { for (const [figure, { plot, height }] of plots) plot.setSize({ width: figure.querySelector(".plot").clientWidth, height: height() }); }).observe(document.body);
for (const button of document.querySelectorAll("[data-span]")) button.addEventListener("click", () => {
  span = button.dataset.span;
  for (const each of document.querySelectorAll("[data-span]")) each.setAttribute("aria-pressed", String(each === button));
  redrawAfter();
});
async function redrawAfter() { await refreshPlots(true); redraw(); }

// ---- theme and keys --------------------------------------------------------------------------------------------
document.getElementById("theme")?.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("outbox-theme", document.documentElement.dataset.theme);
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName)) return;
  const box = document.querySelector("input[type=search]");
  if (box) { event.preventDefault(); box.focus(); box.select(); } else location.href = `${root}/messages`;
});
document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
refreshPlots(true);
