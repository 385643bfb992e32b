// Texts come from the shop: they are only ever set as text, never as markup.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function text(tag, className, content) {
  return element(tag, { className, textContent: content, dir: "auto" });
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function percent(share) {
  const value = 100 * share;
  return `${value >= 10 ? value.toFixed(0) : Number(value.toPrecision(2))} %`;
}

export function meter(share, kind = "") {
  const bar = element("span", { className: `meter ${kind}` });
  bar.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return element("span", { className: "track", ariaHidden: "true" }, bar);
}

export function code(sid) {
  const past = sid.slice(0, -1).map((one) => `${one} · `).join("");
  return element(
    "span", { className: "sid" },
    past ? element("span", { className: "past", textContent: past }) : null,
    String(sid.at(-1)),
  );
}

// Of a SID's codes, how many agree with some other SID, from the first on.
export function depth(sid, other) {
  const differs = sid.findIndex((one, level) => one !== other[level]);
  return differs < 0 ? sid.length : differs;
}

export function dots(deep, levels) {
  const kind = deep === levels ? "found" : deep ? "near" : "missed";
  return element("span", {
    className: `dots ${kind}`, role: "img", ariaLabel: `${deep} of ${levels} codes agree`,
    title: `${deep} of ${levels} codes agree with a predicted SID`,
    textContent: "●".repeat(deep) + "○".repeat(levels - deep),
  });
}
