// A tree as ARIA describes it: one tab stop, arrow keys, branches that are fetched when opened.

import { element } from "./elements.js";

const FIRST = 30;

// Nodes are { key, row: elements, below: async () => nodes, or nothing for a leaf }; one without a
// key only tells something.
// `choose(node)` is called on click, Enter or Space.
export function tree({ label, nodes, choose }) {
  const root = element("ul", { className: "sid-tree", role: "tree", ariaLabel: label });
  fill(root, nodes, 1);

  function fill(list, all, level) {
    list.style.setProperty("--code", `${Math.max(...all.map(({ key }) => String(key).replaceAll(".", " · ").length))}ch`);
    const grow = (from, to) => list.append(...all.slice(from, to).map((node) => branch(node, level)));
    list.whole = () => {
      list.querySelector(":scope > .rest")?.remove();
      grow(list.children.length, all.length);
    };
    grow(0, FIRST);
    if (all.length > FIRST) {
      const rest = { key: null, row: [element("span", { className: "more", textContent: `Show ${all.length - FIRST} more` })] };
      const item = branch(rest, level);
      item.classList.add("rest");
      item.more = () => {
        const place = list.children.length - 1;
        list.whole();
        focus(list.children[place]);
      };
      list.append(item);
    }
    if (!root.querySelector("[tabindex='0']")) root.firstElementChild?.setAttribute("tabindex", "0");
  }

  function branch(node, level) {
    const item = element(
      "li", { role: "treeitem", ariaLevel: String(level), ariaSelected: "false", tabIndex: -1 },
      element(
        "div", { className: node.below ? "row" : "row leaf" },
        element("span", { className: "twisty", ariaHidden: "true", textContent: node.below ? "▸" : "" }),
        ...node.row,
      ),
    );
    item.node = node;
    if (node.below) item.ariaExpanded = "false";
    return item;
  }

  async function open(item) {
    if (!item.node.below || item.ariaExpanded === "true") return;
    item.ariaExpanded = "true";
    const before = item.querySelector(":scope > [role='group']");
    if (before && !item.failed) return;
    before?.remove();
    item.failed = false;
    const group = element("ul", { role: "group" });
    item.append(group);
    item.ariaBusy = "true";
    try {
      fill(group, await item.node.below(), Number(item.ariaLevel) + 1);
    } catch (error) {
      item.failed = true;
      fill(group, [{ key: null, row: [element("span", { className: "title", textContent: error.message })] }], Number(item.ariaLevel) + 1);
    }
    item.ariaBusy = "false";
  }

  function close(item) {
    if (item.node?.below) item.ariaExpanded = "false";
  }

  function focus(item) {
    root.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    item.tabIndex = 0;
    item.focus({ preventScroll: true });
    item.firstElementChild?.scrollIntoView({ block: "nearest" });
  }

  function select(item) {
    root.querySelector("[aria-selected='true']")?.setAttribute("aria-selected", "false");
    if (item) item.ariaSelected = "true";
  }

  const visible = () => [...root.querySelectorAll("[role='treeitem']")]
    .filter((item) => !item.parentElement.closest("[aria-expanded='false']"));

  function activate(item) {
    if (item.more) return item.more();
    if (item.node.key === null) return null;
    select(item);
    return choose(item.node);
  }

  root.addEventListener("click", (event) => {
    const item = event.target.closest("[role='treeitem']");
    if (!item || !item.node) return;
    focus(item);
    const expanded = item.ariaExpanded === "true";
    if (expanded && (event.target.className === "twisty" || item.ariaSelected === "true")) close(item);
    else open(item);
    if (event.target.className !== "twisty") activate(item);
  });

  root.addEventListener("keydown", (event) => {
    const item = event.target.closest("[role='treeitem']");
    if (!item || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = visible();
    const place = all.indexOf(item);
    const moves = {
      ArrowDown: () => all[place + 1],
      ArrowUp: () => all[place - 1],
      Home: () => all[0],
      End: () => all.at(-1),
      ArrowRight: () => {
        if (item.ariaExpanded === "true") return all[place + 1];
        open(item);
        return item;
      },
      ArrowLeft: () => {
        if (item.ariaExpanded !== "true") return item.parentElement.closest("[role='treeitem']");
        close(item);
        return item;
      },
      Enter: () => { open(item); activate(item); },
      " ": () => { open(item); activate(item); },
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = moves[event.key]();
    if (next && next !== item) focus(next);
  });

  // Opens the branches along some keys and selects the last.
  root.reveal = async (keys, { openLast = true } = {}) => {
    let list = root;
    let item = null;
    for (const key of keys) {
      const at = () => [...list.children].find((child) => child.node?.key === key);
      if (!at()) list.whole?.();
      if (!at()) break;
      item = at();
      if (openLast || key !== keys.at(-1)) await open(item);
      list = item.querySelector(":scope > [role='group']") ?? list;
    }
    select(item);
    if (item) {
      root.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
      item.tabIndex = 0;
    }
    return item;
  };
  root.openAll = async (levels) => {
    for (let level = 1; level <= levels; level += 1) {
      await Promise.all([...root.querySelectorAll(`[aria-level='${level}']`)].map(open));
    }
  };
  return root;
}
