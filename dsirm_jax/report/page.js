"use strict";
const data = JSON.parse(document.getElementById("report-data").textContent);

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const counted = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// Children are made when a branch is first opened, so a large tree costs nothing until then.
function branch(node, prefix) {
  const path = [...prefix, node.code];
  const summary = element(
    "summary", "",
    element("span", "code", path.join("·")),
    node.category || "",
    element("span", "note", counted(node.items, "item", "items")),
    element("span", "titles", node.titles[0] ? `e.g. ${node.titles[0]}` : ""),
  );
  const details = element("details", "", summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(below(node, path));
  });
  return element("li", "", details);
}

function below(node, path) {
  const list = element("ul", "");
  if (node.children.length === 0) {
    for (const title of node.titles) list.append(element("li", "titles", title));
    const more = node.items - node.titles.length;
    if (more > 0) list.append(element("li", "note", `and ${counted(more, "item", "items")} more`));
    return list;
  }
  for (const child of node.children) list.append(branch(child, path));
  if (node.hidden) {
    list.append(element("li", "note", `and ${counted(node.hidden, "smaller code", "smaller codes")}`));
  }
  return list;
}

const tree = document.getElementById("sid-tree");
for (const child of data.tree.children) tree.append(branch(child, []));

function beamRow(beam) {
  const bar = element("span", "bar");
  bar.style.width = `${Math.max(2, 100 * beam.probability)}px`;
  return element(
    "div", "row",
    element("span", "code", beam.sid.join("·")), " ", bar, " ",
    element("span", "note", `${(100 * beam.probability).toFixed(1)} %`), " ", beam.category || "",
    element("div", "titles", beam.titles.join(" · ")),
  );
}

function judgedRow(judged) {
  const levels = judged.sid.length;
  const scores = Object.entries(judged.scores).map(([rung, p]) => `${rung} ${p.toFixed(2)}`);
  const depth = element("span", "depth", "●".repeat(judged.depth) + "○".repeat(levels - judged.depth));
  depth.setAttribute("role", "img");
  depth.setAttribute("aria-label", `${judged.depth} of ${levels} levels match`);
  return element(
    "div", "row",
    depth, " ",
    element("span", judged.relevant ? "relevant" : "", judged.label), " ", judged.title,
    element("div", "note", `${judged.sid.join("·")} · ${scores.join(", ")}`),
  );
}

function exampleCard(example) {
  const judged = example.judged.map(judgedRow);
  if (example.unshown) judged.push(element("div", "row note", `and ${example.unshown} more`));
  return element(
    "article", "example",
    element("h3", "", example.query, " ", element("span", "note", `${example.segment} query`)),
    element(
      "div", "columns",
      element("div", "", element("h4", "", "predicted identifiers"), ...example.beams.map(beamRow)),
      element("div", "", element("h4", "", "judged items, best first"), ...judged),
    ),
  );
}

const cards = data.examples.map((example) => [example.query.toLowerCase(), exampleCard(example)]);
document.getElementById("example-list").append(...cards.map(([, card]) => card));
const shown = document.getElementById("shown");
document.getElementById("filter").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  let count = 0;
  for (const [query, card] of cards) {
    card.hidden = !query.includes(wanted);
    if (!card.hidden) count += 1;
  }
  shown.textContent = wanted ? `${count} of ${cards.length}` : "";
});
