// Shows one of several maps at a time. Pictures are data URIs in <img>, words are set as textContent.

// JupyterLab reads keys before the page does: without this on the focused element, arrows would move its cells.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function mount(host, map) {
  const last = map.steps.length - 1;
  const range = { type: "range", min: 0, max: last, step: 1, "aria-label": `how much of ${map.title} is shown` };
  const slider = make("input", { ...range, ...OWN_KEYS });
  slider.value = map.start;
  const words = make("output", { class: "esim-shown", role: "status" });
  const picture = make("img", {});

  function update() {
    const step = map.steps[Number(slider.value)];
    picture.src = step.image;
    picture.alt = step.alt;
    words.textContent = step.words;
    slider.setAttribute("aria-valuetext", step.words);
  }

  slider.addEventListener("input", update);
  const ends = [make("span", {}, "the most frequent"), slider, make("span", {}, "more")];
  const top = last > 0 ? [make("div", { class: "esim-controls" }, ...ends, words)] : [];
  host.replaceChildren(make("div", { class: "esim-process-map", role: "group", "aria-label": map.title }, ...top, picture));
  update();
}

export default {
  render({ model, el }) {
    mount(el, model.get("map"));
  },
};
