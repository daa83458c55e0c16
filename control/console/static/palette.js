// The command palette: "/" or Ctrl-K, then a page or an organization by name.

const FOUND_MAX = 8;
const WAIT_MS = 150;
let dialog, input, list, options = [], selected = 0, timer, asked = 0;

function pages() {
  return [...document.querySelectorAll(".side nav.wide-only a")].map((link) => ({
    text: link.textContent.trim(), kind: "Page", href: link.getAttribute("href"),
  }));
}

async function organizations(words) {
  const answer = await fetch(`/v1/organizations?${new URLSearchParams({ q: words, limit: FOUND_MAX })}`);
  if (!answer.ok) return [];
  const { organizations: found = [] } = await answer.json();
  return found.map((each) => ({
    text: each.name || each.id, kind: each.id, href: `/console/organizations/${encodeURIComponent(each.id)}`,
  }));
}

function show() {
  list.replaceChildren(...options.map((option, place) => {
    const item = document.createElement("li");
    item.id = `palette-${place}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(place === selected));
    const text = document.createElement("span"), kind = document.createElement("span");
    text.textContent = option.text;
    kind.textContent = option.kind;
    kind.className = "quiet";
    item.append(text, kind);
    item.addEventListener("click", () => { location.href = option.href; });
    return item;
  }));
  if (options.length) input.setAttribute("aria-activedescendant", `palette-${selected}`);
  else input.removeAttribute("aria-activedescendant");
}

async function search() {
  const words = input.value.trim(), number = ++asked;
  const matching = pages().filter((page) => page.text.toLowerCase().includes(words.toLowerCase()));
  options = matching.slice(0, FOUND_MAX);
  selected = 0;
  show();
  if (words.length < 2) return;
  const found = await organizations(words).catch(() => []);
  if (number !== asked) return;
  options = [...matching, ...found].slice(0, FOUND_MAX * 2);
  show();
}

function onKey(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && options.length) {
    event.preventDefault();
    selected = (selected + step + options.length) % options.length;
    show();
  } else if (event.key === "Enter" && options[selected]) {
    event.preventDefault();
    location.href = options[selected].href;
  }
}

function build() {
  dialog = document.createElement("dialog");
  dialog.setAttribute("aria-label", "Go to");
  input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Go to a page or an organization";
  for (const [name, value] of Object.entries({
    role: "combobox", "aria-label": "Go to a page or an organization", "aria-expanded": "true",
    "aria-controls": "palette-list", autocomplete: "off",
  })) input.setAttribute(name, value);
  list = document.createElement("ul");
  list.id = "palette-list";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Found");
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, WAIT_MS); });
  input.addEventListener("keydown", onKey);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.append(input, list);
  document.body.append(dialog);
}

export function openPalette() {
  if (!dialog) build();
  if (dialog.open) return;
  input.value = "";
  dialog.showModal();
  input.focus();
  search();
}
