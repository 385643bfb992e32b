// The server's JSON endpoints. What was asked before is kept, unless it came without the generator:
// going back is instant.

const kept = new Map();
const RETRIES = 3;
// Milliseconds that a person waits for the generator, where a shop's page would rather do without.
const PATIENCE = 5000;

export class Refusal extends Error {}

async function fetched(path, options, retries = RETRIES) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal("The server does not answer.");
  }
  if (response.ok) return response.json();
  if (response.status === 503 && retries > 0) {
    const seconds = Number(response.headers.get("retry-after")) || 1;
    await new Promise((resume) => { setTimeout(resume, 1000 * seconds); });
    return fetched(path, options, retries - 1);
  }
  const { reason } = await response.json().catch(() => ({ reason: response.statusText }));
  throw new Refusal(reason);
}

function once(path, options = {}) {
  const key = path + (options.body ?? "");
  if (!kept.has(key)) {
    const coming = fetched(path, options);
    coming.then(({ source }) => source !== "fallback" || kept.delete(key), () => kept.delete(key));
    kept.set(key, coming);
  }
  return kept.get(key);
}

const get = (name, asked = {}) => once(`api/${name}?${new URLSearchParams(asked)}`);

export const about = () => get("about");
export const sids = (query) => get("sids", { query, deadline_ms: PATIENCE });
export const candidates = (query, most) => get("candidates", { query, most, deadline_ms: PATIENCE });
export const items = (sid, most) => get("items", { prefix: sid.join("."), most });
export const branches = (sid) => get("tree", { prefix: sid.join(".") });
export const scores = (query, ids) => once("api/score", {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ query, items: ids, features: true, deadline_ms: PATIENCE }),
});
