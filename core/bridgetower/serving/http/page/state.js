// A search, and its form in the URL, so that back, forward and reload lead to it. The part of a URL after # is sent to
// no server.

export const MASK = "<mask>";
const LISTS = ["under", "image"];

export function empty() {
  return { text: "", images: [], under: [], since: "", before: "", least: 0 };
}

// `images` are {id} of the index, or {file}, which no URL can hold.
export function fromUrl() {
  const given = new URLSearchParams(location.hash.slice(1));
  const asked = empty();
  for (const name of ["text", "since", "before"]) asked[name] = given.get(name) ?? "";
  asked.under = given.getAll("under");
  asked.images = given.getAll("image").filter((id) => /^[0-9a-f]{64}$/.test(id)).map((id) => ({ id }));
  const least = Number(given.get("least"));
  asked.least = least >= 0 && least <= 100 ? Math.round(least) : 0;
  return asked;
}

export function toUrl(asked) {
  const given = new URLSearchParams();
  for (const name of ["text", "since", "before"]) if (asked[name]) given.set(name, asked[name]);
  for (const name of LISTS) {
    const values = name === "image" ? asked.images.map((one) => one.id).filter(Boolean) : asked[name];
    for (const value of values) given.append(name, value);
  }
  if (asked.least) given.set("least", String(asked.least));
  const hash = given.toString();
  return hash ? `#${hash}` : location.pathname;
}

export const asksNothing = (asked) => !asked.text.trim() && asked.images.length === 0;

export const hasMask = (asked) => asked.text.includes(MASK);

// The body of a request: a form where there are files, else JSON.
export function bodyOf(asked, more) {
  const fields = { ...more };
  if (asked.text.trim()) fields.text = asked.text;
  if (asked.under.length) fields.under = asked.under;
  if (asked.since) fields.since = asked.since;
  if (asked.before) fields.before = asked.before;
  if (!asked.images.some((one) => one.file)) {
    if (asked.images.length) fields.images = asked.images.map(({ id }) => ({ id }));
    return fields;
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(fields))
    for (const one of [value].flat()) form.append(name, one);
  for (const { id, file } of asked.images) {
    if (file) form.append("image", file, "picture");
    else form.append("image", id);
  }
  return form;
}
