// One query: the SIDs predicted for it as a tree, and the items with what made their relevance.

import { candidates, items, scores, sids } from "./api.js";
import { code, counted, depth, dots, element, meter, percent, text } from "./elements.js";
import { tree } from "./tree.js";

const SHOWN = 30;
const OF_A_SID = 4;
const SOURCES = {
  cached: "known beforehand",
  live: "generated just now",
  fallback: "the generator was late: what follows is what dense features alone say",
};
const GROUPS = {
  dense: "Dense", lexical: "Words", attributes: "Attributes", prf: "Dense, by feedback", votes: "Votes without codes", numeric: "Numbers of the item",
  paper_match: "SID match", prefix: "SID prefix", neighbours: "SIDs of neighbours", margins: "Within the prefix",
};

const key = (sid) => sid.join(".");
const startsWith = (sid, prefix) => prefix.every((one, level) => sid[level] === one);

// --- the tree of predicted SIDs

// What the items of a branch have in common: their category paths, as far as they agree.
function common(found) {
  const paths = found.map((item) => item.attributes.category?.split(" > ")).filter(Boolean);
  if (!paths.length) return null;
  const [first] = paths;
  const differs = first.findIndex((name, place) => paths.some((path) => path[place] !== name));
  return (differs < 0 ? first : first.slice(0, differs)).at(-1) ?? null;
}

function predicted(leaves, prefix = []) {
  const level = prefix.length;
  const codes = [...new Set(leaves.map((leaf) => leaf.sid[level]))];
  return codes.map((one) => {
    const sid = [...prefix, one];
    const below = leaves.filter((leaf) => leaf.sid[level] === one);
    const mass = below.reduce((sum, leaf) => sum + leaf.probability, 0);
    return { sid, mass, leaves: below };
  }).sort((one, other) => other.mass - one.mass);
}

// `around`: number of levels, and the mass of the largest branch, which bars are drawn to.
function nodes(leaves, around, prefix = [], above = null) {
  return predicted(leaves, prefix).map(({ sid, mass, leaves: below }) => {
    const whole = sid.length === around.levels;
    const found = below.flatMap((leaf) => leaf.items);
    const name = whole ? null : common(found);
    return {
      key: key(sid),
      sid,
      row: [
        code(sid),
        element("span", { className: "size" }, element("span", { className: "share", textContent: percent(mass) }), meter(mass / around.largest)),
        whole ? text("span", "titles", found.map((item) => item.title).join("  /  "))
          : name && name !== above ? text("span", "title", name) : null, // not what the branch above has said
      ],
      below: async () => (whole
        ? found.map((item) => ({ key: `item ${item.item_id}`, item, row: [text("span", "title", item.title)] }))
        : nodes(below, around, sid, name)),
    };
  });
}

// --- the items

function relevance(item) {
  const line = (name, share, kind) => [
    element("span", { className: "who", textContent: name }),
    meter(share, kind),
    element("span", { className: `figure ${kind}`, textContent: share.toFixed(3) }),
  ];
  return element(
    "span", { className: "relevance" },
    ...line("with SIDs", item.probability, ""),
    ...(item.dense_only === null ? [] : line("dense alone", item.dense_only, "base")),
  );
}

function rank(item, place) {
  const shift = item.densePlace - place;
  return element(
    "span", { className: "rank" }, String(place + 1),
    item.dense_only === null || !shift ? null : element("small", {
      title: `dense alone puts it at place ${item.densePlace + 1}`,
      textContent: `${shift > 0 ? "▲" : "▼"} ${Math.abs(shift)}`,
    }),
  );
}

// Where a value lies among those of all items shown.
function strip(values, place) {
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  if (values[place] === null || low === high) return element("span", { className: "strip flat", ariaHidden: "true" });
  const mark = (value, className) => {
    const made = element("span", { className });
    made.style.left = `${100 * ((value - low) / (high - low))}%`;
    return made;
  };
  return element(
    "span", { className: "strip", ariaHidden: "true" },
    ...known.map((value) => mark(value, "tick")), mark(values[place], "this"),
  );
}

const figure = (value) => (value === null ? "–" : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3))).replace("-", "−"));

function features(item, place, all, schema) {
  const groups = [...new Set(schema.map((feature) => feature.group))];
  const rows = (group) => schema.map((feature, column) => [feature, column]).filter(([feature]) => feature.group === group)
    .map(([feature, column]) => {
      const values = all.map((other) => other.features[column]);
      return element(
        "tr", {},
        element("th", { scope: "row" }, text("span", "name", feature.name), text("span", "meaning", feature.about)),
        element("td", { className: "value", textContent: figure(values[place]) }),
        element("td", { className: "place" }, strip(values, place)),
      );
    });
  return element(
    "div", { className: "features" },
    element("p", { className: "note", textContent: "What the head saw: each feature’s value, and where it lies among the items shown." }),
    element("div", { className: "groups" }, ...groups.map((group) => element(
      "table", { className: "feature-table" },
      element("caption", { textContent: GROUPS[group] ?? group }),
      element("tbody", {}, ...rows(group)),
    ))),
  );
}

function facts(item) {
  const known = Object.entries({ id: item.item_id, ...item.attributes });
  return element("dl", { className: "facts" }, ...known.map(([name, value]) =>
    element("div", {}, text("dt", "", name), text("dd", "", value))));
}

