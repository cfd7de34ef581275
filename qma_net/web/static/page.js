// The page: uploads photos one after another, follows their progress and shows their results.

import "./viewer.js";

const API = "api/examinations";
const BLINK_INTERVAL = 700; // milliseconds
const KEEP_ALIVE_INTERVAL = 5 * 60_000; // The server removes examinations that nobody requests.

const find = (id) => document.getElementById(id);
const status = find("status");
const progress = find("progress");

const results = []; // Finished examinations: { id, name, result }.
const created = new Set(); // The ids to remove when the page is closed.
const pending = []; // Files that wait to be uploaded.
let isBusy = false;
let stopped = null; // An AbortController while an examination runs.
let blinking = 0; // A timer.

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function say(text, isError = false) {
  status.replaceChildren(element("p", isError ? { role: "alert" } : {}, text));
}

async function request(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not respond; it may have been stopped.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const detail = typeof body.detail === "string" ? body.detail : "the request failed";
  throw new Error(`${detail} (${response.status})`);
}

function remove(id, options = {}) {
  created.delete(id);
  return fetch(`${API}/${id}`, { method: "DELETE", ...options }).catch(() => {});
}

// Move the focus to the result if it is below the controls.
function reveal() {
  if (!matchMedia("(max-width: 50rem)").matches) return;
  find("output").focus({ preventScroll: true });
  find("output").scrollIntoView();
}

function add(files) {
  pending.push(...files);
  work();
}

async function work() {
  if (isBusy) return;
  isBusy = true;
  find("stop").disabled = false;
  reveal();
  const failures = [];
  let isFirst = true;
  let wasStopped = false;
  while (pending.length) {
    const file = pending.shift();
    stopped = new AbortController();
    try {
      show(await examine(file, stopped.signal));
      if (isFirst) reveal(); // Later results must not interrupt someone reading the first.
      isFirst = false;
    } catch (error) {
      wasStopped = stopped.signal.aborted;
      if (!wasStopped) failures.push(error.message);
    }
  }
  isBusy = false;
  stopped = null;
  progress.hidden = true;
  find("stop").disabled = true;
  if (failures.length) say(failures.join("; "), true);
  else say(wasStopped ? "Stopped. There is no result for this photo." : "Done.");
}

async function examine(file, signal) {
  const others = pending.length ? ` (${pending.length} more waiting)` : "";
  say(`Uploading ${file.name}${others} ...`);
  progress.hidden = false;
  progress.removeAttribute("value");
  const form = new FormData();
  form.append("photograph", file, file.name);
  const native = find("native")?.checked ? "?native=true" : "";
  const response = await request(`${API}${native}`, { method: "POST", body: form, signal });
  const { id } = await response.json();
  created.add(id);
  try {
    const state = await follow(id, signal);
    if (state.state === "failed") throw new Error(state.error);
    if (state.state !== "done") throw new Error("the examination was stopped by the server");
    return state;
  } catch (error) {
    remove(id);
    throw error;
  }
}

// Wait for the end of an examination; resolve to its state.
function follow(id, signal) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`${API}/${id}/events`);
    const end = (settle, value) => {
      events.close();
      settle(value);
    };
    signal.addEventListener("abort", () => end(reject, new DOMException("", "AbortError")));
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED)
        end(reject, new Error("The result has expired, or the server has been stopped."));
    };
    events.onmessage = ({ data }) => {
      const state = JSON.parse(data);
      if (["done", "failed", "stopped"].includes(state.state)) end(resolve, state);
      else describe(state);
    };
  });
}

function describe(state) {
  const { done, total } = state.progress;
  if (state.position) {
    say(`Waiting: ${state.name} is number ${state.position} in the queue.`);
  } else if (total < 2) {
    say(`Examining ${state.name} ...`);
  } else {
    const seconds = state.seconds_left;
    const duration = seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
    const left = seconds === null ? "" : `, about ${duration} left`;
    say(`${done} of ${total} tiles finished${left}.`);
    progress.max = total;
    progress.value = done;
  }
}

function show(state) {
  results.push(state);
  open(state);
  refresh();
}

function open({ id, name, result }) {
  clearInterval(blinking);
  const base = `${API}/${id}/`;
  if (result.width) {
    const attributes = { name, width: result.width, height: result.height, base, "data-id": id };
    if (result.has_location) attributes.location = "";
    if (result.shares) {
      attributes.threshold = result.threshold;
      attributes.shares = JSON.stringify(result.shares);
    }
    find("result").replaceChildren(element("photo-viewer", attributes));
  } else { // The pixels cannot be decoded.
    const report = element("a", { href: `${base}report.html`, target: "_blank" },
      "Report on the file (its pixels cannot be decoded)");
    find("result").replaceChildren(element("div", { "data-id": id },
      element("p", { role: "alert" }, result.error), element("p", {}, report)));
  }
  for (const button of document.querySelectorAll("#results .open"))
    button.toggleAttribute("aria-current", button.dataset.id === id);
}

