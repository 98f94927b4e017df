// Usage data settings: the dialog in which a person decides what their use of the site tells.
//
//   <script src="/api/analytics/settings.js" defer></script>
//   <button data-second-settings>Usage data settings</button>
//
// What lives here: <second-usage-data>, its words, its look, and the two choices it reads from and
// writes to the endpoint beside this file. What does not: deciding anything. What counts is the
// server's answer; the dialog shows it, and tells the page with `second-usage-data-change`, whose
// detail is that answer. Posting events is client.js's work.
//
// Words are replaced by data attributes of the element (`data-title="Nutzungsdaten"`) or by its
// `words` property; colours by custom properties (`--second-accent` and the others in COLOURS).
(() => {
  "use strict";

  if (customElements.get("second-usage-data")) return;

  const script = document.currentScript;
  const base = new URL(".", (script && script.src) || `${location.origin}/api/analytics/`).href;
  const ID = "second:analytics-anonymous-id:v1";
  const ANSWER_WITHIN = 10000;

  const WORDS = {
    title: "Usage data settings",
    intro: "You decide what your use of this site tells the people who build it.",
    close: "Close",
    on: "On",
    off: "Off",
    share: "Share usage data",
    shareLine: "Which pages and features you use. Off means that nothing is sent.",
    undecided: "You have not chosen yet. Until you do, nothing is sent.",
    accept: "Share",
    decline: "Don’t share",
    anonymize: "Anonymize usage data",
    anonymizeLine: "No name, e-mail, workspace, app, agent or anything you type.",
    anonymizedTitle: "Sent when anonymized",
    anonymizedList: "Kinds of pages and features\nCounts, durations and outcomes\nWindow size\nA random id of this browser",
    identifiedTitle: "Sent with your name",
    identifiedList: "All of that, except the random id\nYour name, e-mail and user id\nWorkspace, apps and agents\nMessages and page addresses",
    confirmTitle: "Send usage data with your name?",
    confirmWhat:
      "From now on your name, e-mail, user id, workspace, apps, agents, messages and page addresses are sent with your usage data.",
    confirmWhere: "They go through this site to PostHog, the analytics service it uses.",
    confirmEarlier: "Events sent before stay anonymous: they are never joined to your name.",
    confirmYes: "Send with my name",
    confirmNo: "Stay anonymous",
    id: "Anonymous id of this browser",
    idNone: "None. One is made with the next anonymized event.",
    idUnused: "None. It is not used while usage data carries your name or is not shared.",
    copy: "Copy",
    renew: "New",
    copied: "The id was copied.",
    notCopied: "The browser did not let the id be copied. Select it instead.",
    renewed: "This browser has a new anonymous id. Earlier events can’t be joined to it.",
    nowAnonymized: "Now: shared, and anonymized.",
    nowIdentified: "Now: shared, with your name.",
    nowNothing: "Now: nothing is sent.",
    loading: "Loading your settings…",
    saving: "Saving…",
    saved: "Saved.",
    failed: "That could not be saved. The switch is back where it was; try again in a while.",
    notLoaded: "Your settings could not be loaded.",
    retry: "Try again",
    managed: "This is managed by your organisation and can’t be changed here.",
    gpc: "Your browser asks for privacy (Global Privacy Control), so usage data stays anonymized.",
    gpcDrop: "Your browser asks for privacy (Global Privacy Control), so nothing is sent.",
    dnt: "Your browser asks not to be tracked, so usage data stays anonymized.",
    dntDrop: "Your browser asks not to be tracked, so nothing is sent.",
    storeFailed: "Your choice can’t be read right now, so usage data stays anonymized.",
    disabled: "Analytics is switched off on this site. Nothing is sent.",
    signedOut: "You are signed out. Sign in to see and change your settings.",
    offline: "You are offline. Your settings can be changed when the connection is back.",
  };

  // Light and dark of each colour; --second-… of the page wins over both.
  const COLOURS = {
    surface: ["#ffffff", "#201f1c"],
    sunken: ["#f4f2ee", "#171614"],
    text: ["#1d1c1a", "#eceae5"],
    muted: ["#5f5b54", "#a8a39a"],
    border: ["#dedad3", "#3d3a34"],
    edge: ["#86817a", "#8a857c"],
    accent: ["#0b6e5b", "#5cc9ac"],
    "on-accent": ["#ffffff", "#06251d"],
    bad: ["#a62b1f", "#f2988c"],
  };

  // light-dark() follows color-scheme, which a page that is only light or only dark sets on the
  // element. A browser that does not know it yet (before 2024) shows the light colours.
  const host = (scheme, colourOf) => {
    const one = ([name, pair]) => `--${name}: var(--second-${name}, ${colourOf(...pair)});`;
    return `:host { color-scheme: ${scheme}; ${Object.entries(COLOURS).map(one).join(" ")} }`;
  };
  const TOKENS = `${host("light", (light) => light)}
    @supports (color: light-dark(red, red)) {
      ${host("light dark", (light, dark) => `light-dark(${light}, ${dark})`)}
    }`;

  const LOOK = `
    *, ::before, ::after { box-sizing: border-box; }
    [hidden] { display: none !important; }
    dialog {
      width: min(440px, 100vw - 24px);
      max-width: none;
      max-height: calc(100dvh - 24px);
      padding: 0;
      border: 1px solid var(--border);
      border-radius: 10px;
      background: var(--surface);
      color: var(--text);
      box-shadow: var(--second-shadow, 0 16px 48px rgb(0 0 0 / 28%));
      font-family: inherit;
      font-size: 15px;
      line-height: 1.5;
      text-align: start;
      overflow: hidden;
    }
    dialog[open] { display: flex; flex-direction: column; }
    .body { flex: 1 1 auto; overflow-y: auto; overscroll-behavior: contain; scrollbar-width: thin; }
    dialog::backdrop { background: rgb(0 0 0 / 45%); }
    h2, h3, p, ul { margin: 0; padding: 0; }
    h2 { font-size: 20px; font-weight: 600; line-height: 1.3; }
    h3 { font-size: 13px; font-weight: 600; }
    ul { padding-inline-start: 16px; }
    header, section, footer { padding: 16px 24px; }
    header { display: grid; grid-template-columns: 1fr auto; gap: 4px 12px; padding-block-end: 12px; }
    header p { grid-column: 1 / -1; }
    section + section { border-block-start: 1px solid var(--border); }
    section[hidden] + section { border: 0; }
    .body { border-block: 1px solid var(--border); }
    section.switches { padding-block: 4px; }
    .muted, .lists li { color: var(--muted); font-size: 13px; }
    button {
      min-block-size: 44px;
      min-inline-size: 44px;
      padding: 8px 16px;
      border: 1px solid var(--edge);
      border-radius: 6px;
      background: transparent;
      color: inherit;
      font: inherit;
      cursor: pointer;
    }
    button:hover { background: var(--sunken); }
    button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    button.close { margin-block: -8px; margin-inline-end: -12px; padding: 8px; border-color: transparent; }
    h2:focus, .confirm:focus { outline: none; }
    button[aria-disabled="true"] { opacity: 0.6; cursor: default; }
    .row { display: grid; grid-template-columns: 1fr auto; gap: 0 16px; align-items: center; padding-block: 8px; }
    .row + .row { border-block-start: 1px solid var(--border); }
    .row label { padding-block: 8px 0; font-weight: 600; cursor: pointer; }
    .row > p { grid-column: 1; padding-block-end: 8px; }
    .row [role="switch"] { grid-column: 2; grid-row: 1 / span 2; }
    .row .more { grid-column: 1 / -1; }
    .undecided { padding-block-end: 8px; }
    .undecided p { padding-block-end: 4px; }
    [role="switch"] { display: flex; align-items: center; gap: 8px; padding: 0 4px; border-color: transparent; font-size: 13px; }
    [role="switch"]:hover { background: none; }
    .track { display: block; inline-size: 40px; block-size: 24px; padding: 3px; border: 1px solid var(--edge); border-radius: 12px; background: var(--sunken); }
    .knob { display: block; inline-size: 16px; block-size: 16px; border-radius: 8px; background: var(--edge); }
    [aria-checked="true"] .track { border-color: var(--accent); background: var(--accent); }
    [aria-checked="true"] .knob { background: var(--on-accent); translate: 16px 0; }
    [aria-checked="true"]:dir(rtl) .knob { translate: -16px 0; }
    .confirm { display: grid; gap: 8px; margin-block: 8px; padding: 16px; border-radius: 6px; background: var(--sunken); }
    .confirm h3 { font-size: 15px; }
    .buttons { display: flex; flex-wrap: wrap; gap: 8px; margin-block-start: 4px; }
    .lists { display: grid; grid-template-columns: 1fr 1fr; gap: 12px 24px; }
    .id { display: grid; grid-template-columns: 1fr auto auto; gap: 4px 8px; align-items: center; }
    .id h3, .id p { grid-column: 1 / -1; }
    code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
    footer { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; min-block-size: 56px; font-size: 13px; }
    footer p { flex: 1 1 200px; }
    footer p.bad { color: var(--bad); font-weight: 600; }
    @media (max-height: 480px) {
      dialog[open] { display: block; overflow-y: auto; }
    }
    @media (max-width: 460px) {
      header, section, footer { padding-inline: 16px; }
      .lists { grid-template-columns: 1fr; }
    }
    @media (prefers-reduced-motion: no-preference) {
      .knob { transition: translate 120ms; }
      .track { transition: background-color 120ms; }
    }
    @media (forced-colors: active) {
      .track, [aria-checked="true"] .track { forced-color-adjust: none; border-color: ButtonText; background: ButtonFace; }
      .knob { forced-color-adjust: none; background: ButtonText; }
      [aria-checked="true"] .track { border-color: Highlight; background: Highlight; }
      [aria-checked="true"] .knob { background: HighlightText; }
      button[aria-disabled="true"] { opacity: 1; color: GrayText; border-color: GrayText; }
      .confirm { border: 1px solid CanvasText; }
    }
  `;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(TOKENS + LOOK);

  // The server's refusals and reasons → the sentence that explains them.
  const REFUSALS = {
    managed_by_host: "managed",
    gpc: "gpc",
    disabled: "disabled",
    not_onboarded: "disabled",
    not_authenticated: "signedOut",
  };
  const REASONS = { host: "managed", gpc: "gpc", dnt: "dnt", store_failed: "storeFailed" };

  // What each sentence means for the switches, beside being said.
  const LOCKS_ALL = ["loading", "notLoaded", "offline", "disabled", "signedOut"];
  const LOCKS_MODE = ["managed", "gpc", "gpcDrop", "dnt", "dntDrop"];
  const BUSY = ["loading", "saving"];
  const BAD = ["failed", "notLoaded"];

  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  const listOf = (lines) => h("ul", {}, ...lines.split("\n").map((line) => h("li", {}, line)));

  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 15) | 64;
    bytes[8] = (bytes[8] & 63) | 128;
    const hex = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
    return `anon_${hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")}`;
  }

  // Storage may be blocked: then the client's id lives in its memory and can't be shown.
  function storedId(fresh) {
    try {
      if (fresh) localStorage.setItem(ID, fresh);
      return localStorage.getItem(ID);
    } catch {
      return null;
    }
  }

  // GET or PUT preferences → {answer} or {refused: the sentence that says why}.
  async function ask(choice) {
    const control = new AbortController();
    const limit = setTimeout(() => control.abort(), ANSWER_WITHIN);
    const change = choice && {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(choice),
    };
    try {
      const options = { cache: "no-store", credentials: "include", signal: control.signal };
      const response = await fetch(`${base}preferences`, { ...options, ...change });
      const answer = await response.json();
      if (response.ok && "enabled" in answer) return { answer };
      return { refused: REFUSALS[answer.error] };
    } catch {
      return { refused: navigator.onLine === false ? "offline" : undefined };
    } finally {
      clearTimeout(limit);
    }
  }

  class UsageData extends HTMLElement {
    #words = {};
    #parts; // the elements that change
    #answer; // what the server said last, undefined while it has said nothing
    #choice; // what is being saved: the switches show it at once
    #said; // the sentence to say, by its key in WORDS
    #confirming = false;
    #round = 0; // an answer to an older question doesn't count
    #opener;
    #closed; // ends what listens while the dialog is open

    get words() {
      return { ...WORDS, ...this.dataset, ...this.#words };
    }

    set words(words) {
      this.#words = { ...words };
      if (!this.#parts) return;
      const { dialog } = this.#parts;
      const reopen = dialog.open;
      dialog.remove();
      this.#parts = undefined;
      if (reopen) this.#show();
    }

    open() {
      if (this.#parts && this.#parts.dialog.open) return;
      if (!this.isConnected) document.body.append(this);
      this.#opener = document.activeElement;
      this.#confirming = false;
      this.#show();
      this.#load();
      this.#closed = new AbortController();
      const options = { signal: this.#closed.signal };
      addEventListener("online", () => this.#load(), options);
      addEventListener("offline", () => this.#say("offline"), options);
    }

    close() {
      if (this.#parts) this.#parts.dialog.close();
    }

    #show() {
      if (!this.#parts) this.#build();
      this.#parts.dialog.showModal();
      this.#draw();
    }

    #hasClosed() {
      this.#closed.abort();
      this.#round++;
      const opener = this.#opener;
      if (!opener || !opener.isConnected) return;
      opener.focus();
      // A button in a menu that has closed meanwhile can't be focused; what opens the menu can.
      const menu = opener.closest("[popover]");
      if (menu && document.activeElement !== opener) {
        const invoker = document.querySelector(`[popovertarget="${CSS.escape(menu.id)}"]`);
        if (invoker) invoker.focus();
      }
    }

    // What the server knows

    async #load() {
      const round = ++this.#round;
      this.#answer = this.#choice = undefined;
      this.#say("loading");
      const { answer, refused } = await ask();
      if (round !== this.#round) return;
      this.#answer = answer;
      this.#say(answer ? this.#reason() || this.#standing() : refused || "notLoaded");
    }

    async #save(choice) {
      const round = ++this.#round;
      this.#choice = choice;
      this.#say("saving");
      const { answer, refused } = await ask(choice);
      // The page has to know even if the dialog was closed meanwhile.
      if (answer) this.#tell(answer);
      if (round !== this.#round) return;
      this.#choice = undefined;
      if (answer) {
        this.#answer = answer;
        const done =
          "sharing" in choice
            ? answer.sharing === choice.sharing
            : choice.anonymized === (answer.effective !== "identified");
        this.#say(done ? "saved" : this.#reason() || "failed");
      } else {
        this.#say(refused || "failed");
      }
    }

    #tell(detail) {
      const options = { bubbles: true, composed: true, detail };
      this.dispatchEvent(new CustomEvent("second-usage-data-change", options));
    }

    // The sentence that says why the answer is as it is, if there is anything to explain.
    #reason() {
      const { enabled, reason, sharing } = this.#answer || {};
      if (enabled === false) return "disabled";
      const found = REASONS[reason];
      return sharing === false && ["gpc", "dnt"].includes(found) ? `${found}Drop` : found;
    }

    #standing() {
      if (this.#answer.sharing !== true) return "nowNothing";
      return this.#answer.effective === "identified" ? "nowIdentified" : "nowAnonymized";
    }

    // What the person does

    #flipSharing() {
      if (!this.#isLocked()) this.#save({ sharing: this.#answer.sharing !== true });
    }

    #flipAnonymity() {
      if (this.#isLocked() || this.#isModeLocked()) return;
      if (this.#answer.effective === "identified") this.#save({ anonymized: true });
      else this.#confirm(!this.#confirming);
    }

    #confirm(open) {
      this.#confirming = open;
      this.#draw();
      if (open) this.#parts.confirm.focus();
      else this.#parts.anonymize.focus();
    }

    #becomeIdentified() {
      this.#confirm(false);
      this.#save({ anonymized: false });
    }

    async #copy() {
      try {
        await navigator.clipboard.writeText(storedId());
        this.#say("copied");
      } catch {
        // No secure context, or not allowed: select it, so that the keyboard can copy it.
        getSelection().selectAllChildren(this.#parts.id);
        this.#say("notCopied");
      }
    }

    #renew() {
      storedId(newId());
      this.#say("renewed");
    }

    // What is shown, from the state alone

    #isLocked() {
      return !this.#answer || Boolean(this.#choice) || LOCKS_ALL.includes(this.#said);
    }

    #isModeLocked() {
      return LOCKS_MODE.includes(this.#reason());
    }

    #say(key) {
      this.#said = key;
      this.#draw();
    }

    #draw() {
      if (!this.#parts) return;
      const { words } = this;
      const parts = this.#parts;
      const answer = this.#answer || {};
      const { sharing, anonymized } = { ...answer, anonymized: undefined, ...this.#choice };
      const isAnonymized = anonymized === undefined ? answer.effective !== "identified" : anonymized;
      const locked = this.#isLocked();
      this.#flip(parts.share, sharing === true, locked);
      this.#flip(parts.anonymize, isAnonymized, locked || this.#isModeLocked());
      // A switch that nobody has answered for would show a state that is none.
      parts.share.hidden = parts.anonymize.hidden = !answer.enabled;
      // While it loads they keep their place, so that nothing jumps.
      parts.switches.hidden = !answer.enabled && this.#said !== "loading";
      parts.undecided.hidden = !answer.enabled || sharing !== null;
      parts.confirm.hidden = !this.#confirming || locked;
      const inUse = answer.enabled && sharing === true && isAnonymized;
      const id = inUse && storedId();
      parts.id.textContent = id || "";
      parts.noId.textContent = inUse ? words.idNone : words.idUnused;
      parts.noId.hidden = Boolean(id);
      parts.id.hidden = parts.copy.hidden = parts.renew.hidden = !id;
      parts.idSection.hidden = !answer.enabled;
      parts.retry.hidden = this.#said !== "notLoaded";
      parts.dialog.setAttribute("aria-busy", BUSY.includes(this.#said));
      parts.status.className = BAD.includes(this.#said) ? "bad" : "";
      const sentence = words[this.#said] || "";
      // An unchanged sentence is left alone: writing it again would have it read out again.
      if (parts.status.textContent !== sentence) parts.status.textContent = sentence;
    }

    #flip(button, isOn, locked) {
      button.setAttribute("aria-checked", isOn);
      button.setAttribute("aria-disabled", locked);
      button.firstChild.textContent = isOn ? this.words.on : this.words.off;
    }

    // The elements

    #build() {
      const { words } = this;
      const root = this.shadowRoot || this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [sheet];
      const button = (word, onclick, attributes) =>
        h("button", { type: "button", onclick, ...attributes }, word);
      const toggle = (name, onclick) =>
        h(
          "button",
          {
            type: "button",
            role: "switch",
            id: name,
            "aria-labelledby": `${name}-label`,
            "aria-describedby": `${name}-line status`,
            onclick,
          },
          h("span", { "aria-hidden": "true" }),
          h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "knob" })),
        );
      const row = (name, control, ...more) =>
        h(
          "div",
          { class: "row" },
          h("label", { for: name, id: `${name}-label` }, words[name]),
          h("p", { class: "muted", id: `${name}-line` }, words[`${name}Line`]),
          control,
          ...more,
        );

      const share = toggle("share", () => this.#flipSharing());
      const anonymize = toggle("anonymize", () => this.#flipAnonymity());
      const undecided = h(
        "div",
        { class: "more undecided" },
        h("p", { class: "muted" }, words.undecided),
        // Two buttons alike: neither answer is made easier than the other.
        h(
          "div",
          { class: "buttons" },
          button(words.decline, () => this.#save({ sharing: false }), { class: "decline" }),
          button(words.accept, () => this.#save({ sharing: true }), { class: "accept" }),
        ),
      );
      const confirm = h(
        "div",
        {
          class: "confirm more",
          role: "group",
          tabindex: "-1",
          "aria-labelledby": "confirm-title",
          "aria-describedby": "confirm-what confirm-where confirm-earlier",
        },
        h("h3", { id: "confirm-title" }, words.confirmTitle),
        h("p", { id: "confirm-what" }, words.confirmWhat),
        h("p", { id: "confirm-where" }, words.confirmWhere),
        h("p", { id: "confirm-earlier" }, words.confirmEarlier),
        h(
          "div",
          { class: "buttons" },
          button(words.confirmNo, () => this.#confirm(false), { class: "no" }),
          button(words.confirmYes, () => this.#becomeIdentified(), { class: "yes" }),
        ),
      );
      const switches = h(
        "section",
        { class: "switches" },
        row("share", share, undecided),
        row("anonymize", anonymize, confirm),
      );
      const id = h("code");
      const noId = h("p", { class: "muted" });
      const copy = button(words.copy, () => this.#copy(), { class: "copy" });
      const renew = button(words.renew, () => this.#renew(), { class: "renew" });
      const idSection = h("section", { class: "id" }, h("h3", {}, words.id), id, copy, renew, noId);
      const status = h("p", { id: "status", role: "status", "aria-live": "polite" });
      const retry = button(words.retry, () => this.#load(), { class: "retry" });
      const close = button("✕", () => this.close(), { class: "close", "aria-label": words.close });

      const dialog = h(
        "dialog",
        {
          "aria-labelledby": "title",
          "aria-describedby": "intro",
          closedby: "any",
          onclose: () => this.#hasClosed(),
          oncancel: (event) => {
            // Escape takes back the question first, then the dialog.
            if (!this.#confirming) return;
            event.preventDefault();
            this.#confirm(false);
          },
        },
        h(
          "header",
          {},
          h("h2", { id: "title", tabindex: "-1", autofocus: "" }, words.title),
          close,
          h("p", { id: "intro", class: "muted" }, words.intro),
        ),
        h(
          "div",
          { class: "body" },
          switches,
          h(
            "section",
            { class: "lists" },
            h("div", {}, h("h3", {}, words.anonymizedTitle), listOf(words.anonymizedList)),
            h("div", {}, h("h3", {}, words.identifiedTitle), listOf(words.identifiedList)),
          ),
          idSection,
        ),
        h("footer", {}, status, retry),
      );
      root.append(dialog);
      this.#parts = {
        dialog,
        switches,
        share,
        anonymize,
        undecided,
        confirm,
        id,
        noId,
        copy,
        renew,
        idSection,
        status,
        retry,
      };
    }
  }

  customElements.define("second-usage-data", UsageData);

  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest("[data-second-settings]")) return;
    const dialog =
      document.querySelector("second-usage-data") || document.createElement("second-usage-data");
    dialog.open();
  });
})();
