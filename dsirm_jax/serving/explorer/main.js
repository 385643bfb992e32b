// The address says what is shown: ?q=QUERY[&sid=12.87][&item=ID], or ?tree=[12.87].

import { about } from "./api.js";
import { browse } from "./browse.js";
import { element } from "./elements.js";
import { search } from "./search.js";

const [view, form, input, status, lead, tries] = ["view", "search", "query", "status", "about", "examples"].map((id) => document.getElementById(id));
let drawn = 0;

const asked = () => Object.fromEntries(new URLSearchParams(location.search));
const codes = (text) => (/^\d+(\.\d+)*$/.test(text ?? "") ? text.split(".").map(Number) : []);

function address(parameters) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  return `?${new URLSearchParams(kept)}`;
}

// The address of what is already shown: a step of its own for another SID, none for an opened item.
function note(changed) {
  const next = address({ ...asked(), ...changed });
  if (next === location.search) return;
  if ("sid" in changed || "tree" in changed) history.pushState(null, "", next);
  else history.replaceState(null, "", next);
}

function leave(parameters) {
  history.pushState(null, "", address(parameters));
  return draw();
}

function example(query, place) {
  const link = element("a", { href: address({ q: query }), textContent: query, dir: "auto" });
  return place ? [" · ", link] : [link];
}

async function draw() {
  const turn = (drawn += 1);
  const { q: query, sid, item, tree } = asked();
  input.value = query ?? "";
  document.title = query ? `${query} · SID explorer` : tree ? `${tree} · SID explorer` : "SID explorer";
  document.body.classList.toggle("searched", Boolean(query));
  view.ariaBusy = "true";
  // Drawn aside: a slow answer to what was asked before must not replace a later one.
  const page = document.createElement("div");
  try {
    const { sizes, items, features: schema, examples } = await about();
    lead.textContent = `${items.toLocaleString("en")} items, each with a semantic identifier (SID) of ${sizes.length} codes, coarse to fine, from ${sizes.join(" × ")}. Items that answer the same queries share their first codes.`;
    tries.replaceChildren(...(examples.length ? ["Try ", ...examples.flatMap(example)] : ["Or open the tree below down to an item: its title makes a query."]));
    const levels = sizes.length;
    const told = query
      ? search(page, { query, levels, schema, sid: codes(sid), opened: item, go: note })
      : browse(page, { levels, sid: codes(tree), go: note, search: (text) => leave({ q: text }) });
    if (turn === drawn) view.replaceChildren(page);
    const found = await told;
    if (turn === drawn) status.textContent = found;
  } catch (error) {
    if (turn !== drawn) return;
    const again = element("button", { type: "button", textContent: "Try again" });
    again.addEventListener("click", draw);
    view.replaceChildren(element("div", { className: "trouble", role: "alert" }, element("p", { textContent: error.message }), again));
  }
  if (turn === drawn) view.ariaBusy = "false";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = input.value.trim();
  if (query) leave({ q: query });
});
// Links within the page draw anew without loading.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='?']");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  leave(Object.fromEntries(new URLSearchParams(link.getAttribute("href"))));
});
addEventListener("popstate", draw);
draw();
