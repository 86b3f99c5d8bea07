/* What works in the browser alone: nothing is sent while a slider moves or more is shown. */
const linked = new URLSearchParams(location.search).has("state");
let acted = linked;
for (const kind of ["pointerdown", "keydown", "drop"]) {
  document.addEventListener(kind, (event) => {
    acted ||= Boolean(event.target.closest?.("#ul-inputs, #ul-outdated"));
  }, true);
}
document.addEventListener("click", (event) => {
  const more = event.target.closest(".ul-more");
  if (!more) return;
  const shown = document.querySelector("#ul-methods").classList.toggle("ul-all");
  more.setAttribute("aria-expanded", shown);
  more.textContent = shown ? "Fewer methods" : "More methods";
});
window.unilens = {
  open(...values) {
    document.querySelector("#ul-status").setAttribute("aria-live", "polite");
    if (innerWidth < 700) {
      for (const part of document.querySelectorAll(":is(#ul-path, #ul-trust-part) > button")) {
        part.click();
      }
    }
    return values;
  },
  /* No sample is pressed any longer. */
  release() {
    for (const button of document.querySelectorAll("#ul-sample [aria-pressed=true]")) {
      button.setAttribute("aria-pressed", "false");
    }
    return [];
  },
  /* After an explanation: the address bar and the absolute link name it, and it is in view. */
  show(link) {
    const here = location.origin + location.pathname;
    if (acted) {
      history.replaceState(null, "", link ? here + link : here);
      requestAnimationFrame(() => unilens.reveal(document.querySelector("#ul-results")));
    }
    return link && here + link;
  },
  reveal(part) {
    const top = part.getBoundingClientRect().top;
    if (top >= 0 && top < innerHeight / 2) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    part.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
  },
  opacity(value) {
    document.documentElement.style.setProperty("--ul-opacity", value);
    return value;
  },
};

/* Peel: the photograph dissolves into the baseline under the pointer, or by the slider. */
function peel(path, at) {
  const last = Number(path.querySelector("input").max);
  path.dataset.at = at;
  for (const part of path.querySelectorAll(".ul-stop")) {
    part.toggleAttribute("hidden", Number(part.dataset.stop) !== at);
  }
  const texts = [`${Math.round((100 * at) / last)} % of the way.`];
  for (const card of path.querySelectorAll("[data-confidences]")) {
    const of = (values) => card.dataset[values].split(values === "percents" ? "|" : " ")[at];
    const shown = card.querySelector(".ul-so-far");
    shown.setAttribute("width", Number(shown.dataset.width) * Number(of("positions")));
    card.querySelector(".ul-bar > span").style.width = `${100 * Number(of("confidences"))}%`;
    card.querySelector(".ul-number").textContent = of("percents");
    texts.push(`${card.dataset.name}: “${path.dataset.label}” ${of("percents")}.`);
  }
  path.querySelector("input").setAttribute("aria-valuetext", texts.join(" "));
}

document.addEventListener("input", (event) => {
  const path = event.target.closest(".ul-path-steps");
  if (path) peel(path, Number(event.target.value));
});

for (const kind of ["pointerdown", "pointermove"]) {
  document.addEventListener(kind, (event) => {
    const under = event.target.closest?.(".ul-path-steps .ul-peel");
    if (!under) return;
    const path = under.closest(".ul-path-steps"), slider = path.querySelector("input");
    const box = (under.querySelector(".ul-axis") || under).getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    slider.value = Math.round(share * slider.max);
    peel(path, Number(slider.value));
  });
}