function card(item, place, all, { levels, best, schema, opened, go }) {
  const deep = Math.max(0, ...best.map((sid) => depth(item.sid, sid)));
  const { brand, colour, category } = item.attributes;
  const attributes = [brand, colour, category].filter(Boolean).join(" · ");
  const body = element("div", { className: "body" });
  const details = element(
    "details", { className: "item", name: "item" }, // one at a time
    element(
      "summary", {},
      rank(item, place),
      element(
        "span", { className: "what" },
        text("span", "name", item.title),
        element("span", { className: "line" }, dots(deep, levels), code(item.sid), text("small", "", attributes)),
      ),
      relevance(item),
    ),
    body,
  );
  const show = () => {
    if (body.children.length) return;
    body.append(
      facts(item),
      features(item, place, all, schema),
      element("p", { className: "note" }, element("a", { href: `?tree=${key(item.sid)}`, textContent: "Its place in the tree" })),
    );
  };
  details.dataset.item = item.item_id;
  if (item.item_id === opened) {
    details.open = true;
    show();
  }
  details.addEventListener("toggle", () => {
    if (details.open) show();
    go({ item: document.querySelector("details.item[open]")?.dataset.item ?? null });
  });
  return element("li", {}, details);
}

async function scored(query, found) {
  const answer = await scores(query, found.map((item) => item.item_id));
  const byId = new Map(answer.items.map((item) => [item.item_id, item]));
  const all = found.filter((item) => byId.has(item.item_id)).map((item) => ({ ...item, ...byId.get(item.item_id) }));
  [...all].sort((one, other) => other.dense_only - one.dense_only).forEach((item, place) => { item.densePlace = place; });
  all.sort((one, other) => other.probability - one.probability);
  return { source: answer.source, items: all };
}

// `go(parameters)` changes the address without drawing anew.
export async function search(view, { query, levels, schema, sid, opened, go }) {
  view.replaceChildren(element("p", { className: "working" }, text("span", "note", "Asking the generator"), element("progress", { ariaLabel: "Asking the generator" })));
  const { source, sids: beams } = await sids(query);
  const together = beams.reduce((sum, beam) => sum + beam.probability, 0);
  const leaves = await Promise.all(beams.map(async (beam) => ({ ...beam, items: (await items(beam.sid, OF_A_SID)).items })));
  const list = element("div", { className: "items", ariaLive: "off" });
  let prefix = sid;

  async function showItems(open) {
    const wanted = prefix;
    list.ariaBusy = "true";
    let answer;
    try {
      const { items: found } = wanted.length ? await items(wanted, SHOWN) : await candidates(query, SHOWN);
      answer = await scored(query, found);
    } catch (error) {
      answer = { trouble: error.message };
    }
    if (wanted !== prefix) return;
    list.ariaBusy = "false";
    if (answer.trouble) {
      list.replaceChildren(element("p", { role: "alert", textContent: answer.trouble }));
      return;
    }
    const { source: late, items: all } = answer;
    const best = beams.map((beam) => beam.sid);
    const around = { levels, best, schema, opened: open, go };
    const back = element("button", { type: "button", className: "plain", textContent: "all candidates" });
    back.addEventListener("click", () => choose([]));
    list.replaceChildren(
      element(
        "p", { className: "note" },
        ...(wanted.length ? [`${counted(all.length, "item")} of `, code(wanted), " · show ", back] : [`${counted(all.length, "candidate")}: items of these SIDs, then the nearest by cosine`]),
        late === "fallback" ? `; ${SOURCES.fallback}` : null,
      ),
      element("ol", {}, ...all.map((item, place) => card(item, place, all, around))),
    );
  }

  function choose(next) {
    prefix = next;
    go({ sid: key(next) || null, item: null });
    if (!next.length) made?.reveal([]);
    return showItems(null);
  }

  const made = leaves.length ? tree({
    label: "Predicted SIDs",
    nodes: nodes(leaves, { levels, largest: predicted(leaves)[0].mass }),
    choose: (node) => {
      if (node.item) return open(node.item);
      return choose(node.sid);
    },
  }) : null;

  async function open(item) {
    if (!startsWith(item.sid, prefix) || !list.querySelector(`[data-item="${CSS.escape(item.item_id)}"]`)) await choose(item.sid);
    const details = list.querySelector(`[data-item="${CSS.escape(item.item_id)}"]`);
    if (details) details.open = true;
    details?.scrollIntoView({ block: "nearest" });
  }

  view.replaceChildren(element(
    "div", { className: "columns" },
    element(
      "section", { ariaLabelledby: "where" },
      element("h2", { id: "where", textContent: "Where it leads" }),
      element("p", { className: "note" }, source === "fallback" ? SOURCES.fallback : `${counted(beams.length, "SID")}, ${SOURCES[source]}, with ${percent(together)} of the probability; a branch has the sum of what is below it`),
      made ?? element("p", { className: "absent", textContent: source === "fallback" ? "The generator has not answered; ask again in a moment." : "No SID was predicted." }),
    ),
    element("section", { ariaLabelledby: "found" }, element("h2", { id: "found", textContent: "How relevant" }), list),
  ));
  if (made) {
    await made.openAll(matchMedia("(max-width: 60rem)").matches ? 1 : levels - 1); // else items are far down
    if (prefix.length) await made.reveal(prefix.map((_, level) => key(prefix.slice(0, level + 1))), { openLast: prefix.length < levels });
  }
  await showItems(opened);
  list.querySelector("details[open]")?.scrollIntoView({ block: "nearest" });
  return `${counted(beams.length, "SID")} and ${counted(list.querySelectorAll("details").length, "item")}`;
}
