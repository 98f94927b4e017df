// The browser client: captures events on a page and posts them to the endpoint beside this file.
//
// What lives here: page views, page context, the queue, the anonymous id, when to post and when to
// be quiet. What does not: privacy rules. The server judges every key and value again and trusts
// nothing said here; what this file leaves out in anonymized mode never travels at all.
// The dialog is in settings.js, which tells of a change with `second-usage-data-change`.
//
//   <script src="/api/analytics/client.js" defer></script>
//   data-mode="anonymized|identified" data-subject="1a2b"   what the server knows of this user;
//                                                           both, or the client asks
//   data-hash     the page's path is in the hash            data-manual   no page views by itself
//
// A script can't know when a page has ended, so nothing here may throw into it, hold it up or keep
// a list that grows without bound.
(() => {
  "use strict";

  // Twice on a page would count every view twice.
  if (window.secondAnalytics) return;

  const script = document.currentScript;
  const options = script ? script.dataset : {};
  const base = new URL(".", (script && script.src) || `${location.origin}/api/analytics/`).href;

  const SECOND = 1000;
  const BATCH_EVERY = 2 * SECOND;
  const MODE_WITHIN = 3 * SECOND;
  const ANSWER_WITHIN = 30 * SECOND;
  const LONGEST_REST = 3600 * SECOND; // a longer setTimeout may overflow and fire at once
  const TRIES = 7; // the rests between them double: about a minute and a half, then quiet
  const MOST_WAITING = 1000;
  const MOST_KEPT = 100;
  const MOST_BYTES = 60000; // browsers give beacons and keepalive 64 KiB, all pages' requests together

  const ID = "second:analytics-anonymous-id:v1";
  const SUBJECT = "second:analytics-subject:v1"; // whose the id is: four hex digits of a keyed hash
  const KEPT = "second:analytics-queue:v1";
  const SIGNED_OUT = "second:analytics-signed-out:v1"; // set and removed at once, to tell other tabs

  let mode; // undefined: not known yet; anonymized, identified; guess: anonymized, without an id; off
  let subject;
  let over = false; // signed out: off until the next page load, whatever is heard
  let leaving = false;
  let drafts = []; // events that wait for the mode
  let queue = []; // events as they will be posted
  let flight = []; // those of the queue that are on their way
  let most = 100;
  let timer = 0;
  let resting = 0;
  let failures = 0;
  let turn = 0; // the latest question to the server; an answer to an older one doesn't count
  let known;
  let sending;
  let lastPath;

  const safe = (work) => function (...given) {
    try {
      return work.apply(this, given);
    } catch {
      // An event lost is better than a page broken.
    }
  };
  const on = (target, types, work, capturing) =>
    types.split(" ").forEach((type) => target.addEventListener(type, safe(work), capturing));

  // Storage; memory where it is blocked or full

  const memory = {};

  function read(key) {
    try {
      return localStorage.getItem(key) || memory[key];
    } catch {
      return memory[key];
    }
  }

  function write(key, value) {
    delete memory[key];
    try {
      localStorage.setItem(key, value);
    } catch {
      memory[key] = value;
    }
  }

  function remove(...keys) {
    for (const key of keys) {
      delete memory[key];
      try {
        localStorage.removeItem(key);
      } catch {
        // Blocked: then there is nothing in it.
      }
    }
  }

  // Identity

  function uuid() {
    // Not every page is a secure context, and only there is randomUUID.
    if (crypto.randomUUID) return crypto.randomUUID();
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 15) | 64;
    bytes[8] = (bytes[8] & 63) | 128;
    const hex = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  function anonymousId() {
    // Read anew for each event: other tabs and the settings may have changed it.
    let id = read(ID);
    if (!/^anon_[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.test(id)) {
      id = `anon_${uuid()}`;
      write(SUBJECT, subject);
      write(ID, id);
    }
    return id;
  }

  // Page context: words this file knows, and shapes of routes; nothing else of an address

  const STEPS = ["intro", "workspace", "finish"];
  const SECTIONS = (
    "overview members teams integrations connected-apps runtime-settings source-control " +
    "audit-logs diagnostics"
  ).split(" ");
  const APP = ["chat", "agents"];
  const PLACES = ["apps", "library", "reviews", "available-apps", "settings", "onboarding"];
  const WORDS = PLACES.concat(APP, STEPS, SECTIONS);
  const wordOf = (words, part) => (words.includes(part) ? part : "other");

  function shapeOf(path) {
    const parts = path.split(/[?#]/)[0].split("/").slice(0, 20);
    const inside = parts[1] === "w" && parts[2];
    const shape = (part, at) => {
      if (!part || /^:(workspace|objectId|uuid|agent|integration|segment|id)$/.test(part)) return part;
      if (inside && at < 3) return at === 1 ? part : ":workspace";
      if (/^[\da-f]{24}$/i.test(part)) return ":objectId";
      if (/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(part)) return ":uuid";
      if (!inside) return /^([a-z]{1,20}\d{0,2}[-_.]?){1,5}$/i.test(part) ? part : ":id";
      if (parts[at - 1] === "agents") return ":agent";
      if (parts[at - 1] === "integrations" && parts[at - 2] === "settings") return ":integration";
      return WORDS.includes(part) ? part : ":segment";
    };
    return parts.map(shape).join("/");
  }

  function path() {
    const hash = "hash" in options && /^#!?(\/.*)/.exec(location.hash);
    return hash ? hash[1] : location.pathname;
  }

  function context() {
    const parts = path().split(/[?#]/)[0].split("/").filter(Boolean);
    const inside = parts[0] === "w" && parts[1];
    const [place, part, section] = inside ? parts.slice(2) : parts;
    const found = {
      route_shape: shapeOf(path()),
      viewport_width: innerWidth,
      viewport_height: innerHeight,
    };
    const is = (surface, key, words, word) => {
      found.surface = surface;
      if (word) found[key] = wordOf(words, word);
    };
    if (place === "onboarding") is(place, "onboarding_step", STEPS, part);
    else if (!inside) is("public");
    else if (!place) is("workspace_home");
    else if (place === "apps" && part)
      is(section === "agents" ? "app_agents" : "app_chat", "app_section", APP, section || "chat");
    else if (place === "settings") is(place, "settings_section", SECTIONS, part || "overview");
    else if (place === "agents") is("workspace_agents");
    else if (place === "library" || place === "reviews") is(place);
    else is("workspace", "workspace_section", ["available-apps"], place);
    return found;
  }

  // Events

  // The catalogue's keys of free text and of what identifies; tests hold the two together.
  const PRIVATE =
    /^(page_url|pathname|referrer|message|prompt|error|suggestions|agents|(user|run|tool_call|workspace|app|agent)_id|workspace_role|plan_(title|overview|features|feature_names|data_flow|agents|backend)|suggestion_(sub)?titles?|(app|agent)_(name|names|ids|descriptions|system_prompts|tool_names|tool_display_names|data_collection_names)|((app_tool|agent)_)?integration_(names|domains))$/;

  const isPrivate = (key) =>
    PRIVATE.test(
      key
        .replace(/([a-z\d])([A-Z])/g, "$1_$2")
        .replace(/[\W_]+/g, "_")
        .toLowerCase(),
    );

  // The page may change an object after capture, and may hand over one that can't be written as
  // JSON (a cycle, a BigInt, a getter that throws): then the rest of it still counts.
  function copyOf(properties) {
    const copy = {};
    safe(() => {
      for (const key of Object.keys(properties || {}))
        safe(() => {
          copy[key] = JSON.parse(JSON.stringify(properties[key]));
        })();
    })();
    return copy;
  }

  function stamp({ own, around, page, ...event }, as) {
    // An event may ask for anonymity itself.
    const anonymized = as !== "identified" || ![undefined, false].includes(own.anonymized);
    if (anonymized)
      own = JSON.parse(JSON.stringify(own, (key, value) => (isPrivate(key) ? undefined : value)));
    event.properties = { ...around, ...(anonymized ? {} : page), ...own, anonymized };
    event.properties.route_shape = shapeOf(`${event.properties.route_shape}`);
    if (as !== "guess" && subject) {
      event.subject = subject;
      if (as === "anonymized") event.anonymousDistinctId = anonymousId();
    }
    queue.push(event);
  }

  function capture(name, properties) {
    if (mode === "off" || drafts.length + queue.length >= MOST_WAITING) return;
    const draft = {
      event: `${name}`,
      uuid: uuid(),
      timestamp: new Date().toISOString(),
      own: copyOf(properties),
      around: context(),
      page: { page_url: location.href, pathname: path(), referrer: document.referrer },
    };
    if (mode) stamp(draft, mode);
    else drafts.push(draft);
    if (leaving) leave();
    else soon();
  }

  const stampDrafts = (as) => drafts.splice(0).forEach((draft) => stamp(draft, as));

  // The mode: from the script tag, else from the server, else after a while the careful guess

  function adopt(answer) {
    const { enabled, sharing, effective } = answer;
    turn++;
    if (over) return;
    if (!enabled || !sharing) {
      stop();
      return;
    }
    if (subject && subject !== answer.subject) queue = [];
    subject = answer.subject;
    mode = effective === "identified" ? effective : "anonymized";
    if (mode === "identified" || read(SUBJECT) !== subject) remove(ID, SUBJECT);
    restore();
    stampDrafts(mode);
    soon();
  }

  function guess() {
    mode = "guess";
    stampDrafts(mode);
    soon();
  }

  function ask() {
    if (over) return;
    const mine = ++turn;
    mode = undefined;
    setTimeout(() => mine === turn && !mode && guess(), MODE_WITHIN);
    known = fetch(`${base}preferences`, { credentials: "include", cache: "no-store" })
      .then(async (response) => {
        // A refusal that isn't "nobody is signed in" says nothing about the mode.
        const answer = response.ok ? await response.json() : response.status === 401 && {};
        if (mine === turn) adopt(answer || null);
      })
      .catch(() => mine === turn && !mode && guess());
  }

  function stop() {
    mode = "off";
    drafts = [];
    queue = [];
    remove(ID, SUBJECT, KEPT);
  }

  function reset() {
    if (over) return;
    leave(true);
    over = true;
    write(SIGNED_OUT, "1");
    remove(SIGNED_OUT);
    stop();
  }

  // What could not be posted waits in storage: anonymized events only, and only their owner's

  function keep(events) {
    const ours = events.filter((event) => event.subject && event.properties.anonymized);
    if (!ours.length) return;
    const before = safe(JSON.parse)(read(KEPT)) || [];
    write(KEPT, JSON.stringify(before.concat(ours).slice(-MOST_KEPT)));
    drop(ours);
  }

  function restore() {
    if (!subject) return;
    const kept = safe(JSON.parse)(read(KEPT));
    remove(KEPT);
    safe(() => queue.unshift(...kept.filter((event) => event.subject === subject)))();
  }

  const drop = (events) => {
    queue = queue.filter((event) => !events.includes(event));
  };

  // Posting

  // The next events of one mode that fit into one request.
  function batchOf(events) {
    const batch = [];
    let bytes = 0;
    for (const event of events) {
      if (event.properties.anonymized !== events[0].properties.anonymized) continue;
      bytes += new Blob([JSON.stringify(event)]).size + 1;
      if (batch.length && (bytes > MOST_BYTES - 20 || batch.length >= most)) break;
      batch.push(event);
    }
    return batch;
  }

  const bodyOf = (batch) => JSON.stringify({ batch });

  function soon() {
    timer = timer || setTimeout(send, BATCH_EVERY);
  }

  function send() {
    clearTimeout(timer);
    timer = 0;
    sending =
      sending ||
      post()
        .catch(() => rest())
        .then(() => {
          sending = undefined;
          flight = [];
        });
    return sending;
  }

  async function post() {
    while (mode && !resting && queue.length) {
      flight = batchOf(queue);
      const batch = flight;
      const { status, after, results } = await exchange(bodyOf(batch));
      flight = [];
      if (status === 401 || status === 403) {
        stop(); // nobody is signed in, or not onboarded
      } else if (status === 413 && batch.length > 1) {
        most = batch.length >> 1;
      } else {
        const settled = results ? batch.filter((event) => results[event.uuid]) : batch;
        if (!status || status === 429 || status > 499 || !settled.length) {
          rest(after);
        } else {
          failures = 0;
          drop(settled);
          const strange = (event) => (results[event.uuid] || {}).error === "other_user";
          // Nothing was taken of this user, or somebody else is signed in by now.
          if (results ? settled.some(strange) : status === 204 || status === 409) ask();
        }
      }
    }
  }

  async function exchange(body) {
    const control = new AbortController();
    const limit = setTimeout(() => control.abort(), ANSWER_WITHIN);
    try {
      const response = await fetch(`${base}capture`, {
        method: "POST",
        body,
        headers: { "Content-Type": "application/json" },
        credentials: "include",
        keepalive: new Blob([body]).size < MOST_BYTES, // so that a link followed now loses nothing
        signal: control.signal,
      });
      const { status } = response;
      const after = response.headers.get("Retry-After");
      // A 200 without results is not the endpoint's: a sign-in page, a captive portal.
      const results = status === 200 ? Object((await response.json()).results) : undefined;
      return { status, results, after: isNaN(after) ? Date.parse(after) - Date.now() : after * SECOND };
    } catch {
      return {};
    } finally {
      clearTimeout(limit);
    }
  }

  function rest(after) {
    const backoff = 2 ** failures++ * SECOND * (1 + Math.random());
    const wake = () => {
      resting = 0;
      send();
    };
    // Quiet from then on, until the browser says that it is online again.
    resting =
      failures < TRIES ? setTimeout(wake, Math.min(Math.max(backoff, after || 0), LONGEST_REST)) : -1;
  }

  // The page goes, or may never come back: timers and answers can't be relied on any more.
  function leave(signingOut) {
    if (!mode) stampDrafts("guess");
    const waiting = () => queue.filter((event) => !flight.includes(event));
    const offline = navigator.onLine === false;
    if (!signingOut && (failures || offline)) keep(waiting());
    // A beacon says that all is well even then.
    if (offline) return;
    const refused = [];
    for (let rest = waiting(), batch; rest.length; rest = rest.filter((e) => !batch.includes(e))) {
      batch = batchOf(rest);
      refused.push(...beam(batch));
    }
    if (refused.length) send();
  }

  // Returns the events that no beacon would take; the halves of a batch may still fit.
  function beam(batch) {
    if (navigator.sendBeacon && navigator.sendBeacon(`${base}capture`, bodyOf(batch))) {
      drop(batch);
      return [];
    }
    const half = batch.length >> 1;
    return half ? [...beam(batch.slice(0, half)), ...beam(batch.slice(half))] : batch;
  }

  // Page views

  function view() {
    const here = location.pathname + ("hash" in options ? location.hash : "");
    if (here === lastPath) return;
    lastPath = here;
    capture("page viewed");
  }

  function watchPath() {
    for (const name of ["pushState", "replaceState"]) {
      const original = history[name];
      history[name] = function (...given) {
        const result = original.apply(this, given);
        safe(view)();
        return result;
      };
    }
    on(window, "popstate hashchange", view);
    view();
  }

  // Declared in the page: data-second-event, data-second-prop-*, data-second-sign-out

  function declared({ type, target }) {
    const found = (name) => {
      const element = target.closest(`[data-second-${name}]`);
      return element && (element.tagName === "FORM") === (type === "submit") && element;
    };
    const element = found("event");
    if (element) {
      const properties = {};
      for (const { name, value } of element.attributes)
        if (name.startsWith("data-second-prop-"))
          properties[name.slice(17).replace(/-/g, "_")] =
            /^(true|false|-?(0|[1-9]\d{0,14})(\.\d+)?)$/.test(value) ? JSON.parse(value) : value;
      capture(element.dataset.secondEvent, properties);
    }
    if (found("sign-out")) reset();
  }

  function start() {
    on(window, "second-usage-data-change", (event) => adopt(event.detail));
    on(document, "click submit", declared, true);
    on(document, "visibilitychange", () => {
      if (document.visibilityState === "hidden") leave();
      else if (mode && mode !== "off") {
        restore();
        soon();
      }
    });
    on(window, "pagehide", () => {
      leaving = true;
      leave();
    });
    on(window, "pageshow", (event) => {
      leaving = false;
      if (!event.persisted) return;
      // Somebody else may have signed in while this page lay in the cache.
      ask();
      if ("manual" in options) return;
      lastPath = undefined;
      view();
    });
    on(window, "online", () => {
      clearTimeout(resting);
      resting = failures = 0;
      if (mode === "guess") ask();
      else if (mode && mode !== "off") restore();
      send();
    });
    on(window, "storage", ({ key, newValue }) => {
      if (key === SIGNED_OUT && newValue) {
        over = true;
        stop();
      } else if ((key === ID || !key) && !newValue === (mode === "anonymized")) ask();
    });

    // Under Global Privacy Control only the server's answer makes a user identified.
    const trusted = options.mode === "anonymized" || !navigator.globalPrivacyControl;
    if (/^(anonymized|identified)$/.test(options.mode) && options.subject && trusted)
      adopt({ enabled: true, sharing: true, effective: options.mode, subject: options.subject });
    else ask();
    if (!("manual" in options)) watchPath();
  }

  window.secondAnalytics = {
    capture: safe(capture),
    reset: safe(reset),
    // Resolves when what waits has been tried; never rejects.
    flush: safe(() =>
      Promise.race([known, new Promise((done) => setTimeout(done, MODE_WITHIN))]).then(send),
    ),
  };

  // A page that is only prerendered has not been seen by anybody.
  if (document.prerendering) on(document, "prerenderingchange", start, { once: true });
  else safe(start)();
})();
