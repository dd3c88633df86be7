// Shows one step of a timeline at a time. All text arrives as data and is set as textContent, never as HTML.

const ABSENT = -1;
const MEASURED = 200;
// JupyterLab reads keys before the page does: without this on the focused element, arrows would move its cells.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const row = (fit, changed, ...cells) =>
  make("tr", { "data-fit": fit, class: changed ? "esim-changed" : "" }, ...cells);
const cell = (text, kind = "") => make("td", { class: kind }, text);
const name = (text) => make("th", { scope: "row" }, text);

function chip(event) {
  const node = make("span", { class: "esim-chip" }, event.type);
  node.style.setProperty("--esim-type", event.color);
  return node;
}

function headed(title, note, content) {
  const heading = make("div", { class: "esim-heading", "aria-hidden": "true" }, title);
  if (note) heading.append(make("span", { class: "esim-note" }, note));
  return make("section", { "aria-label": title }, heading, content);
}

function table(label, columns, body, kind = "", numeric = []) {
  const heads = columns.map((text, i) => make("th", { scope: "col", class: numeric[i] ? "esim-number" : "" }, text));
  return make("table", { "aria-label": label, class: kind }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
}

// --- the three panels ---------------------------------------------------------------------------------------

function eventPanel(step) {
  const { event } = step;
  if (!event) return headed("Event", "", make("p", { class: "esim-quiet" }, "Nothing has happened yet in these steps."));
  const lines = event.data.map((field) => row("", false, name(field.name), cell(field.text)));
  const facts = [`${event.stream}, version ${event.version}, position ${event.position}`];
  facts.push(...event.facts.map((field) => `${field.name} ${field.text}`));
  const content = make(
    "div",
    {},
    make("p", {}, chip(event)),
    make("table", { class: "esim-data", "aria-label": `payload of ${event.type}` }, make("tbody", {}, ...lines)),
    ...facts.map((text) => make("p", { class: "esim-quiet" }, text)),
  );
  return headed("Event", "", content);
}

function statePanel(step) {
  const { state } = step;
  if (!state) return headed("State", "", make("p", { class: "esim-quiet" }, "No state is folded for this stream."));
  if (state.problem) return headed("State", state.name, make("p", { class: "esim-problem" }, `✗ ${state.problem}`));
  const lines = state.fields.map((field) => {
    const changed = field.before !== null;
    const fit = `${state.name}.${field.name}`;
    const value = cell(field.text, "esim-value");
    if (!changed) value.colSpan = 2;
    return row(fit, changed, name(field.name), value, changed ? cell(`was ${field.before}`, "esim-before") : null);
  });
  return headed("State", state.name, table(`state of ${state.name}`, ["field", "value", "before"], lines, "esim-fields"));
}

function modelRow(model, line, now, was) {
  const cells = now === ABSENT ? model.columns.map((_, i) => model.keys[line][model.key.indexOf(i)] ?? "·") : model.pool[now];
  const old = was === ABSENT ? [] : model.pool[was];
  const changed = cells.map((text, i) => now !== was && now !== ABSENT && text !== old[i]);
  const before = now === was ? "" : now === ABSENT ? "removed" : was === ABSENT ? "new row"
    : `was ${model.columns.filter((_, i) => changed[i]).map((column) => `${column} ${old[model.columns.indexOf(column)]}`).join(", ")}`;
  const kinds = cells.map((_, i) => `${model.numeric[i] ? "esim-number" : ""} ${changed[i] ? "esim-value" : ""}`);
  const node = row(`${model.name} ${line}`, now !== was, ...cells.map((text, i) => cell(text, kinds[i])), cell(before, "esim-before"));
  if (now === ABSENT) node.classList.add("esim-absent");
  return node;
}

function modelPanel(model, index, step, earlier) {
  const now = step.rows[index];
  const was = earlier ? earlier.rows[index] : now;
  const lines = model.keys.map((_, line) => modelRow(model, line, now[line], was[line]));
  const content = lines.length
    ? table(`read model ${model.name}`, [...model.columns, "before"], lines, "", model.numeric)
    : make("p", { class: "esim-quiet" }, "It has no rows.");
  return headed("Read model", model.note ? `${model.name}: ${model.note}` : model.name, content);
}

// --- no jumps: every row and panel is as high as it gets in any step ------------------------------------------

function fit(body, heights) {
  for (const node of body.querySelectorAll("[data-fit]")) {
    const height = heights.get(node.dataset.fit);
    if (height) node.style[node.tagName === "TR" ? "height" : "minHeight"] = `${height}px`;
  }
}

function measure(body, count, show) {
  const heights = new Map();
  const stride = Math.ceil(count / MEASURED);
  for (let index = 0; index < count; index += stride) {
    show(index);
    fit(body, heights);
    for (const node of body.querySelectorAll("[data-fit]")) {
      const { fit: key } = node.dataset;
      const height = node.getBoundingClientRect().height;
      if (key && height > (heights.get(key) ?? 0)) heights.set(key, Math.ceil(height));
    }
  }
  return heights;
}

// --- the whole ----------------------------------------------------------------------------------------------

function rail(steps) {
  const strip = make("div", { class: `esim-rail${steps.length > 60 ? " esim-dense" : ""}`, "aria-hidden": "true" });
  const last = Math.max(steps.length - 1, 1);
  steps.forEach((step, index) => {
    const dot = make("span", {});
    dot.style.setProperty("--esim-at", index / last);
    if (step.event) dot.style.setProperty("--esim-type", step.event.color);
    else dot.className = "esim-start";
    strip.append(dot);
  });
  return strip;
}

function button(label, glyph, go) {
  const node = make("button", { type: "button", "aria-label": label, title: label, ...OWN_KEYS }, glyph);
  node.addEventListener("click", go);
  return node;
}

export function mount(host, timeline) {
  const { steps } = timeline;
  const last = steps.length - 1;
  const words = (step) => `${step.label}${step.event ? `: ${step.event.type}` : ""}`;
  const named = { "aria-label": `${timeline.unit} of ${timeline.title}`, ...OWN_KEYS };
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, ...named });
  slider.value = last;
  const where = make("output", { class: "esim-where" });
  const status = make("p", { class: "esim-hidden", role: "status" });
  const body = make("div", { class: "esim-body" });
  const strip = rail(steps);
  let heights = new Map();

  function show(index) {
    const step = steps[index];
    const panels = make("div", { class: "esim-panels" }, eventPanel(step), statePanel(step));
    const models = timeline.tables.map((model, i) => modelPanel(model, i, step, steps[index - 1]));
    panels.childNodes.forEach((panel, i) => panel.setAttribute("data-fit", `panel ${i}`));
    body.replaceChildren(panels, ...models);
  }

  function update() {
    const index = Number(slider.value);
    show(index);
    fit(body, heights);
    const step = steps[index];
    where.textContent = `${step.label} of ${steps[last].label.split(" ")[1]}`;
    slider.setAttribute("aria-valuetext", words(step));
    status.textContent = [words(step), ...step.changes].join("; ");
    back.forEach((node) => { node.disabled = index === 0; });
    on.forEach((node) => { node.disabled = index === last; });
    strip.childNodes.forEach((dot, i) => dot.classList.toggle("esim-later", i > index));
  }

  function go(to) {
    slider.value = to();
    update();
  }

  const back = [button("first step", "«", () => go(() => 0)), button("previous step", "‹", () => go(() => Number(slider.value) - 1))];
  const on = [button("next step", "›", () => go(() => Number(slider.value) + 1)), button("last step", "»", () => go(() => last))];
  slider.addEventListener("input", update);
  const root = make(
    "div",
    { class: "esim-time-machine", role: "group", "aria-label": `time machine: ${timeline.title}` },
    make("div", { class: "esim-top" }, make("strong", {}, timeline.title), where),
    make("div", { class: "esim-controls" }, ...back, make("div", { class: "esim-slide" }, strip, slider), ...on),
    status,
    body,
    ...timeline.notes.map((text) => make("p", { class: "esim-quiet" }, text)),
  );
  host.replaceChildren(root);
  update();
  let width = 0;
  const watch = new ResizeObserver(() => {
    if (root.clientWidth === width || root.clientWidth === 0) return;
    width = root.clientWidth;
    heights = measure(body, steps.length, show);
    update();
  });
  watch.observe(root);
  return () => watch.disconnect();
}

export default {
  render({ model, el }) {
    return mount(el, model.get("timeline"));
  },
};
