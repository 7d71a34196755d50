// Live pages, plots, theme and keys. Without this script, only the plots are missing.
"use strict";
const root = document.body.dataset.root;
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- live: one stream for the page, none while the tab is hidden -------------------------------------------------
let stream = null;
function follow() {
  if (stream || document.hidden || !document.querySelector(".live, [data-chart]")) return;
  stream = new EventSource(`${root}/live`);
  stream.addEventListener("picture", (event) => {
    const said = JSON.parse(event.data);
    if (said.trouble) return;
    htmx.trigger(document.body, "picture");
    refreshPlots();
    if (document.body.dataset.path === "/") document.title = `${said.dead ? `${said.dead} dead · ` : ""}Overview · outbox`;
  });
}
function rest() { stream?.close(); stream = null; }
document.addEventListener("visibilitychange", () => (document.hidden ? rest() : follow()));
addEventListener("pagehide", rest);

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
const PLOTS = {
  rates: [["emitted_per_s", "emitted", "--l1", true], ["delivered_per_s", "delivered", "--l2"]],
  latency: [["p50_s", "p50", "--l1"], ["p99_s", "p99", "--l4"]],
  backlog: [["waiting", "waiting", "--l1", true]],
  failures: [["failed_per_s", "failed a second", "--l4"], ["died", "died", "--l3", false, true]],
  destination: [["delivered_per_s", "delivered", "--l2", true], ["failed_per_s", "failed", "--l3"]],
};
const plots = new Map();
let span = "1h", latest = null, asked = 0;

const shown = (value) => value == null ? "–" : value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : value >= 1e4 ? `${(value / 1e3).toFixed(1)} k`
  : value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toPrecision(2);
const seconds = (value) => value == null ? "–" : value < 1 ? `${+(value * 1000).toPrecision(2)} ms` : value < 120 ? `${+value.toPrecision(2)} s` : `${(value / 60).toFixed(0)} m`;

function make(figure, data) {
  const kind = figure.dataset.chart, at = figure.querySelector(".plot");
  const unit = kind === "latency" ? seconds : shown, axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const series = PLOTS[kind].map(([, label, colour, filled, bars]) => ({
    label, stroke: css(colour), width: bars ? 0 : 1.75, points: { show: false }, spanGaps: false, value: (_, v) => unit(v),
    fill: bars ? css(colour) : filled ? css(colour) + "22" : undefined, ...(bars ? { paths: uPlot.paths.bars({ size: [0.8, 24] }) } : {}),
  }));
  at.replaceChildren();
  return new uPlot({
    width: at.clientWidth, height: at.clientHeight - 24, series: [{}, ...series], cursor: { points: { size: 6 }, y: false, sync: { key: "time" } }, legend: { live: true },
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.1, kind === "latency" ? 0.01 : 1)] } },
    axes: [{ ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map(label) }, { ...axis, size: 52, space: 32, values: (_, ticks) => ticks.map(unit) }],
  }, data, at);
}
function label(at) {
  const time = new Date(at * 1000), far = span === "7d" || span === "30d";
  return far ? time.toLocaleDateString([], { month: "short", day: "numeric" }) : time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}
function draw() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const lines = figure.dataset.chart === "destination" ? latest.destinations[figure.dataset.destination] || {} : latest.lines;
    const data = [latest.at, ...PLOTS[figure.dataset.chart].map(([name]) => lines[name] || latest.at.map(() => null))];
    const isEmpty = data.slice(1).every((line) => line.every((value) => value == null));
    const old = plots.get(figure);
    if (isEmpty) {
      old?.destroy(); plots.delete(figure);
      const none = Object.assign(document.createElement("p"), { className: "none", textContent: "There are no measurements for this time. A relay writes a sample every fifteen seconds." });
      figure.querySelector(".plot").replaceChildren(none);
    } else if (old) old.setData(data);
    else plots.set(figure, make(figure, data));
  }
}
async function refreshPlots(force = false) {
  if (!document.querySelector("[data-chart]") || (!force && Date.now() - asked < 10_000)) return;
  asked = Date.now();
  const answer = await fetch(`${root}/series.json?span=${span}`);
  if (answer.ok) { latest = await answer.json(); draw(); document.body.dataset.plotted = "true"; }
}
function redraw() { for (const plot of plots.values()) plot.destroy(); plots.clear(); if (latest) draw(); }
new ResizeObserver(() => { for (const [figure, plot] of plots) { const at = figure.querySelector(".plot"); plot.setSize({ width: at.clientWidth, height: at.clientHeight - 24 }); } }).observe(document.body);
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
follow();
refreshPlots(true);
