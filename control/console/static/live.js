// Server-sent events -> the texts of a page: <div data-live="/v1/…/stream" data-live-event="tiles"> with elements
// data-live-value="name" (or "name.of.a.part") in it. Where the stream breaks, the browser connects again by itself, and the page says so.

for (const region of document.querySelectorAll("[data-live]")) {
  const source = new EventSource(region.dataset.live);
  source.addEventListener(region.dataset.liveEvent || "message", (event) => {
    const values = JSON.parse(event.data);
    region.removeAttribute("data-stale");
    for (const element of region.querySelectorAll("[data-live-value]")) {
      const value = element.dataset.liveValue.split(".").reduce((part, name) => part?.[name], values);
      const text = typeof value === "number" ? value.toLocaleString("en") : String(value ?? "–");
      if (element.textContent !== text) element.textContent = text;
    }
  });
  source.addEventListener("error", () => region.setAttribute("data-stale", ""));
  window.addEventListener("pagehide", () => source.close());
}
