// The whole tree of SIDs, level by level.

import { branches, items } from "./api.js";
import { code, counted, element, meter, percent, text } from "./elements.js";
import { tree } from "./tree.js";

const ITEMS = 100;

function row(sid, { items: count, purity, category, titles }, { largest, above, known }) {
  // What the branch above has said already is left out.
  const name = category && category !== known ? category : "pure";
  return [
    code(sid),
    element(
      "span", { className: "size" },
      element("span", { className: "share", textContent: `${counted(count, "item")} · ${percent(count / above)}` }),
      meter(count / largest),
    ),
    purity === null ? null : element("span", { className: "purity", title: "share of its items' commonest category" }, `${percent(purity)} `, text("span", "", name)),
    text("span", "titles", titles.join("  /  ")),
  ];
}

async function nodes(sid, levels, known = null) {
  if (sid.length === levels) {
    const { items: found } = await items(sid, ITEMS);
    return found.map((item) => ({ key: item.item_id, row: [text("span", "title", item.title)], query: item.title }));
  }
  const { branches: found } = await branches(sid);
  const around = {
    largest: Math.max(...found.map((branch) => branch.items)),
    above: found.reduce((sum, branch) => sum + branch.items, 0),
    known,
  };
  return found.map((branch) => {
    const whole = [...sid, branch.code];
    return { key: whole.join("."), row: row(whole, branch, around), below: () => nodes(whole, levels, branch.category) };
  });
}

// `go(parameters)` changes the address without drawing anew, `search(query)` leaves for a query.
export async function browse(view, { levels, sid, go, search }) {
  const made = tree({
    label: "All SIDs",
    nodes: await nodes([], levels),
    choose: (node) => (node.query ? search(node.query) : go({ tree: node.key })),
  });
  made.classList.add("whole");
  view.replaceChildren(
    element(
      "section", { ariaLabelledby: "browse" },
      element("h2", { id: "browse", textContent: "The tree" }),
      element("p", { textContent: "Every code splits the items above it. The largest come first; purity is the share of a branch’s commonest category. Open a branch to go one code deeper, down to its items." }),
      element("p", { className: "note keys" }, ...keys()),
      made,
    ),
  );
  if (sid.length) {
    const last = await made.reveal(sid.map((_, level) => sid.slice(0, level + 1).join(".")));
    last?.firstElementChild.scrollIntoView({ block: "center" });
  }
  return counted(made.children.length, "branch").replace("branchs", "branches");
}

function keys() {
  const key = (name) => element("kbd", { textContent: name });
  return [key("↑"), " ", key("↓"), " move, ", key("→"), " opens, ", key("←"), " closes, ", key("Enter"), " on an item searches for its title"];
}