// Rebuild the list of results and the choices of the comparison.
function refresh() {
  const shown = document.querySelector("#result > [data-id]")?.dataset.id;
  find("results").replaceChildren(...results.map((state) => {
    const label = element("button", { type: "button", class: "open", "data-id": state.id }, state.name);
    label.title = state.name;
    label.addEventListener("click", () => {
      open(state);
      reveal();
    });
    if (shown === state.id) label.setAttribute("aria-current", "true");
    const cross = element("button", { type: "button", "aria-label": `Remove ${state.name}` }, "\u00d7");
    cross.addEventListener("click", () => {
      results.splice(results.indexOf(state), 1);
      remove(state.id);
      clearInterval(blinking);
      find("result").replaceChildren();
      if (results.length) open(results.at(-1));
      refresh();
      (document.querySelector("#results .open") ?? find("photograph")).focus();
    });
    return element("li", {}, label, cross);
  }));
  find("list").hidden = !results.length;
  const comparable = results.filter(({ result }) => result.width);
  find("comparison").hidden = comparable.length < 2;
  [find("left"), find("right")].forEach((select, side) => {
    const chosen = select.value;
    select.replaceChildren(...comparable.map(({ id, name }, i) =>
      element("option", { value: id }, `${i + 1}: ${name}`)));
    const isKept = comparable.some(({ id }) => id === chosen);
    select.value = isKept ? chosen : comparable.at(side ? -1 : 0)?.id ?? "";
  });
  if (comparable.length > 1 && find("left").value === find("right").value)
    find("right").value = comparable.findLast(({ id }) => id !== find("left").value).id;
  const hasMasks = comparable.every(({ result }) => result.shares);
  for (const option of find("kind").options)
    option.disabled = !hasMasks && option.value !== "photograph.png";
  if (!hasMasks) find("kind").value = "photograph.png";
}

function compare(isBlinking) {
  clearInterval(blinking);
  const kind = find("kind");
  const figures = [find("left"), find("right")].map((select) => {
    const { id, name } = results.find((state) => state.id === select.value);
    const alt = `${kind.selectedOptions[0].text} of ${name}`;
    const picture = element("img", { src: `${API}/${id}/${kind.value}`, alt });
    return element("figure", {}, picture, element("figcaption", {}, name));
  });
  const compared = element("div", { class: "compared", role: "group", "aria-label": "Comparison" },
    ...figures);
  if (isBlinking) {
    compared.classList.add("blinking");
    figures[1].hidden = true;
    const swap = () => figures.forEach((figure) => { figure.hidden = !figure.hidden; });
    const start = () => { blinking = setInterval(swap, BLINK_INTERVAL); };
    const pause = element("button", { type: "button", id: "pause" }, "Pause");
    const other = element("button", { type: "button", id: "swap" }, "Switch");
    pause.addEventListener("click", () => {
      const isRunning = pause.textContent === "Pause";
      clearInterval(blinking);
      if (!isRunning) start();
      pause.textContent = isRunning ? "Continue" : "Pause";
    });
    other.addEventListener("click", swap);
    compared.prepend(element("div", { class: "buttons" }, pause, other));
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) pause.textContent = "Continue";
    else start();
  }
  find("result").replaceChildren(compared);
  document.querySelectorAll("#results .open").forEach((b) => b.removeAttribute("aria-current"));
  reveal();
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { files } = find("photograph");
  if (!files.length) return say("No photo selected. Choose, drop or paste one first.", true);
  add([...files]);
  find("photograph").value = "";
});
find("stop").addEventListener("click", () => {
  pending.length = 0;
  stopped?.abort();
});
find("side").addEventListener("click", () => compare(false));
find("blink").addEventListener("click", () => compare(true));
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    try {
      const content = await (await request(button.dataset.example)).blob();
      const name = `${button.textContent.trim()}.jpg`;
      add([new File([content], name, { type: "image/jpeg" })]);
    } catch (error) {
      say(error.message, true);
    }
  });
}

function accept(event, transfer) {
  document.body.classList.remove("dragging");
  if (!transfer?.files.length) return;
  event.preventDefault();
  add([...transfer.files]);
}
document.addEventListener("paste", (event) => accept(event, event.clipboardData));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  accept(event, event.dataTransfer);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));

setInterval(() => created.forEach((id) => fetch(`${API}/${id}`).catch(() => {})),
  KEEP_ALIVE_INTERVAL);
addEventListener("pagehide", () => created.forEach((id) => remove(id, { keepalive: true })));
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
