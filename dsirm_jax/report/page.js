"use strict";

// Texts come from the shop: they are only ever set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function text(tag, className, content) {
  return element(tag, { className, textContent: content, dir: "auto" });
}

function percent(share) {
  const value = 100 * share;
  return `${value >= 10 ? value.toFixed(0) : Number(value.toPrecision(2))} %`;
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function meter(share) {
  const bar = element("span", { className: "meter" });
  bar.style.width = `${100 * Math.min(1, share)}%`;
  return element("span", { className: "track" }, bar);
}

function dots(depth, levels) {
  const kind = depth === levels ? "found" : depth ? "near" : "missed";
  const made = element("span", { className: `dots ${kind}`, textContent: "●".repeat(depth) + "○".repeat(levels - depth) });
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `${depth} of ${levels} codes agree`);
  return made;
}

function sidText(codes) {
  const last = codes.length - 1;
  return [
    last ? element("span", { className: "past", textContent: `${codes.slice(0, last).join(" · ")} · ` }) : null,
    String(codes[last]),
  ].filter(Boolean);
}

// --- the tree: [code, items, category, share of it, rows, children, children left out]

const FIRST = 24;

function branch(node, { items: above, category: known, most, path }) {
  const [code, items, category, share, rows, children] = node;
  const codes = [...path, code];
  const name = category < 0 ? "no category known" : data.tree.categories[category];
  const news = category !== known && element(
    "span", { dir: "auto", textContent: name },
    category < 0 || share === 100 ? null : element("small", { textContent: ` ${share} %` }),
  );
  const summary = element(
    "summary", {},
    element("span", { className: "sid" }, ...sidText(codes)),
    element("span", {}, element("span", { className: "share", textContent: `${counted(items, "item")} · ${percent(items / above)}` }), meter(items / most)),
    element(
      "span", { className: "about" },
      ...(news ? [news] : []), // what the code above has said already is left out
      text("span", "titles", rows.map((row) => data.titles[row]).join("  /  ")),
    ),
  );
  const details = element("details", {}, summary);
  details.fill = () => {
    if (details.children.length > 1) return;
    details.append(children.length ? branches(node, codes) : leaves(rows, items));
  };
  details.addEventListener("toggle", () => details.open && details.fill());
  return element("li", {}, details);
}

function leaves(rows, items) {
  const list = element("ul", {}, ...rows.map((row) => text("li", "leaf", data.titles[row])));
  if (items > rows.length) list.append(text("li", "leaf", `and ${counted(items - rows.length, "more item")}`));
  return list;
}

function branches([, items, category, , , children, left], path, list = element("ul")) {
  const around = { items, category, most: children[0][1], path }; // the largest child comes first
  const widest = Math.max(...children.map(([code]) => [...path, code].join(" · ").length));
  list.style.setProperty("--code", `${widest}ch`);
  const grow = (from, to) => list.append(...children.slice(from, to).map((child) => branch(child, around)));
  list.grow = () => {
    list.querySelector(":scope > li.rest")?.remove();
    grow(list.children.length, children.length);
    if (left) list.append(text("li", "leaf", `${counted(left, "smaller code")} not on this page`));
  };
  grow(0, FIRST);
  if (children.length <= FIRST) {
    list.grow();
  } else {
    const more = element("button", { type: "button", textContent: `Show ${children.length - FIRST} more` });
    more.addEventListener("click", () => list.grow());
    list.append(element("li", { className: "rest" }, more));
  }
  return list;
}

function openInTree(codes) {
  let list = document.getElementById("sid-tree");
  let children = data.tree.nodes;
  let last = null;
  for (const code of codes) {
    const place = children.findIndex((child) => child[0] === code);
    if (place < 0) break;
    if (place >= FIRST && list.querySelector(":scope > li.rest")) list.grow();
    last = list.children[place].firstElementChild;
    last.fill();
    last.open = true;
    list = last.lastElementChild;
    children = children[place][5];
  }
  document.querySelectorAll(".marked").forEach((marked) => marked.classList.remove("marked"));
  if (!last) return;
  last.firstElementChild.classList.add("marked");
  last.firstElementChild.focus({ preventScroll: true });
  last.scrollIntoView({ block: "center" });
}

// --- examples

