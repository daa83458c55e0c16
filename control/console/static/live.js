// Server-sent events -> the texts of a page: <div data-live="/v1/…/stream" data-live-event="tiles"> with elements in it whose
// data-live-value="name.of.a.part" says what is written there, data-live-since and data-live-time the same of times,
// data-live-shown whether they are there, and data-live-class the class that they have while data-live-if is so.
// Where the stream breaks, the browser connects again by itself; where it cannot, and while a store is away, the page says so.
// A page that nobody sees has no stream: a browser has only six connections to a host.

const LOST = "The connection was lost. The browser connects again.";
const ENDED = "This is not live any more. Reload the page.";

const part = (values, path) => path.split(".").reduce((of, name) => of?.[name], values);
const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
const shown = (value) => (typeof value === "number" ? value.toLocaleString("en") : String(value ?? "–"));

const WRITERS = {
  liveValue: (element, value) => set(element, shown(value)),
  liveSince: (element, value) => set(element, value ? `since ${new Date(value).toISOString().slice(0, 16).replace("T", " ")}` : "none"),
  liveTime: (element, value) => {
    element.dateTime = value;
    set(element, new Date(value).toISOString().slice(11, 19));
  },
  liveShown: (element, value) => (element.hidden = !value),
  liveIf: (element, value) => element.classList.toggle(element.dataset.liveClass, Boolean(value)),
};
const attribute = (name) => `data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

function follow(region) {
  const status = region.querySelector("[data-live-status]");
  let source = null;
  let over = false;

  const say = (text) => {
    region.toggleAttribute("data-stale", text !== "");
    if (status) set(status, text);
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const open = () => {
    if (source || over || document.hidden) return;
    source = new EventSource(region.dataset.live);
    source.addEventListener(region.dataset.liveEvent || "message", (event) => {
      const values = JSON.parse(event.data);
      for (const [name, write] of Object.entries(WRITERS)) {
        for (const element of region.querySelectorAll(`[${attribute(name)}]`)) write(element, part(values, element.dataset[name]));
      }
      say("");
    });
    source.addEventListener("away", (event) => say(JSON.parse(event.data).detail));
    source.addEventListener("over", (event) => {
      over = true;
      close();
      say(JSON.parse(event.data).detail);
    });
    // A browser does not come back after a refusal, such as of a session that has ended.
    source.addEventListener("error", () => say(source?.readyState === EventSource.CLOSED ? ENDED : LOST));
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
}

for (const region of document.querySelectorAll("[data-live]")) follow(region);
