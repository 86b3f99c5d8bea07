/* The two sliders work in the browser alone: nothing is sent while they move. */
window.unilens = {
  opacity(value) {
    document.documentElement.style.setProperty("--ul-opacity", value);
    return value;
  },
  stop(value) {
    for (const journey of document.querySelectorAll(".ul-journey")) {
      for (const part of journey.querySelectorAll(".ul-stop")) {
        part.toggleAttribute("hidden", Number(part.dataset.stop) !== Number(value));
      }
      const last = journey.querySelectorAll("p.ul-stop").length - 1;
      for (const shown of journey.querySelectorAll(".ul-so-far")) {
        shown.setAttribute("width", (Number(shown.dataset.width) * Number(value)) / last);
      }
      journey.dataset.at = value;
    }
    return value;
  },
};
