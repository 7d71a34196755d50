// The topic graph: move, zoom, point at a topic, find a topic.
"use strict";
(() => {
  const graph = document.getElementById("graph"), view = graph.querySelector(".view"), said = document.getElementById("said");
  const circles = [...graph.querySelectorAll("circle")], texts = [...graph.querySelectorAll("text")], lines = [...graph.querySelectorAll("line")];
  const first = said.textContent, near = new Map(circles.map((circle) => [circle.dataset.n, []]));
  for (const line of lines) { near.get(line.dataset.a).push([line.dataset.b, +line.dataset.w, line]); near.get(line.dataset.b).push([line.dataset.a, +line.dataset.w, line]); }
  // A phone shows few topics closer together, and of many a part, of a size to be read.
  if (innerWidth < 760 && circles.length > 24) graph.setAttribute("preserveAspectRatio", "xMidYMid slice");
  else if (innerWidth < 760) {
    const { width, height } = graph.viewBox.baseVal, [fx, fy] = [440 / width, 600 / height];
    for (const line of lines) for (const [end, by] of [["x1", fx], ["x2", fx], ["y1", fy], ["y2", fy]]) line.setAttribute(end, line.getAttribute(end) * by);
    circles.forEach((circle, index) => [["x", fx], ["y", fy]].forEach(([axis, by]) => {
      const at = +circle.getAttribute(`c${axis}`), text = texts[index];
      circle.setAttribute(`c${axis}`, at * by); text.setAttribute(axis, text.getAttribute(axis) - at + at * by);
    }));
    graph.setAttribute("viewBox", "-30 -10 500 620");
  }
  let scale = 1, x = 0, y = 0, held = null;

  const place = () => {
    view.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    graph.classList.toggle("near", scale >= 1.6);
    for (const text of texts) text.setAttribute("font-size", text.dataset.size / Math.sqrt(scale));
  };
  for (const text of texts) text.dataset.size = text.getAttribute("font-size");
  const point = (event) => { const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(graph.getScreenCTM().inverse()); return [p.x, p.y]; };
  const zoom = (by, at) => {
    const box = graph.viewBox.baseVal, [px, py] = at || [box.width / 2, box.height / 2], next = Math.min(Math.max(scale * by, 0.5), 12);
    x = px - (px - x) * next / scale; y = py - (py - y) * next / scale; scale = next; place();
  };
  const focus = (numbers, about) => {
    graph.classList.toggle("focused", numbers !== null);
    for (const each of [...circles, ...texts]) each.classList.toggle("on", numbers !== null && numbers.has(each.dataset.n));
    for (const line of lines) line.classList.toggle("on", numbers !== null && (about.length === 1 ? line.dataset.a === about[0] || line.dataset.b === about[0] : numbers.has(line.dataset.a) && numbers.has(line.dataset.b)));
  };
  const name = (number) => circles.find((circle) => circle.dataset.n === number).dataset.name;
  const show = (number) => {
    const others = near.get(number).toSorted((a, b) => b[1] - a[1]);
    focus(new Set([number, ...others.map(([other]) => other)]), [number]);
    said.textContent = others.length ? `${name(number)} occurs with ${others.slice(0, 8).map(([other, weight]) => `${name(other)} (${weight})`).join(", ")}${others.length > 8 ? ` and ${others.length - 8} more` : ""}.` : `${name(number)} occurs with no other topic.`;
  };
  const clear = () => { focus(null, []); said.textContent = first; };

  graph.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), point(event)); }, { passive: false });
  const pointers = new Map();
  graph.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, point(event)); held = null; if (event.target.tagName === "circle") { show(event.target.dataset.n); held = event.target.dataset.n; } else { graph.setPointerCapture(event.pointerId); clear(); } });
  graph.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = pointers.get(event.pointerId), now = point(event), other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(Math.hypot(before[0] - other[0], before[1] - other[1]), 1), other);
    else { x += now[0] - before[0]; y += now[1] - before[1]; place(); }
    pointers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) graph.addEventListener(end, (event) => pointers.delete(event.pointerId));
  graph.addEventListener("pointerover", (event) => { if (event.target.tagName === "circle" && !pointers.size) show(event.target.dataset.n); });
  graph.addEventListener("pointerout", (event) => { if (event.target.tagName === "circle" && !held) clear(); });
  for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => { if (+button.dataset.zoom) zoom(+button.dataset.zoom); else { scale = 1; x = y = 0; place(); } });
  document.getElementById("edges").addEventListener("change", (event) => graph.classList.toggle("all-edges", event.target.checked));
  document.getElementById("find").addEventListener("input", (event) => {
    const text = event.target.value.trim().toLowerCase(), found = circles.filter((circle) => circle.dataset.name.toLowerCase().includes(text));
    const same = found.filter((circle) => circle.dataset.name.toLowerCase() === text);
    if (!text) clear();
    else if (same.length === 1 || found.length === 1) show((same[0] || found[0]).dataset.n);
    else { focus(new Set(found.map((circle) => circle.dataset.n)), []); said.textContent = found.length ? `${found.length} topics: ${found.slice(0, 10).map((circle) => circle.dataset.name).join(", ")}` : "No topic has this name."; }
  });
  for (const button of document.querySelectorAll("[data-community]")) button.addEventListener("click", () => focus(new Set(circles.filter((circle) => circle.dataset.c === button.dataset.community).map((circle) => circle.dataset.n)), []));
  graph.dataset.ready = "true";
})();
