// The benchmark: one width after another, until it is done or cancelled.

import { chart } from "./chart.js";
import { element, number, say } from "./dom.js";
import { onRun } from "./form.js";

export function openBenchmark(section, page) {
  const form = section.querySelector("form");
  const status = section.querySelector(".status");
  const progress = section.querySelector("progress");
  const cancel = section.querySelector(".cancel");
  const start = form.querySelector(".main");
  let benchmark;
  let measurements = [];

  const place = section.querySelector(".chart");
  // Its texts keep their size, however wide it is.
  new ResizeObserver(() => measurements.length > 0 && place.replaceChildren(...chart(measurements, place.clientWidth))).observe(place);

  cancel.addEventListener("click", () => {
    benchmark?.cancel();
    say(status, "Cancelling …");
  });

  onRun(form, {
    onChange: false,
    async run(data) {
      progress.value = 0;
      benchmark = page.benchmark(data);
      const { count } = benchmark;
      measurements = [];
      start.disabled = true;
      cancel.disabled = false;
      // A keyboard's place is kept: what is pressed next, if anything, is this.
      if (document.activeElement === start || document.activeElement === document.body) cancel.focus();
      try {
        for (let which = 0; which < count; which++) {
          say(status, `Measuring width ${which + 1} of ${count} …`);
          const measurement = await benchmark.measure(which, (part) => (progress.value = (which + part) / count));
          if (!measurement) {
            say(status, `Cancelled after ${measurements.length} of ${count} widths.`);
            return;
          }
          measurements.push(measurement);
          show(section, measurements);
        }
        progress.value = 1;
        say(status, `Done: ${count} ${count === 1 ? "width" : "widths"}, every result within the bound.`, "good");
      } finally {
        const hadFocus = document.activeElement === cancel;
        start.disabled = false;
        cancel.disabled = true;
        if (hadFocus) start.focus();
        // Its tensors are large, and nobody knows when they would be collected.
        benchmark.free();
        benchmark = undefined;
      }
    },
    fail(message, refused) {
      say(status, message || (refused === 1 ? "One field is to be changed." : `${refused} fields are to be changed.`), "bad");
    },
  });
}

function show(section, measurements) {
  const cells = (m) => [
    m.width.toLocaleString("en"),
    m.rows.toLocaleString("en"),
    number(m.milliseconds, 3),
    number(m.copy_milliseconds, 3),
    number(m.gigabytes_per_second, 2),
    number(m.copy_gigabytes_per_second, 2),
    number(m.multiple, 2),
    number(m.largest_error),
  ];
  const row = (m) => element("tr", {}, ...cells(m).map((text) => element("td", {}, text)));
  section.querySelector("tbody").replaceChildren(...measurements.map(row));
  section.querySelector(".outcome").hidden = false;
  const place = section.querySelector(".chart");
  place.replaceChildren(...chart(measurements, place.clientWidth));
}
