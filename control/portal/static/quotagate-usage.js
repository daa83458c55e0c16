/* <quotagate-usage>: what an organization has used, and how long the rest lasts.
 *
 *   <script type="module" src="https://control.example.com/portal/quotagate-usage.js"></script>
 *   <quotagate-usage src="/api/usage"></quotagate-usage>
 *
 * src        where the forecast is: an endpoint of the page's own server that passes on
 *            GET /v1/organizations/{org}/forecast, or that address itself (then token-src, too)
 * token-src  an endpoint of the page's own server that answers {"token": "..."}: a short-lived token of the organization
 * meter      only this one
 * refresh    seconds from one look to the next, at least 15; 60 by default
 * locale     of numbers and days; the page's language by default
 *
 * Colours: --quotagate-accent, --quotagate-warn, --quotagate-track, --quotagate-text, --quotagate-quiet.
 * Events: "quotagate-usage" (detail: the document), "quotagate-error" (detail: {status}).
 * It needs no inline style, no inline script and no eval, so it works under a strict Content-Security-Policy. */

const SHEET = new CSSStyleSheet();
SHEET.replaceSync(`
:host { display: block; color: var(--quotagate-text, inherit); font: inherit; container-type: inline-size; }
:host([hidden]) { display: none; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem; }
p { margin: 0; }
.head { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
.name { font-weight: 600; overflow-wrap: anywhere; }
.figures { font-variant-numeric: tabular-nums; }
.quiet { color: var(--quotagate-quiet, color-mix(in srgb, currentcolor 72%, transparent)); font-size: 0.875em; }
svg { display: block; width: 100%; height: 0.5rem; margin: 0.375rem 0; border-radius: 0.25rem; }
.track { fill: var(--quotagate-track, color-mix(in srgb, currentcolor 14%, transparent)); }
.used { fill: var(--quotagate-accent, #2563eb); }
.near { fill: var(--quotagate-warn, #c2410c); }
`);
const NEAR = 0.8;
const SVG = "http://www.w3.org/2000/svg";
const REFRESH_SECONDS = 60;
const REFRESH_SECONDS_MIN = 15;
const TIMEOUT_MS = 10_000;

class QuotagateUsage extends HTMLElement {
  static observedAttributes = ["src", "token-src", "meter", "locale"];
  #root = this.attachShadow({ mode: "open" });
  #timer = 0;
  #token = null;
  #asked = 0;
  #document = null;

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [SHEET];
  }

  connectedCallback() {
    this.setAttribute("aria-busy", "true");
    document.addEventListener("visibilitychange", this.#onVisible);
    this.refresh();
  }

  disconnectedCallback() {
    document.removeEventListener("visibilitychange", this.#onVisible);
    clearTimeout(this.#timer);
    this.#asked += 1;
  }

  attributeChangedCallback(name, before, after) {
    if (before === after || !this.isConnected) return;
    if (name === "src" || name === "token-src") {
      this.#token = null;
      this.refresh();
    } else if (this.#document) this.#show(this.#document);
  }

  /** Looks now. Resolves when what was found is shown. */
  async refresh() {
    clearTimeout(this.#timer);
    const asked = (this.#asked += 1);
    try {
      const found = await this.#fetch();
      if (asked !== this.#asked) return;
      this.#document = found;
      this.#show(found);
      this.dispatchEvent(new CustomEvent("quotagate-usage", { detail: found, bubbles: true, composed: true }));
    } catch (fault) {
      if (asked !== this.#asked) return;
      this.#say("Usage is not known at the moment.");
      const detail = { status: fault.status ?? 0 };
      this.dispatchEvent(new CustomEvent("quotagate-error", { detail, bubbles: true, composed: true }));
    }
    this.setAttribute("aria-busy", "false");
    this.#wait();
  }

  #onVisible = () => (document.hidden ? clearTimeout(this.#timer) : this.refresh());

  #wait() {
    const given = Number(this.getAttribute("refresh")) || REFRESH_SECONDS;
    if (!document.hidden) this.#timer = setTimeout(() => this.refresh(), 1000 * Math.max(REFRESH_SECONDS_MIN, given));
  }

  async #fetch() {
    const source = this.getAttribute("src");
    if (!source) throw new Error("src is missing");
    if (!this.hasAttribute("token-src")) return read(source, { credentials: "same-origin" });
    const known = this.#token;
    try {
      return await this.#fetchByToken(source);
    } catch (fault) {
      if (fault.status !== 401 || known === null) throw fault;
      this.#token = null; // it has expired
      return this.#fetchByToken(source);
    }
  }

  async #fetchByToken(source) {
    this.#token ??= (await read(this.getAttribute("token-src"), { credentials: "same-origin" })).token;
    return read(source, { credentials: "omit", headers: { Authorization: `Bearer ${this.#token}` } });
  }

  #show(found) {
    const only = this.getAttribute("meter");
    const meters = (found.meters ?? []).filter((each) => only === null || each.meter === only);
    if (!meters.length) return this.#say("Nothing can be used at the moment.");
    const list = make("ul");
    for (const each of meters) list.append(this.#row(each));
    const lines = [list];
    if (found.period) lines.push(make("p", "quiet", `Resets ${this.#day(found.period.end)}.`));
    this.#root.replaceChildren(...lines);
  }

  #row(meter) {
    const row = make("li");
    const head = make("p", "head");
    head.append(
      make("span", "name", meter.meter),
      make("span", "figures", `${this.#number(meter.used)} of ${this.#number(meter.limit)}`),
    );
    row.append(head, bar(meter.used, meter.limit), make("p", "quiet", this.#outlook(meter)));
    return row;
  }

  #outlook(meter) {
    const left = `${this.#number(meter.remaining)} left. `;
    if (meter.remaining <= 0) return "Nothing is left.";
    if (!meter.at_end) return left;
    if (!meter.runs_out) return `${left}Lasts until the reset.`;
    const { earliest, latest } = meter.runs_out;
    if (!latest) return `${left}May run out from ${this.#day(earliest)} on.`;
    return `${left}Runs out ${this.#days(earliest, latest)}.`;
  }

  #say(text) {
    this.#root.replaceChildren(make("p", "quiet", text));
  }

  get #locale() {
    return this.getAttribute("locale") || document.documentElement.lang || undefined;
  }

  #number(value) {
    return new Intl.NumberFormat(this.#locale).format(value);
  }

  get #dates() {
    return new Intl.DateTimeFormat(this.#locale, { day: "numeric", month: "long" });
  }

  #day(text) {
    return this.#dates.format(new Date(text));
  }

  #days(from, to) {
    return this.#dates.formatRange(new Date(from), new Date(to));
  }
}

async function read(address, options) {
  const answer = await fetch(address, {
    ...options,
    headers: { Accept: "application/json", ...options.headers },
    cache: "no-store",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (!answer.ok) throw Object.assign(new Error(`${address}: ${answer.status}`), { status: answer.status });
  return answer.json();
}

function make(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text; // never as HTML: names come from elsewhere
  return made;
}

function bar(used, limit) {
  const part = limit > 0 ? Math.min(1, Math.max(0, used / limit)) : 1;
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", "0 0 100 8");
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("aria-hidden", "true"); // the figures beside it say the same
  for (const [kind, width] of [["track", 100], [part < NEAR ? "used" : "near", 100 * part]]) {
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("class", kind);
    rect.setAttribute("width", String(width));
    rect.setAttribute("height", "8");
    drawn.append(rect);
  }
  return drawn;
}

customElements.get("quotagate-usage") ?? customElements.define("quotagate-usage", QuotagateUsage);
