// What makes the pages quicker to use. Everything works without it.

const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function inWords(seconds) {
  const [unit, length] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? UNITS.at(-1);
  return relative.format(Math.round(seconds / length), unit);
}

function enhance(root) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    const at = new Date(time.dateTime);
    if (time.dateTime.length < 16 || Number.isNaN(at.getTime())) continue;
    const words = inWords((at.getTime() - Date.now()) / 1000);
    if (time.hasAttribute("data-ago")) {
      time.title = `${time.textContent} UTC`;
      time.textContent = words;
    } else {
      time.title = `${words} · ${at.toLocaleString()} here`;
    }
  }
  for (const button of root.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
  for (const button of root.querySelectorAll("[data-filters] .filter-button")) button.classList.add("unseen");
}

async function openPalette() {
  (await import(document.documentElement.dataset.palette)).openPalette();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 2000);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    openPalette();
  } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    openPalette();
  }
});

for (const name of ["htmx:after:swap", "htmx:after:settle"]) {
  document.addEventListener(name, () => enhance(document));
}
enhance(document);
