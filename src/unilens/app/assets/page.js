/* The two sliders work in the browser alone: nothing is sent while they move. */
window.unilens = {
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
