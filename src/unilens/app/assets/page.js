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
  stop(value) {
    for (const path of document.querySelectorAll(".ul-path-steps")) {
      for (const part of path.querySelectorAll(".ul-stop")) {
        part.toggleAttribute("hidden", Number(part.dataset.stop) !== Number(value));
      }
      const last = path.querySelectorAll("p.ul-stop").length - 1;
      for (const shown of path.querySelectorAll(".ul-so-far")) {
        shown.setAttribute("width", (Number(shown.dataset.width) * Number(value)) / last);
      }
      path.dataset.at = value;
    }
    return value;
  },
};