function exampleBody({ beams, judged, more }, levels) {
  const best = beams.length ? beams[0].probability : 1;
  const beam = ({ sid, probability, depth, items, category, rows }) => {
    const button = element("button", { type: "button", className: "sid", title: "Open in the tree", textContent: sid.join(" · ") });
    button.addEventListener("click", () => openInTree(sid));
    return element(
      "li", {},
      element(
        "div", { className: "line" },
        dots(depth, levels), button,
        element("span", { className: "chance" }, element("span", { className: "share", textContent: percent(probability) }), meter(probability / best)),
        text("small", "", [category, counted(items, "item")].filter(Boolean).join(", ")),
      ),
      ...rows.map((row) => text("span", "titles", data.titles[row])),
    );
  };
  const item = ({ row, label, relevant, sid, depth, scores }) => element(
    "li", {},
    text("div", "", data.titles[row]),
    element(
      "div", { className: "line" },
      dots(depth, levels),
      element("span", { className: relevant ? "label relevant" : "label", title: relevant ? "relevant" : "not relevant", textContent: label }),
      element("span", { className: "sid" }, sid.join(" · ")),
      element("small", { textContent: ["no_sid", "full"].filter((rung) => rung in scores)
        .map((rung) => `${rung === "full" ? "full" : "no SID"} ${scores[rung].toFixed(3)}`).join(" → ") }),
    ),
  );
  const rest = more ? [text("li", "note", `and ${counted(more, "more judged item")}`)] : [];
  return element(
    "div", { className: "body" },
    element("div", {}, element("h4", { textContent: "Predicted SIDs, their probability, and items that have them" }), element("ol", {}, ...beams.map(beam))),
    element("div", {}, element("h4", { textContent: "Judged items, the full model’s order" }), element("ol", {}, ...judged.map(item), ...rest)),
  );
}

function exampleCard(example, levels) {
  const summary = element(
    "summary", {},
    dots(example.depth, levels),
    text("span", "query", example.query),
    element("small", { className: "segment", textContent: example.segment }),
  );
  const card = element("details", { className: "example" }, summary);
  card.addEventListener("toggle", () => {
    if (card.open && card.children.length === 1) card.append(exampleBody(example, levels));
  });
  return card;
}

function showExamples() {
  const { examples, reach } = data.queries;
  const levels = reach.all ? reach.all.shares.length : 0;
  const [filter, outcome, segment, list, more, shown] = ["filter", "outcome", "segment", "examples", "more", "shown"]
    .map((id) => document.getElementById(id));
  const outcomeOf = ({ depth }) => (depth === levels ? "found" : depth ? "near" : "missed");
  const searched = examples.map((example) => [
    example.query, ...example.beams.flatMap(({ rows }) => rows.map((row) => data.titles[row])),
    ...example.judged.map(({ row }) => data.titles[row]),
  ].join("\n").toLowerCase());
  let limit = 12;

  function draw() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = examples.filter((example, place) =>
      words.every((word) => searched[place].includes(word))
      && (!outcome.value || outcomeOf(example) === outcome.value)
      && (!segment.value || example.segment === segment.value));
    const cards = kept.slice(0, limit).map((example) => exampleCard(example, levels));
    list.replaceChildren(...cards);
    shown.textContent = kept.length ? `${Math.min(limit, kept.length)} of ${counted(kept.length, "example")}` : "no example fits";
    more.hidden = kept.length <= limit;
    if (cards.length) cards[0].open = true;
  }
  const restart = () => { limit = 12; draw(); };
  filter.addEventListener("input", restart);
  outcome.addEventListener("change", restart);
  segment.addEventListener("change", restart);
  more.addEventListener("click", () => { limit += 24; draw(); });
  draw();
}

// --- curves: the points of the drawn lines are read back at the pointer

function readCurve(figure) {
  const plot = figure.querySelector(".plot");
  const outputs = [...figure.querySelectorAll("output")];
  const end = plot.querySelector(".end");
  const steps = Number(figure.dataset.steps);
  const values = figure.dataset.values.split(" ").map(Number);
  const lines = [...plot.querySelectorAll("polyline")].map((line) =>
    line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number)));
  const cursor = element("span", { className: "cursor", hidden: true });
  const atEnd = end.textContent;
  plot.append(cursor);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const x = 100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    cursor.hidden = false;
    cursor.style.left = `${x}%`;
    end.textContent = `step ${Math.round((x / 100) * steps).toLocaleString("en")}`;
    lines.forEach((points, place) => {
      const near = points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
      outputs[place].textContent = Number((values[1] - (near[1] / 100) * (values[1] - values[0])).toPrecision(4));
    });
  });
  plot.addEventListener("pointerleave", () => {
    cursor.hidden = true;
    end.textContent = atEnd;
    outputs.forEach((output) => { output.textContent = output.dataset.last; });
  });
}

if (data.tree) {
  const { nodes, hidden, categories } = data.tree;
  const known = categories.length ? null : -1;
  const list = document.getElementById("sid-tree");
  branches([null, Number(list.dataset.size), known, 0, [], nodes, hidden], [], list);
}
if (data.queries) showExamples();
document.querySelectorAll(".curve").forEach(readCurve);
